"""Finished runs that many tests share, each trained once by whichever process is first."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

from helpers.small_runs import small_config
from recon_ad.evaluation import run as evaluate
from recon_ad.training import run as trainer


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Returns the folder, which the first of several processes fills by `make`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            scratch = folder.with_suffix(".scratch")
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that failed
            make(scratch)
            scratch.rename(folder)
    return folder


def train_and_evaluate(method: str, workdir: Path) -> None:
    """Trains the smoke config of a method, evaluates and exports it."""
    trainer.train(small_config(f"configs/folder.py:method={method},smoke"), workdir)
    evaluate.evaluate_workdir(workdir)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file below a folder, to see whether anything was changed."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}
