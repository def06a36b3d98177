"""Files that appear whole or not at all."""

import ctypes
import fcntl
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ASIDE = ".old"  # end of a directory's name while another takes its place
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux' renameat2
# What begins with one of these is a formula to a spreadsheet.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_bytes(path: Path, content: bytes) -> None:
    """Writes beside the target, then renames: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files that only their owner may read.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file or folder from another one with its path; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def sha256(content: bytes) -> str:
    """Returns the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def write_text(path: Path, content: str) -> None:
    """`write_bytes` in UTF-8; bytes of a file's name that are none are escaped."""
    write_bytes(path, content.encode(errors="backslashreplace"))


def plain_cell(text: str) -> str:
    """Returns the text as a cell of a CSV file that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def write_json(path: Path, content: Any) -> None:
    """Indented, in the order given; refuses NaN and infinity, which are not JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


@contextmanager
def fresh_directory(path: Path) -> Iterator[Path]:
    """A temporary directory that replaces `path` when the block ends without an exception.

    Nobody sees it half written: on Linux the two are exchanged in one step, where the file system
    can do that. What killed processes left is removed, or, where they left nothing else, put back.
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
            shutil.rmtree(scratch, ignore_errors=True)  # after an exchange, the old one


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges two directories in one step; False where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if not hasattr(libc, "renameat2"):
        return False
    paths = os.fsencode(one.absolute()), os.fsencode(other.absolute())
    return libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Holds a folder, so that others know that its process lives; False where that cannot be."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except OSError:  # another process holds it, or the file system knows no locks
            held = False
        yield held
    finally:
        os.close(handle)


def _tidy(path: Path) -> None:
    """Removes what killed processes left beside `path`, and puts back what they had set aside."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if not left.is_dir():
            continue
        with suppress(FileNotFoundError), _held(left) as dead:  # it may be gone meanwhile
            if dead and left.name.endswith(ASIDE) and not path.exists():
                left.rename(path)
            elif dead:
                shutil.rmtree(left, ignore_errors=True)
