"""From the command to the report: seconds of each phase of a run.

    python -m benchmarks.phases [--data DATASETS --weights FOLDER]

Runs `recon_ad.train` as a user does, on a machine that has compiled nothing yet, then
`recon_ad.evaluate` again with what is compiled by then. Takes the times of the log's lines: the
start (imports, images listed), training with calibration, judging with the report, and export. The
demo is always run; with `--data`, grid and the ball screw by `knn`, `vit_flow` and the CAE at the
scale of a CPU. Writes results/phases.json after each run.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.data.locate import check_data, find_category

SETS = ("grid", "ball_screw")
METHODS = ("knn", "vit_flow", "cae")
ENCODER = "deit_tiny_patch16_224"
# The line of the log with which a phase ends, in their order.
PHASES = {
    "start": "held out for calibration",
    "training and calibration": "detector: ",
    "judging and report": "exporting model.onnx",
    "export": "written to ",
}


def timed(command: list[str], cache: Path) -> dict[str, float]:
    """Runs a command of the package; seconds of its phases, and in all.

    Raises:
      RuntimeError: it failed.
    """
    begin = before = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
    )
    assert process.stderr is not None, "it is a pipe"
    seconds: dict[str, float] = {}
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        for phase, end in PHASES.items():
            if phase not in seconds and re.match(end, line):
                now = time.perf_counter()
                seconds[phase], before = now - before, now
    if process.wait():
        raise RuntimeError("".join(lines[-5:]))
    seconds["all"] = time.perf_counter() - begin
    return {name: round(value, 2) for name, value in seconds.items()}


def run(config: list[str], scratch: Path) -> dict[str, Any]:
    """A training with all that follows, and the evaluation once more."""
    workdir, cache = scratch / "run", scratch / "cache"
    train = ["recon_ad.train", *config, f"--workdir={workdir}"]
    return {
        "train": timed(train, cache),
        "evaluate_again": timed(["recon_ad.evaluate", f"--workdir={workdir}"], cache),
    }


def runs() -> dict[str, list[str]]:
    """The config of each run, by its name."""
    found = {"demo": ["--config=configs/demo.py"]}
    if not _DATA.value:
        return found
    for name in SETS:
        folder = find_category(check_data(Path(_DATA.value)), [name])
        if folder is None:
            continue
        for method in METHODS:
            spec = f"configs/folder.py:path={folder},method={method},scale=cpu"
            spec += f",weights={_WEIGHTS.value}/{ENCODER}"
            found[f"{name}, {method}"] = [f"--config={spec}"]
    return found


def main() -> None:
    """Runs all."""
    rows: dict[str, Any] = {}
    for name, config in runs().items():
        with tempfile.TemporaryDirectory() as scratch:
            rows[name] = run(config, Path(scratch))
        print(name, rows[name], flush=True)
        record.write("phases", {"command": "python -m benchmarks.phases", "runs": rows})


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", "", "Folder that holds data sets.")
    _WEIGHTS = flags.DEFINE_string("weights", "", "Folder with a folder of each encoder's name.")
    cli.run(main)
