"""Run every speed benchmark and print the table of all results.

    python -m benchmarks.all [--data DATASETS] [NAME …]

The benchmarks run one after another, each in its own process. The expected time on two cores is
printed before each one; together they take about an hour and a half. One that fails, or takes three
times as long as expected, does not stop the others. It is named at the end, and the exit status is
then 1.

The benchmarks that need images (registration, line) run only with --data, a folder that contains
ball_screw and grid in the MVTec layout, as for `recon_ad.reproduce`. The line's model is trained
for a few steps only, because its quality does not matter. benchmarks.studies.agreement is not
included: it compares decisions, not speed, and needs a detector.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags

from benchmarks import summary
from benchmarks.harness import record
from recon_ad import cli
from recon_ad.data.locate import check_data, find_category
from recon_ad.errors import UserError

PATIENCE = 3  # multiple of the expected time after which a benchmark is stopped
FAILED = 1  # exit status when a benchmark failed


class Benchmark(NamedTuple):
    """A benchmark: one command, or several that build on each other.

    Attributes:
      minutes: Expected time.
      commands: Words after `python -m`. {NAME} stands for the folder of that data set, and
        {scratch} for a folder that is deleted afterwards.
    """

    minutes: float
    commands: Sequence[Sequence[str]]


BENCHMARKS: Mapping[str, Benchmark] = {
    "aupro": Benchmark(2, [["benchmarks.aupro"]]),
    "encoder": Benchmark(5, [["benchmarks.encoder"]]),
    "start": Benchmark(4, [["benchmarks.start"]]),
    "phases": Benchmark(5, [["benchmarks.phases"]]),
    "inference": Benchmark(20, [["benchmarks.inference"]]),
    "residuals": Benchmark(4, [["benchmarks.residuals"]]),
    "frameworks": Benchmark(9, [["benchmarks.frameworks"]]),
    "step_profile": Benchmark(3, [["benchmarks.step_profile"]]),
    "registration": Benchmark(5, [["benchmarks.studies.registration", "--data={ball_screw}"]]),
    "line": Benchmark(
        20,
        [
            [
                *("recon_ad.train", "--config=configs/folder.py:method=cae,path={grid}"),
                *("--workdir={scratch}/run", "--config.train.steps=20"),
                *("--config.train.eval_every=20", "--stop_after=train"),
            ],
            [
                *("recon_ad.export", "--detector={scratch}/run/detector"),
                "--output={scratch}/model.onnx",
            ],
            [
                "benchmarks.studies.line",
                "--onnx={scratch}/model.onnx",
                "--images={grid}/train/good",
            ],
        ],
    ),
}
SETS = ("ball_screw", "grid")


def needed(benchmark: Benchmark) -> list[str]:
    """Return the names of the data sets that a benchmark needs."""
    words = [word for command in benchmark.commands for word in command]
    return [name for name in SETS if any(f"{{{name}}}" in word for word in words)]


def run(benchmark: Benchmark, folders: Mapping[str, Path]) -> str:
    """Run a benchmark's commands and return why they failed, or "" if they did not."""
    until = time.monotonic() + 60 * PATIENCE * benchmark.minutes
    with tempfile.TemporaryDirectory() as scratch:
        for command in benchmark.commands:
            words = [word.format(scratch=scratch, **folders) for word in command]
            try:
                done = subprocess.run(
                    [sys.executable, "-m", *words], timeout=max(1, until - time.monotonic())
                )
            except subprocess.TimeoutExpired:
                return f"stopped after {PATIENCE * benchmark.minutes:.0f} minutes"
            if done.returncode:
                return f"{command[0]} ended with exit status {done.returncode}"
    return ""


def main(names: Sequence[str]) -> int:
    """Run the benchmarks, and print the table and the failures."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise UserError(f"no benchmark {unknown[0]!r}; choose from: {', '.join(BENCHMARKS)}.")
    data = check_data(Path(_DATA.value)) if _DATA.value else None
    folders = {name: find_category(data, [name]) for name in SETS}
    left_out, failed = {}, {}
    for name in names or BENCHMARKS:
        benchmark = BENCHMARKS[name]
        absent = [wanted for wanted in needed(benchmark) if folders[wanted] is None]
        if absent:
            left_out[name] = f"needs {', '.join(absent)} in --data"
            continue
        print(f"\n{name}: about {benchmark.minutes:.0f} minutes", flush=True)
        begin = time.monotonic()
        why = run(benchmark, folders)
        if why:
            failed[name] = why
        print(f"{name}: {(time.monotonic() - begin) / 60:.1f} minutes. {why}", flush=True)
    print("\n" + summary.table(record.RESULTS))
    for name, why in left_out.items():
        print(f"left out: {name} {why}")
    for name, why in failed.items():
        print(f"FAILED: {name}: {why}")
    return FAILED if failed else 0


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", None, "Folder with the data sets.")
    cli.run(main, words=True)
