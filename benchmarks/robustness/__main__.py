"""Try damaged and hostile input, kill commands, and run commands on a full disk.

    python -m benchmarks.robustness [--parts images,detectors,…] [--scale 1.0]

The trials cover 20,000 damaged images, 2,000 detector directories and as many exported models,
1,500 archives, 200 checkpoints and 200 tables, each in a process that may crash. The C++ program's
code reads another 20,000 images and 2,000 sets of metadata under sanitizers. Ten commands are
killed 20 times each at random moments, and run five times each on a full disk. Crashes, hangs of
more than ten seconds, tracebacks and silently wrong results are counted. The result is written to
results/robustness.json.
"""

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.harness import record
from benchmarks.robustness.kills import SMALL, commands, killed, write_labels, write_line
from benchmarks.robustness.trials import run_trials
from recon_ad import cli
from recon_ad.data.synthetic import synthetic_source, write_folder
from recon_ad.errors import UserError

SEED = 0
# The corpus and the number of trials of each part.
CORPORA = {
    "images": ("benchmarks.robustness.images:images", 20_000),
    "detectors": ("benchmarks.robustness.detectors:folders", 2_000),
    "models": ("benchmarks.robustness.detectors:models", 2_000),
    "archives": ("benchmarks.robustness.tables:archives", 1_500),
    "checkpoints": ("benchmarks.robustness.detectors:checkpoints", 200),
    "tables": ("benchmarks.robustness.tables:tables", 200),
    "program": ("benchmarks.robustness.program:images", 20_000),
    "metadata": ("benchmarks.robustness.program:facts", 2_000),
}
PACKAGES = ("onnxruntime", "tifffile", "imagecodecs")  # libraries that read the damaged input
OTHERS = ("kills", "disk")
KILLS = 20  # kills of each command
SIDE = 128  # px, images of the killed runs


def main() -> int:
    """Run the requested parts and write their counts."""
    scale = _SCALE.value
    unknown = set(_PARTS.value) - {*CORPORA, *OTHERS}
    if unknown:
        raise UserError(
            f"--parts: unknown {', '.join(sorted(unknown))}; choose from: "
            f"{', '.join([*CORPORA, *OTHERS])}."
        )
    found: dict[str, Any] = _earlier(scale) | {"seed": SEED, "scale": scale}
    for part in _PARTS.value:
        if part == "kills":
            found[part] = _kills(max(1, round(scale * KILLS)))
        elif part == "disk":
            found[part] = _disk()
        else:
            corpus, count = CORPORA[part]
            found[part] = run_trials(corpus, max(1, round(scale * count)), seed=SEED)
        found[part] |= record.facts(*PACKAGES)
        print(part, found[part], flush=True)
        # Written after each part, so that a stopped run leaves some results.
        record.write(Path(_OUTPUT.value).stem, found, *PACKAGES)
    return 0


def _earlier(scale: float) -> dict[str, Any]:
    """Return the parts that an earlier run of the same size has tried, with date and hardware."""
    file = record.RESULTS / f"{Path(_OUTPUT.value).stem}.json"
    if not file.is_file():
        return {}
    earlier = json.loads(file.read_text())
    if (earlier["seed"], earlier["scale"]) != (SEED, scale):
        return {}
    return {part: earlier[part] for part in (*CORPORA, *OTHERS) if part in earlier}


@contextmanager
def _scene() -> Iterator[tuple[Path, Path, Path]]:
    """Yield an empty folder, a folder of images in the MVTec layout, and a finished run on them."""
    with tempfile.TemporaryDirectory() as scratch:
        images, run = Path(scratch) / "images", Path(scratch) / "run"
        write_folder(synthetic_source("chess", side=SIDE), images)
        config = ["--config", f"configs/folder.py:path={images},smoke", *SMALL]
        subprocess.run(
            [sys.executable, "-m", "recon_ad.train", *config, f"--workdir={run}"], check=True
        )
        write_line(run / "line")
        write_labels(images)
        yield Path(scratch), images, run


def _kills(count: int) -> dict[str, Any]:
    """Kill each command `count` times, and return the results by command."""
    rng = random.Random(SEED)
    found = {}
    with _scene() as (scratch, images, run):
        for command in commands(images):
            folder = scratch / command.name
            found[command.name] = killed(command, run, folder, kills=count, rng=rng)
            print(command.name, found[command.name], flush=True)
    return found


def _disk() -> dict[str, Any]:
    """Run each command on a full disk, and return the results by command."""
    with _scene() as (scratch, images, run):
        result = scratch / "result.json"
        # Mounting needs a namespace in which the user is root.
        words = ["unshare", "-rm", sys.executable, "-m", "benchmarks.robustness.disk"]
        subprocess.run([*words, images, run, result], check=True)
        return json.loads(result.read_text())


if __name__ == "__main__":
    _PARTS = flags.DEFINE_list("parts", [*CORPORA, *OTHERS], "Parts to run.")
    _SCALE = flags.DEFINE_float("scale", 1.0, "Factor for the numbers of trials and kills.")
    _OUTPUT = flags.DEFINE_string("output", "robustness", "Name of the file in results/.")
    cli.run(main)
