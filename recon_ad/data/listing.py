"""Listing of image files by suffix, in any case; dotfiles and dot-folders are left out.

Everything with an image's suffix is listed, also a folder, a dangling link or a pipe. Decoding it
reports the problem, whereas leaving it out would be silent.
"""

from collections.abc import Iterator
from pathlib import Path

from recon_ad.data.decode import SUFFIXES
from recon_ad.errors import UserError


def images_in(folder: Path) -> list[Path]:
    """Return the images directly in a folder, sorted by name."""
    return [path for path in visible(folder) if path.suffix.lower() in SUFFIXES]


def images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and below it, a folder's own before those below."""
    return [path for path in files_below(folder) if path.suffix.lower() in SUFFIXES]


def files_below(folder: Path) -> list[Path]:
    """Return all files below a folder, and folders with an image's suffix; links are followed.

    Raises:
      UserError: If a link leads back to a folder above it.
    """
    return list(_below(folder, (folder.resolve(),)))


def _below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    subfolders = []
    for path in visible(folder):
        if path.is_dir() and path.suffix.lower() not in SUFFIXES:
            subfolders.append(path)
        else:
            yield path
    for path in subfolders:
        real = path.resolve()
        if real in above:
            raise UserError(f"{path}: is a link to a folder that holds it: remove the link")
        yield from _below(path, (*above, real))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, sorted by name."""
    return [path for path in visible(folder) if path.is_dir()]


def visible(folder: Path) -> list[Path]:
    """Return the entries of a folder without dotfiles, sorted by name.

    Raises:
      UserError: If the folder may not be read.
    """
    try:
        paths = list(folder.iterdir())
    except PermissionError as error:
        raise UserError(f"{folder}: may not be read: give a folder that you may read") from error
    return sorted((p for p in paths if not p.name.startswith(".")), key=lambda p: p.name)
