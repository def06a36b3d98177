"""Waiting of long-running commands for a full disk or a locked table, and exclusive locks.

A command that runs for days waits for such a problem to pass instead of ending.
"""

import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar

from recon_ad.errors import UserError
from recon_ad.runtime.stopping import Stop

RUN_LOCK = "run.lock"  # lock file beside a detector, held by commands that write it
RETRY = 2.0  # s between two attempts to write

logger = logging.getLogger("recon_ad")

_Table = TypeVar("_Table")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, is that of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error):
            return True
        # TensorStore and TensorFlow raise their own errors when they write.
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def passing(error: Exception) -> str:
    """Return the temporary problem that prevents writing, or "" if waiting does not help."""
    if isinstance(error, sqlite3.OperationalError):
        return {
            sqlite3.SQLITE_FULL: "the disk is full",
            sqlite3.SQLITE_IOERR: "the disk is full or fails to write",
            sqlite3.SQLITE_CANTOPEN: "the disk is full or the table cannot be opened",
            sqlite3.SQLITE_BUSY: "another program holds the table",
            sqlite3.SQLITE_LOCKED: "another program holds the table",
        }.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")
    return "the disk is full" if isinstance(error, OSError) and error.errno in FULL else ""


class Retry:
    """Repeated attempts to write, with each temporary problem reported once."""

    def __init__(self, output: Path, stop: Stop):
        self._output, self._stop, self._told = output, stop, ""

    def wait(self, error: Exception) -> None:
        """Wait until the next attempt, or raise the error if waiting does not help."""
        reason = passing(error)
        if not reason:
            raise error
        if reason != self._told:
            logger.error(
                "%s: %s (%s); trying again every %g s, nothing is lost",
                self._output, reason, error, RETRY,
            )  # fmt: skip
        self._told = reason
        self._stop.wait(RETRY)

    def over(self) -> None:
        """Record that writing succeeded, so that the next problem is reported again."""
        self._told = ""


def opened(open_table: Callable[[], _Table], *, retry: Retry, stop: Stop) -> _Table | None:
    """Open a table, waiting while that may still succeed; return None if a stop is requested."""
    while not stop.asked:
        try:
            return open_table()
        except sqlite3.OperationalError as error:
            retry.wait(error)
    return None


@contextmanager
def exclusive_lock(path: Path, *, leave: bool = True) -> Iterator[None]:
    """Hold an exclusive lock while the block runs.

    Args:
      path: File that is locked, created if absent.
      leave: Whether the file stays afterwards.

    Raises:
      UserError: If another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path) as file:
        try:
            yield
        finally:
            # Removed while the lock is held, so that a process that has opened it sees this.
            if not leave and _is_still(path, file):
                path.unlink()


def _locked(path: Path) -> TextIO:
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise UserError(
                f"{path.parent}: another process works there; wait until it has ended."
            ) from None
        if _is_still(path, file):
            return file
        file.close()


def _is_still(path: Path, file: TextIO) -> bool:
    """Return whether the path is still that of the opened file, which another may have removed."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
