"""Runs the tests of `eight/` in a process of their own, which has eight simulated devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT

EIGHT = Path(__file__).parent / "eight"


def run_tests(marker: str) -> None:
    # A worker's folders are not those of the process that it starts.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    environment["RECON_AD_TEST_DEVICES"] = "8"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", marker, EIGHT],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stderr


def test_on_eight_devices():
    run_tests("not slow")


@pytest.mark.slow
def test_slow_ones_on_eight_devices():
    run_tests("slow")
