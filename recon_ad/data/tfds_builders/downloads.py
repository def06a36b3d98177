"""The user's download: a folder that holds a data set, or its archive.

Archives are .zip and .tar, also compressed. Only the wanted members are unpacked, into the caller's
folder, so that one category of a large archive takes the room of one category.
"""

import errno
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from recon_ad.data.listing import subfolders
from recon_ad.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")
# Exceptions for damaged archives; RuntimeError is for features that are not supported.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
)


def find_root(
    folder: Path,
    root_of: Callable[[Path], Path | None],
    *,
    archives: Sequence[str],
    wanted: Callable[[PurePosixPath], bool],
    scratch: Path,
    what: str,
) -> Path:
    """Return the folder that holds the data set; an archive is unpacked first.

    Args:
      folder: Folder of the download; up to two levels of subfolders are searched.
      root_of: Returns the data set's root if the given folder is or has one, else None.
      archives: Names of the archive without suffix, the likeliest first.
      wanted: Returns whether to unpack the file of this path, which begins with the archive's name.
      scratch: Empty folder to unpack into.
      what: Folder that makes the data set, for messages.

    Raises:
      UserError: If neither is found, or the archive is damaged or holds something else.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: folder not found: put {_names(archives)} there")
    if (root := _search(folder, root_of)) is not None:
        return root
    files = [folder / f"{name}{suffix}" for name in archives for suffix in SUFFIXES]
    archive = next((file for file in files if file.is_file()), None)
    if archive is None:
        raise UserError(
            f"{folder}: holds neither {what} nor its archive: put {_names(archives)} there, or "
            "what is in it"
        )
    name = next(name for name in archives if archive.name.startswith(f"{name}."))
    _unpack(archive, scratch, PurePosixPath(name), wanted)
    if (root := _search(scratch, root_of)) is None:
        raise UserError(f"{archive}: has no {what} in it: put {_names(archives)} there instead")
    return root


def _names(archives: Sequence[str]) -> str:
    *others, last = [f"{name}.*" for name in archives]
    return f"{', '.join(others)} or {last}" if others else last


def _search(folder: Path, root_of: Callable[[Path], Path | None]) -> Path | None:
    roots = map(root_of, _candidates(folder.resolve()))  # the name of "." counts too
    return next((root for root in roots if root is not None), None)


def _candidates(folder: Path) -> Iterator[Path]:
    yield folder
    below = subfolders(folder)
    yield from below
    for each in below:
        yield from subfolders(each)


def _unpack(
    archive: Path, target: Path, top: PurePosixPath, wanted: Callable[[PurePosixPath], bool]
) -> None:
    read = _zip_files if archive.suffix == ".zip" else _tar_files
    try:
        for name, file in read(archive, lambda name: wanted(top / name)):
            path = target / top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as copy:
                shutil.copyfileobj(file, copy)
    except _BROKEN as error:
        # An error of the disk, not of the archive; EINVAL means an impossible offset in it.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = str(error).partition("\n")[0].rstrip(":")  # tarfile adds further lines
        raise UserError(
            f"{archive}: cannot be unpacked ({reason}): the download is damaged or not complete, "
            "fetch it again"
        ) from error


def _zip_files(
    archive: Path, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            name = PurePosixPath(member.filename)
            if not member.is_dir() and _is_inside(name) and wanted(name):
                with opened.open(member) as file:
                    yield name, file


def _tar_files(
    archive: Path, wanted: Callable[[PurePosixPath], bool]
) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    with tarfile.open(archive) as opened:
        for member in opened:
            name = PurePosixPath(member.name)
            if member.isfile() and _is_inside(name) and wanted(name):
                file = opened.extractfile(member)
                assert file is not None  # only regular files get here
                yield name, file
        _check_end(opened)


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise as for a damaged archive where `tarfile` takes the damage for the end."""
    assert archive.fileobj is not None  # it is open
    rest = 0
    # To the end, also because compressed files have their checksum there.
    while block := archive.fileobj.read(2**20):
        if any(block):
            raise tarfile.ReadError("a file's header is damaged")
        rest += len(block)
    if not rest:
        raise tarfile.ReadError("it stops before its end")


def _is_inside(name: PurePosixPath) -> bool:
    """Return whether the path of a member stays in the folder that it is unpacked into."""
    return not name.is_absolute() and ".." not in name.parts
