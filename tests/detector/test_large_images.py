"""Images of 5496×3672 px, as from a line-scan camera, in less than 1.5 GiB in all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.layouts import saved
from PIL import Image

SIZE = (5496, 3672)
DAMAGED = np.s_[1000:1040, 2000:2600]
LIMIT = 1.5 * 2**20  # kB
# Runs the command, then prints the peak memory of the process.
MEASURED = """
import runpy, sys
module, *sys.argv = sys.argv[1:]
sys.path.insert(0, ".")
try:
    runpy.run_module(f"recon_ad.{module}", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
lines = open("/proc/self/status").read().splitlines()
print("PEAK", next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/status").exists(), reason="no /proc to read peaks from"
    ),
]


def peak(module, *arguments) -> int:
    """Run a command as users do, and return the peak resident memory of its process in kB."""
    theirs = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, module, module, *map(str, arguments)],
        capture_output=True, text=True, check=False, env=theirs,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split("PEAK")[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write three good images and a damaged one, RGB, in the MVTec layout."""
    root, random = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    for name in ("train/good/0", "train/good/1", "test/good/2", "test/damaged/3"):
        texture = random.integers(90, 160, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
        image = np.tile(texture, (8, 8, 1))
        if "damaged" in name:
            image[DAMAGED] = 255
        saved(root / f"{name}.png", image, compress_level=1)
    truth = np.zeros(SIZE[::-1], np.uint8)
    truth[DAMAGED] = 255
    saved(root / "ground_truth/damaged/3_mask.png", truth, compress_level=1)
    return root


def test_no_command_needs_more(folder, tmp_path):
    run, output = tmp_path / "run", tmp_path / "out"
    fields = {
        "train.steps": 2, "train.batch_size": 16, "inference.stride": 128,
        "evaluation.panels": 1, "evaluation.bootstrap": 20,
    }  # fmt: skip
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    config = f"configs/folder.py:method=cae,path={folder}"
    used = peak("train", "--config", config, "--workdir", run, "--stop_after=train", *flags)
    assert used < LIMIT
    assert peak("evaluate", "--workdir", run) < LIMIT
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["pixel_auroc"] <= 1 and 0 <= metrics["patch_auroc"] <= 1
    assert (run / "report.html").stat().st_size < 20 * 2**20
    given = ("--input", folder / "test/damaged", "--output", output)
    assert peak("predict", "--detector", run / "detector", *given) < LIMIT
    (overlay,) = (output / "overlays").iterdir()
    with Image.open(overlay) as image:
        assert image.size[0] == SIZE[0] and image.size[1] > SIZE[1]  # with its caption
