"""The tests of `eight/`, run in a separate process with eight simulated devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT

EIGHT = Path(__file__).parent / "eight"


@pytest.mark.parametrize("marker", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_on_eight_devices(marker):
    # A worker's folders are not those of the process that it starts.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", marker, EIGHT],
        env=environment | {"RECON_AD_TEST_DEVICES": "8"},
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stderr
