"""Small runs for tests: a config shrunk to seconds, and what two runs have to agree on."""

import csv
import io
import json
from pathlib import Path

import numpy as np

from recon_ad.config import load_config

# What a clock decides, or where the run is kept: everything else in metrics.json is exact.
TIMINGS = ("train_seconds", "patches_per_second", "images_per_second", "waited_for_data")


def small_config(spec="configs/demo.py:smoke", **fields):
    """A config that trains in seconds, with fields replaced by their dotted names."""
    config = load_config(spec)
    config.update_from_flattened_dict(fields)
    return config


def without_timings(metrics):
    """metrics.json without what a clock decides."""
    if isinstance(metrics, dict):
        return {k: without_timings(v) for k, v in metrics.items() if k not in TIMINGS}
    return metrics


def losses(workdir: Path, name="train_loss"):
    """A logged loss by step."""
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return np.array([line[name] for line in lines if name in line])


def table(path: Path):
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text())))
