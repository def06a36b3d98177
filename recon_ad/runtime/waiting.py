"""What a command that runs for days waits for, instead of ending: room on the disk, a table that
another program holds. And that it is alone in its folder."""

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

RUN_LOCK = "run.lock"  # beside a detector, of commands that write it
RETRY = 2.0  # s between two tries when something cannot be written

logger = logging.getLogger("recon_ad")

_Table = TypeVar("_Table")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_is_full(error: BaseException | None) -> bool:
    """Tells whether an error, or what it came from, is that of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if isinstance(error, sqlite3.OperationalError) and "disk is full" in str(error):
            return True
        # Libraries that write by themselves have errors of their own: TensorStore, TensorFlow.
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def passing(error: Exception) -> str:
    """What has to pass before something can be written; "" where waiting is of no use."""
    if isinstance(error, sqlite3.OperationalError):
        return {
            sqlite3.SQLITE_FULL: "the disk is full",
            sqlite3.SQLITE_IOERR: "the disk is full or does not take what is written",
            sqlite3.SQLITE_CANTOPEN: "the disk is full or the table cannot be opened",
            sqlite3.SQLITE_BUSY: "another program holds the table",
            sqlite3.SQLITE_LOCKED: "another program holds the table",
        }.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")
    return "the disk is full" if isinstance(error, OSError) and error.errno in FULL else ""


class Retry:
    """Waits for what passes, and tells of it once."""

    def __init__(self, output: Path, stop: Stop):
        self._output, self._stop, self._told = output, stop, ""

    def wait(self, error: Exception) -> None:
        """Raises the error if waiting is of no use."""
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
        """Notes that it could be written, so that the next trouble is told again."""
        self._told = ""


def opened(open_table: Callable[[], _Table], *, retry: Retry, stop: Stop) -> _Table | None:
    """Opens a table, and waits while that may yet be possible; None where it is to stop."""
    while not stop.asked:
        try:
            return open_table()
        except sqlite3.OperationalError as error:
            retry.wait(error)
    return None


@contextmanager
def exclusive_lock(path: Path, *, leave: bool = True) -> Iterator[None]:
    """Raises `UserError` where another process is in here with the same path.

    Args:
      path: of the file that is locked, made if absent.
      leave: whether the file stays afterwards.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path) as file:
        try:
            yield
        finally:
            # While it is held: whoever opened it meanwhile sees that it is gone.
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
                f"{path.parent}: another process works there: wait until it has ended."
            ) from None
        if _is_still(path, file):
            return file
        file.close()


def _is_still(path: Path, file: TextIO) -> bool:
    """Tells whether the path is that of the opened file, which another may have removed."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
