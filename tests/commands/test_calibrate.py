"""`python -m recon_ad.calibrate`: other thresholds for a detector that stays as it is."""

import shutil

import pytest
from helpers.commands import refusal, run_command

from recon_ad.data import synthetic_source
from recon_ad.detector.jax_detector import load
from recon_ad.runtime.waiting import RUN_LOCK, exclusive_lock


@pytest.fixture
def detector(finished_run, tmp_path):
    """The folder of a detector that may be changed, in a run with figures."""
    copy = shutil.copytree(finished_run() / "detector", tmp_path / "run/detector")
    (tmp_path / "run/metrics.json").write_text("{}")
    return copy


def test_other_thresholds_are_set_without_training(detector, chess_folder):
    normals = chess_folder / "test/good"
    before = load(detector)
    done = run_command("calibrate", "--detector", detector, "--normals", normals, "--fpr", 0.25)
    assert done.returncode == 0, done.stderr
    again = load(detector)
    good = [r for r in synthetic_source("chess", side=128).test if not r.anomalous]
    scores = sorted(float(before.predict(record.load()).score) for record in good)
    assert again.thresholds.image == pytest.approx(scores[3], rel=1e-6)  # ⌈5 · 0.75⌉ = 4th
    assert again.record["calibration"]["images"] == 4
    assert "trained on" not in done.stderr
    assert "evaluate and export it again" in done.stderr


def test_images_that_were_trained_on_are_named(detector, chess_folder, tmp_path):
    images = shutil.copytree(chess_folder / "test/good", tmp_path / "images")
    for i, file in enumerate(sorted((chess_folder / "train/good").iterdir())[:3]):
        shutil.copy(file, images / f"copy{i}.png")
    done = run_command("calibrate", "--detector", detector, "--normals", images)
    assert done.returncode == 0, done.stderr
    # Of the four, the end of each was held out.
    assert "3 of the 7 images are some that the detector was trained on (copy0.png" in done.stderr
    assert f"as it was ({tmp_path / 'run/metrics.json'})" in done.stderr


def test_a_detector_that_another_command_is_changing_is_left_alone(detector, chess_folder):
    before = (detector / "detector.json").read_bytes()
    with exclusive_lock(detector.parent / RUN_LOCK):
        said = refusal("calibrate", "--detector", detector, "--normals", chess_folder / "test/good")
    assert "another process works there" in said
    assert (detector / "detector.json").read_bytes() == before
