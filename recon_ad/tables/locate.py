"""Where a user keeps a data set: folders in the MVTec layout, looked for by name."""

from collections.abc import Sequence
from pathlib import Path

from recon_ad.data import GOOD
from recon_ad.data.listing import subfolders
from recon_ad.errors import UserError


def check_folder(data: Path) -> Path:
    """The folder given as --data.

    Raises:
      UserError: there is none.
    """
    if not data.is_dir():
        raise UserError(
            f"--data {data}: there is no such folder: give the one that holds your data sets."
        )
    return data


def in_layout(folder: Path) -> bool:
    """Whether it holds a category in the MVTec layout."""
    return (folder / "train" / GOOD).is_dir()


def _plain(parts: Sequence[str]) -> str:
    return "/".join(parts).lower().replace("-", "_").replace(" ", "_")


def find_category(data: Path | None, names: Sequence[str]) -> Path | None:
    """The folder in the MVTec layout that bears one of the names, whatever their case.

    Looked at are `data` itself, the folders in it, and those one below; None if there is none. A
    name such as "mvtec_ad/grid" says in which folder it lies, too.
    """
    if data is None:
        return None
    below = subfolders(data)
    candidates = [data, *below, *(deeper for folder in below for deeper in subfolders(folder))]
    for folder in filter(in_layout, candidates):
        for name in names:
            wanted = name.split("/")
            if _plain(folder.absolute().parts[-len(wanted) :]) == _plain(wanted):
                return folder
    return None


def categories(data: Path, names: Sequence[str]) -> list[Path]:
    """All categories of a set: in the folder that bears one of its names, or else in `data`."""
    wanted = {_plain([name]) for name in names}
    named = [folder for folder in subfolders(data) if _plain([folder.name]) in wanted]
    return [f for place in named or [data] for f in subfolders(place) if in_layout(f)]
