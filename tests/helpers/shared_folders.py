"""Folders that the processes of a test run share, such as a trained run."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder, after the first of several processes has filled it by `make`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            scratch = folder.with_suffix(".scratch")
            shutil.rmtree(scratch, ignore_errors=True)  # left by a process that failed
            make(scratch)
            scratch.rename(folder)
    return folder
