"""The C++ program and Python's commands, run on the same images, and their rows compared."""

import csv
import io
import resource
import subprocess
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from helpers.commands import run_command

CATEGORY = "größe=1;2,%/"
RESIZED = {"data.resize": (48, 80)}
SHORTER = {"data.resize": (40, 0)}  # the aspect ratio is kept
ONE_TILE = {"data.resize": (32, 32), "inference.border": 3}
CLEANED = {"inference.opening": 1, "inference.min_area": 8, "inference.border": 9}
UNIFORM = {"inference.tile_weights": "uniform", "inference.stride": 11}
RANGED = {"data.input_range": (0.0, 4095.0)}

# Channels, config fields and export options, by the name of the model.
MODELS = {
    "gray": (1, {}, {"dtype": "float32"}),
    "bytes": (1, UNIFORM, {"dtype": "uint8"}),
    "words": (1, RANGED, {"dtype": "uint16"}),
    "colour": (3, CLEANED, {"dtype": "float32", "layout": "nchw", "batch": 3}),
    "resized": (3, RESIZED, {"dtype": "float32"}),
    "shorter": (1, SHORTER, {"dtype": "float32"}),
    "one_tile": (1, ONE_TILE, {"dtype": "float32"}),
}


def called(*command, cwd=None, memory=resource.RLIM_INFINITY):
    """Run a command with so many bytes of address space."""
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
    )  # fmt: skip


def noise(height=50, width=70, channels=1, dtype=np.uint8, seed=0):
    """Return noise with spots, whose maps have regions of many sizes."""
    random = np.random.default_rng(seed)
    values = cv2.GaussianBlur(random.random((height, width, channels), np.float32), (0, 0), 1.5)
    values = values.reshape(height, width, channels) + random.random((height, width, channels)) / 20
    values = (values - values.min()) / max(np.ptp(values), 1e-6)
    return np.rint(values * np.iinfo(dtype).max).astype(dtype)


def ended(done, output: Path) -> SimpleNamespace:
    """Return the output of a finished command, and the rows that it wrote."""
    text = (output / "predictions.csv").read_text() if output.is_dir() else ""
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(text))}
    return SimpleNamespace(status=done.returncode, out=done.stdout, error=done.stderr, rows=rows)


def by_cpp(program, model, given, output, *more, **limits):
    flags = ("--model", model, "--input", given, f"--output={output}")
    return ended(called(program, *flags, *more, **limits), output)


def by_python(model, given, output, *more):
    flags = ["--onnx", model, "--runtime", "openvino", "--input", given, "--output", output]
    return ended(run_command("predict", *flags, *more), output)


def same_rows(ours, theirs):
    assert list(ours.rows) == list(theirs.rows)
    for path, expected in theirs.rows.items():
        row = ours.rows[path]
        assert bool(row["error"]) == bool(expected["error"]), row
        # The runtime is the same; only resizing may round in another order.
        near = {"score": {"rel": 1e-5}, "defect_probability": {"abs": 1e-6}}
        near["normalised_score"] = {"rel": 1e-5, "abs": 1e-5}
        for field in row.keys() - {"error"}:
            if field in near and row[field] and expected[field]:
                value = pytest.approx(float(expected[field]), **near[field])
                assert float(row[field]) == value, (path, field)
            else:
                assert row[field] == expected[field], (path, field)
