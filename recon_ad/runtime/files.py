"""Files that appear whole or not at all."""

import ctypes
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

ASIDE = ".old"  # suffix of a directory's name while another directory takes its place
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # constants of Linux' renameat2
# A spreadsheet takes a cell that begins with one of these signs, also a full-width one, for a
# formula, and a cell may begin behind another separator than the comma.
_FORMULA = re.compile(r'(^|[;|\t\r\n])([" ]*)([=+\-@\uff1d\uff0b\uff0d\uff20])')


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside the target, then rename, so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp creates files that only their owner may read.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class NotRegularError(OSError):
    """A pipe, a socket, a device or a file of the kernel, where a file was expected."""


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a regular file, whose content is stored.

    Files in /proc count as regular for the system, but reading one of them may wait for ever.
    """
    try:
        return _is_regular(os.stat(path))
    except OSError:
        return False


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, without waiting for anything.

    Raises:
      NotRegularError: If it is another kind of file. It is not opened, which would start some
        devices.
      OSError: If it cannot be opened.
    """
    _check_regular(os.stat(path), path)
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _check_regular(os.fstat(handle), path)  # another file may have taken its place
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _check_regular(found: os.stat_result, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not _is_regular(found):
        raise NotRegularError(errno.EINVAL, "is not a regular file", os.fspath(path))


def _is_regular(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_dev != _device_of_proc()


@functools.cache
def _device_of_proc() -> int | None:
    try:
        return os.stat("/proc/self").st_dev
    except OSError:
        return None


def identity(path: Path) -> tuple[int, int] | None:
    """Return numbers that distinguish a file from another at its path; None if it is absent."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def sha256(content: bytes) -> str:
    """Return the SHA-256 as hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_text(path: Path, content: str) -> None:
    """Write text in UTF-8 (`write_bytes`), with invalid bytes of file names escaped."""
    write_bytes(path, content.encode(errors="backslashreplace"))


def plain_cell(text: str) -> str:
    """Return the text as a cell of a CSV file that no spreadsheet takes for a formula."""
    text = _FORMULA.sub(r"\1\2'\3", text)
    return f"'{text}" if text.startswith(("\t", "\r", "\n")) else text


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON in the given order.

    Raises:
      ValueError: If the content has NaN or infinity, which JSON lacks.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def fresh_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory that replaces `path` when the block ends without an exception.

    No reader sees it half written: on Linux the two are exchanged in one step if the file system
    supports that. Leftovers of killed processes are removed; a directory that one had set aside is
    put back if nothing is in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _tidy(path)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    with _held(scratch):
        try:
            yield scratch
            umask = os.umask(0)
            os.umask(umask)
            scratch.chmod(0o777 & ~umask)
            if not path.exists():
                scratch.rename(path)
            elif not _exchanged(scratch, path):
                aside = scratch.with_name(f"{scratch.name}{ASIDE}")
                path.rename(aside)
                scratch.rename(path)
                shutil.rmtree(aside, ignore_errors=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)  # after an exchange, this is the old one


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two directories in one step; return False if the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if not hasattr(libc, "renameat2"):
        return False
    paths = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    return libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock a folder to show that its process is alive; yield False if it cannot be locked."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:  # another process holds it, or the file system does not support locks
            held = False
        yield held
    finally:
        os.close(handle)


def _tidy(path: Path) -> None:
    """Remove leftovers of killed processes beside `path`, and put back what they had set aside."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if not left.is_dir():
            continue
        with suppress(FileNotFoundError), _held(left) as dead:  # it may have been removed since
            if dead and left.name.endswith(ASIDE) and not path.exists():
                left.rename(path)
            elif dead:
                shutil.rmtree(left, ignore_errors=True)
