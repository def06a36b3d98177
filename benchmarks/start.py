"""Measure the time until the demo's first training step, and how long steps wait for their data.

    python -m benchmarks.start

The start is measured twice with a separate compilation cache, first empty and then filled. The
waiting time is the one that the trainer reports over 60 steps of the demo: the share of the time in
which it waited for the next batch, an upper bound on the devices' idle time.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import record
from benchmarks.harness.log_times import log_times

STEPS = 60


def command(workdir: Path, *fields: str) -> list[str]:
    """Return the module and arguments that train the demo without an evaluation."""
    return [
        *("recon_ad.train", "--config", "configs/demo.py"),
        *("--workdir", str(workdir), "--stop_after=train", *fields),
    ]


def seconds_to_first_step(workdir: Path, cache: Path) -> float:
    """Return the time from the start of the process to the log line of step 1."""
    two = command(workdir, "--config.train.log_every=1", "--config.train.steps=2")
    seconds, _ = log_times(two, cache, lines={"step 1": r"step 1 of \d+: train_loss"})
    return seconds["step 1"]


def main() -> None:
    """Measure, print the result and write it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        cold, warm = (
            seconds_to_first_step(folder / name, folder / "cache") for name in ("cold", "warm")
        )
        few = [f"--config.train.steps={STEPS}", f"--config.train.eval_every={STEPS}"]
        steps = [sys.executable, "-m", *command(folder / "steps", *few)]
        subprocess.run(steps, check=True, stderr=subprocess.DEVNULL)
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
