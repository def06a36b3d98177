"""Files that appear whole or not at all."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
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

    Nobody sees it half written. The old one is renamed, not deleted, until the new one stands.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield scratch
        umask = os.umask(0)
        os.umask(umask)
        scratch.chmod(0o777 & ~umask)
        # A directory cannot be renamed over a full one: the old one steps aside, and goes only
        # when the new one stands.
        aside = scratch.with_name(f"{scratch.name}.old")
        if path.exists():
            path.rename(aside)
        scratch.rename(path)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
