"""The bookkeeping of benchmarks/studies/few_images.py, and its detector of one image."""

import json

import numpy as np
import pytest
from helpers.small_runs import small_config

from benchmarks import report_rows
from benchmarks.studies import few_images
from recon_ad.data import memory_source


def test_a_stopped_run_goes_on_behind_its_last_choice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    asked = []

    def drawn(source, *, count, method, seed):
        asked.append((source, method, count, seed))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return {"auroc": seed / 10, "promised": None, "realised": None, "seconds": 1.0}

    for name, value in {"drawn": drawn, "METHODS": ("knn",), "IMAGES": (1, 4), "DRAWS": 3}.items():
        monkeypatch.setattr(few_images, name, value)
    sources = {"grid": "images of grid"}
    with pytest.raises(KeyboardInterrupt):
        few_images.measure(sources)
    for _ in range(2):  # the second time nothing is left
        few_images.measure(sources)
    expected = [("images of grid", "knn", count, seed) for count in (1, 4) for seed in range(3)]
    assert asked == [*expected[:4], *expected[3:]]
    found = json.loads((tmp_path / "results" / "few_images.json").read_text())
    head, *rows = report_rows.few_images(found)
    figures = ["0.100", "0.000 to 0.200", "–", "–", "1.0", "1.0"]
    assert rows == [["grid", "knn", count, "3", *figures] for count in ("1", "4")]
    assert len(head) == len(rows[0])


@pytest.mark.parametrize("method", ["knn", "subspace"])
def test_a_detector_of_one_image_knows_that_image(method, small_encoder, tmp_path):
    random = np.random.default_rng(0)
    known, other = (random.integers(0, 255, (60, 90, 1), np.uint8) for _ in range(2))
    config = small_config(
        f"configs/folder.py:method={method},smoke",
        **(small_encoder | {"train.steps": 0, "data.patch_size": 0, "data.resize": (0, 0)}),
    )
    detector = few_images.uncalibrated(config, tmp_path, memory_source([known]).train)
    scores = [float(detector.predict(image).score) for image in (known, other)]
    assert 0 <= scores[0] < scores[1]
