"""Measure the time until the demo's first training step, and how long steps wait for their data.

    python -m benchmarks.start

The start is measured twice with a separate compilation cache, first empty and then filled. The
waiting time is the one that the trainer reports over 60 steps of the demo: the share of the time in
which it waited for the next batch, an upper bound on the devices' idle time.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import record

STEPS = 60


def command(workdir: Path, *fields: str) -> list[str]:
    """Return the command that trains the demo without an evaluation."""
    return [
        *(sys.executable, "-m", "recon_ad.train", "--config", "configs/demo.py"),
        *("--workdir", str(workdir), "--stop_after=train", *fields),
    ]


def seconds_to_first_step(workdir: Path, cache: Path) -> float:
    """Return the time from the start of the process to the log line of step 1."""
    start = time.perf_counter()
    process = subprocess.Popen(
        command(workdir, "--config.train.log_every=1", "--config.train.steps=2"),
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if re.search(r"step 1 of \d+: train_loss", line):
            seconds = time.perf_counter() - start
            process.communicate()
            return seconds
    raise SystemExit("the demo ended before its first step")


def main() -> None:
    """Measure, print the result and write it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cold, warm = (
            seconds_to_first_step(folder / name, folder / "cache") for name in ("cold", "warm")
        )
        few = [f"--config.train.steps={STEPS}", f"--config.train.eval_every={STEPS}"]
        subprocess.run(command(folder / "steps", *few), check=True, stderr=subprocess.DEVNULL)
        described = json.loads((folder / "steps/detector/detector.json").read_text())
    training = described["record"]["training"]
    row = {
        "first_step_seconds_cold": cold,
        "first_step_seconds_warm": warm,
        "waited_for_data": training["waited_for_data"],
        "patches_per_second": training["patches_per_second"],
    }
    print("\n".join(f"{name:26} {value:.4g}" for name, value in row.items()))
    record.write("start", {"command": "python -m benchmarks.start", **row, "steps": STEPS})


if __name__ == "__main__":
    main()
