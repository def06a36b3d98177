"""A line that is killed and whose disk fills up, as processes: benchmarks/line.py, smaller."""

import numpy as np
import pytest
from PIL import Image
from test_export import make_detector, pictures

from benchmarks import line
from recon_ad import export


@pytest.mark.slow
def test_every_image_has_one_row_whatever_happens(tmp_path):
    model = tmp_path / "M.onnx"
    assert export.export(make_detector("cae"), model, pictures())["passed"]
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.fromarray(random.integers(0, 255, (40, 56), np.uint8)).save(
            tmp_path / "images" / f"{i}.png"
        )
    told = line.disturbed(
        model, sorted((tmp_path / "images").iterdir()), tmp_path / "line", count=480, kills=4
    )
    assert told["rows"] == 480 and told["broken"] == 24
    assert told["rows_when_it_was_full"] < 480 and "the disk is full" in told["said"]
