"""Measure the time of each phase of a run, from the command to the report.

    python -m benchmarks.phases [--data DATASETS --weights FOLDER]

`recon_ad.train` runs as for a user, with an empty compilation cache, and then `recon_ad.evaluate`
runs again with the filled cache. The times come from the lines of the log: start (imports and
listing of images), training with calibration, judging with the report, and export. The demo always
runs. With `--data`, `knn`, `vit_flow` and the CAE also run on grid and the ball screw at CPU scale.
The result is written to results/phases.json after each run.
"""

import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.harness import record
from benchmarks.harness.log_times import log_times
from recon_ad import cli
from recon_ad.data.locate import check_data, find_category

SETS = ("grid", "ball_screw")
METHODS = ("knn", "vit_flow", "cae")
ENCODER = "deit_tiny_patch16_224"
# The log line with which each phase ends, in order.
PHASES = {
    "start": "calibration images: ",
    "training and calibration": "detector: ",
    "judging and report": "exporting model.onnx",
    "export": "written to ",
}


def timed(command: list[str], cache: Path) -> dict[str, float]:
    """Run a command of the package and return the seconds of its phases and in all.

    Raises:
      RuntimeError: If the command fails.
    """
    ends, total = log_times(command, cache, lines=PHASES)
    begins = [0.0, *ends.values()]
    seconds = {name: end - begin for (name, end), begin in zip(ends.items(), begins, strict=False)}
    return {name: round(value, 2) for name, value in {**seconds, "all": total}.items()}


def run(config: list[str], scratch: Path) -> dict[str, Any]:
    """Time a training with its evaluation, and then the evaluation alone."""
    workdir, cache = scratch / "run", scratch / "cache"
    train = ["recon_ad.train", *config, f"--workdir={workdir}"]
    return {
        "train": timed(train, cache),
        "evaluate_again": timed(["recon_ad.evaluate", f"--workdir={workdir}"], cache),
    }


def runs() -> dict[str, list[str]]:
    """Return the config of each run by the run's name."""
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
    """Time all runs and write the result."""
    rows: dict[str, Any] = {}
    for name, config in runs().items():
        with tempfile.TemporaryDirectory() as scratch:
            rows[name] = run(config, Path(scratch))
        print(name, rows[name], flush=True)
        record.write("phases", {"command": "python -m benchmarks.phases", "runs": rows})


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", "", "Folder with the data sets.")
    _WEIGHTS = flags.DEFINE_string("weights", "", "Folder with one folder per encoder.")
    cli.run(main)
