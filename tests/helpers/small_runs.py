"""Small runs for tests: a config shrunk to seconds, and what two runs have to agree on."""

import csv
import io
import json
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy

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


def outcome(workdir: Path):
    """The parameters' bytes and the metrics of a finished run."""
    tensors = safetensors.numpy.load_file(workdir / "detector" / "variables.safetensors")
    metrics = without_timings(json.loads((workdir / "metrics.json").read_text()))
    return {name: value.tobytes() for name, value in tensors.items()}, metrics


def losses(workdir: Path, name="train_loss"):
    """A logged loss by step."""
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    return np.array([line[name] for line in lines if name in line])


def only_devices(monkeypatch, count: int):
    """Lets a run see the first `count` of the simulated devices."""
    devices = jax.devices()[:count]
    monkeypatch.setattr(jax, "device_count", lambda: count)
    make_mesh = jax.make_mesh
    monkeypatch.setattr(jax, "make_mesh", lambda *a, **k: make_mesh(*a, devices=devices, **k))


def table(path: Path):
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text())))
