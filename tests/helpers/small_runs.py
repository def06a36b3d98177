"""Small runs for tests: configs that train in seconds, and the parts on which runs must agree."""

import csv
import io
import json
from pathlib import Path

import numpy as np

from recon_ad.config import load_config

# Values that depend on a clock. Everything else in metrics.json is exact.
TIMINGS = ("train_seconds", "patches_per_second", "images_per_second", "waited_for_data")


def small_config(spec="configs/demo.py:smoke", **fields):
    """Return a config that trains in seconds, with fields replaced by their dotted names."""
    config = load_config(spec)
    config.update_from_flattened_dict(fields)
    return config


def without_timings(metrics):
    """Remove from metrics.json what depends on a clock."""
    if isinstance(metrics, dict):
        return {k: without_timings(v) for k, v in metrics.items() if k not in TIMINGS}
    return metrics


def losses(workdir: Path, name="train_loss"):
    """Return a logged loss for each step."""
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return np.array([line[name] for line in lines if name in line])


def table(path: Path):
    """Return the rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text())))
