"""The user's data sets: folders in the MVTec layout, found by name."""

from collections.abc import Sequence
from pathlib import Path

from recon_ad.data import GOOD
from recon_ad.data.listing import subfolders
from recon_ad.errors import UserError


def check_folder(folder: Path, *, flag: str, give: str) -> Path:
    """Return the folder that a flag names.

    Raises:
      UserError: If it does not exist; the message ends with what to give.
    """
    if not folder.is_dir():
        raise UserError(f"{flag} {folder}: folder not found: give {give}.")
    return folder


def check_data(data: Path) -> Path:
    """Return the folder given as --data; raise as `check_folder`."""
    return check_folder(data, flag="--data", give="the one that holds your data sets")


def check_weights(weights: Path) -> Path:
    """Return the folder given as --weights; raise as `check_folder`."""
    give = (
        "the one that holds a folder with model.safetensors for each encoder, or leave it out to "
        "fetch them"
    )
    return check_folder(weights, flag="--weights", give=give)


def in_layout(folder: Path) -> bool:
    """Return whether the folder holds a category in the MVTec layout."""
    return (folder / "train" / GOOD).is_dir()


def _plain(parts: Sequence[str]) -> str:
    return "/".join(parts).lower().replace("-", "_").replace(" ", "_")


def find_category(data: Path | None, names: Sequence[str]) -> Path | None:
    """Return the folder in the MVTec layout with one of the names in any case, or None.

    `data` itself, the folders in it, and those one level below are searched. A name such as
    "mvtec_ad/grid" also names the folder that holds it.
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
    """Return all categories of a set: in the folder with one of its names, or else in `data`."""
    wanted = {_plain([name]) for name in names}
    named = [folder for folder in subfolders(data) if _plain([folder.name]) in wanted]
    return [f for place in named or [data] for f in subfolders(place) if in_layout(f)]
