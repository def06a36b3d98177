"""Tries damaged and hostile input, kills commands, and fills the disk under them.

    python -m benchmarks.robustness [--parts images,detectors,…] [--scale 1.0]

Tries 20,000 damaged images, 2,000 detector directories and as many exported models, 1,500
archives, 200 checkpoints and 200 tables, each in a process that may crash, and 20,000 images and
2,000 sets of metadata by the C++ program's code under sanitizers. Kills ten commands 20 times each
at random moments, and fills the disk under them five times each. Counts crashes, hangs of more than
ten seconds, tracebacks and silent wrong results. Writes results/robustness.json.
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
# Name of a part: its corpus and how many trials.
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
PACKAGES = ("onnxruntime", "tifffile", "imagecodecs")  # that read what is damaged
OTHERS = ("kills", "disk")
KILLS = 20  # of each command
SIDE = 128  # px, of the images of a run that is killed


def main() -> int:
    """Runs the parts that are asked for; the exit status is 1 where there is a fault."""
    scale = _SCALE.value
    unknown = set(_PARTS.value) - {*CORPORA, *OTHERS}
    if unknown:
        raise UserError(f"--parts: there is no {', '.join(sorted(unknown))}.")
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
        # With each part, so that a run that is stopped has some.
        record.write(Path(_OUTPUT.value).stem, found, *PACKAGES)
    return 0


def _earlier(scale: float) -> dict[str, Any]:
    """The parts that an earlier run of the same size tried; each says when and where."""
    file = record.RESULTS / f"{Path(_OUTPUT.value).stem}.json"
    if not file.is_file():
        return {}
    earlier = json.loads(file.read_text())
    if (earlier["seed"], earlier["scale"]) != (SEED, scale):
        return {}
    return {part: earlier[part] for part in (*CORPORA, *OTHERS) if part in earlier}


@contextmanager
def _scene() -> Iterator[tuple[Path, Path, Path]]:
    """An empty folder, images in the MVTec layout, and a finished run on them."""
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
    """Kills each command that often; by its name."""
    rng = random.Random(SEED)
    found = {}
    with _scene() as (scratch, images, run):
        for command in commands(images):
            folder = scratch / command.name
            found[command.name] = killed(command, run, folder, kills=count, rng=rng)
            print(command.name, found[command.name], flush=True)
    return found


def _disk() -> dict[str, Any]:
    """Fills the disk under each command; by its name."""
    with _scene() as (scratch, images, run):
        result = scratch / "result.json"
        # Mounting takes a namespace in which one is root.
        words = ["unshare", "-rm", sys.executable, "-m", "benchmarks.robustness.disk"]
        subprocess.run([*words, images, run, result], check=True)
        return json.loads(result.read_text())


if __name__ == "__main__":
    _PARTS = flags.DEFINE_list("parts", [*CORPORA, *OTHERS], "What is tried.")
    _SCALE = flags.DEFINE_float("scale", 1.0, "Of the numbers of trials and kills.")
    _OUTPUT = flags.DEFINE_string("output", "robustness", "Name of the file in results/.")
    cli.run(main)
