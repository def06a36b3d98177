"""`python -m recon_ad.calibrate`: new thresholds for an otherwise unchanged detector."""

import functools
import shutil

import pytest
from helpers.commands import refusal, run_command

from recon_ad.data import Record, synthetic_source
from recon_ad.data.decode import decode_image
from recon_ad.data.holdout import hold_out_all
from recon_ad.detector.directory import load
from recon_ad.detector.thresholds import calibrate
from recon_ad.runtime.waiting import RUN_LOCK, exclusive_lock


@pytest.fixture
def detector(finished_run, tmp_path):
    """Return the folder of a detector that may be changed, in a run with metrics."""
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
    assert again.median == pytest.approx(sum(scores[1:3]) / 2, rel=1e-6) != before.median
    assert again.normalised(scores[3]) == pytest.approx(0.5)
    assert "trained on" not in done.stderr
    assert "evaluate and export the detector again" in done.stderr


def test_images_that_were_trained_on_are_named(detector, chess_folder, tmp_path):
    images = shutil.copytree(chess_folder / "test/good", tmp_path / "images")
    for i, file in enumerate(sorted((chess_folder / "train/good").iterdir())[:3]):
        shutil.copy(file, images / f"copy{i}.png")
    done = run_command("calibrate", "--detector", detector, "--normals", images)
    assert done.returncode == 0, done.stderr
    # The end of each of the four stretches was held out.
    assert (
        "3 of the 7 images do not count, as the detector was already trained on them (copy0.png"
        in done.stderr
    )
    assert f"out of date ({tmp_path / 'run/metrics.json'})" in done.stderr


def test_broken_images_are_named_and_do_not_count(detector, chess_folder, tmp_path):
    images = shutil.copytree(chess_folder / "test/good", tmp_path / "images")
    (images / "a.png").write_bytes(b"no image")
    content = (images / "000.png").read_bytes()
    (images / "b.png").write_bytes(content[: len(content) // 2])  # with a complete header
    done = run_command("calibrate", "--detector", detector, "--normals", images)
    assert done.returncode == 0, done.stderr
    assert "a.png: is not an image" in done.stderr and "b.png: cannot be" in done.stderr
    assert load(detector).record["calibration"]["images"] == 4


def test_a_detector_that_another_command_is_changing_is_left_alone(detector, chess_folder):
    before = (detector / "detector.json").read_bytes()
    with exclusive_lock(detector.parent / RUN_LOCK):
        said = refusal("calibrate", "--detector", detector, "--normals", chess_folder / "test/good")
    assert "another process works there" in said
    assert (detector / "detector.json").read_bytes() == before


def part(images, folder, names):
    """Copy some images of a folder to another one."""
    folder.mkdir()
    for name in names:
        shutil.copy(images / name, folder / name)
    return folder


def test_images_are_added_to_those_of_before_or_replace_them(detector, chess_folder, tmp_path):
    images = chess_folder / "test/good"
    names = sorted(file.name for file in images.iterdir())
    first, second = (part(images, tmp_path / w, n) for w, n in (("a", names[:2]), ("b", names[2:])))

    def calibrated(folder, *more):
        done = run_command("calibrate", "--detector", detector, "--normals", folder, *more)
        assert done.returncode == 0, done.stderr
        return load(detector).record["calibration"], done.stderr

    entry, said = calibrated(first, "--fpr", 0.3)
    assert entry["images"] == 2 and "regions of training images" in said
    entry, said = calibrated(second)
    assert entry["images"] == 4 and entry["fpr_wanted"] == 0.3  # as before
    assert "image threshold: " in said and f"set by {entry['decided_by'][0]}" in said
    together = load(detector).thresholds
    done = run_command("calibrate", "--detector", detector, "--normals", second)
    assert done.returncode == 2 and "calibrated with, all of these images" in done.stderr
    entry, _ = calibrated(images, "--replace")
    assert entry["images"] == 4 and load(detector).thresholds.image == together.image


def test_a_category_is_calibrated_by_its_name(detector, chess_folder, tmp_path):
    images = chess_folder / "test/good"
    names = sorted(file.name for file in images.iterdir())
    records = [
        Record(name, functools.partial(decode_image, images / name), category=category)
        for name, category in zip(names[:2], "ab", strict=True)
    ]
    before = calibrate(load(detector), hold_out_all(records, how="two"), fpr=0.3)
    before.save(detector)
    flags = ("--detector", detector, "--normals", part(images, tmp_path / "more", names[2:]))
    assert "choose one of a, b" in refusal("calibrate", *flags)
    done = run_command("calibrate", *flags, "--category=a")
    assert done.returncode == 0, done.stderr
    now = load(detector)
    assert (
        now.categories["b"] == before.categories["b"] and now.record["calibration"]["images"] == 4
    )
    assert now.record["calibration"]["shown"].count("a") == 3
    done = run_command("calibrate", *flags, "--category=a", "--replace")
    assert done.returncode == 0, done.stderr
    assert load(detector).record["calibration"]["shown"].count("a") == 2
