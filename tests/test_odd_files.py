"""Damaged and odd files: each is scored, or named with what is wrong, wherever images come in."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from odd_files import BROKEN, GRAY, SCORED, write_odd_files
from PIL import Image
from small_runs import small_config

from recon_ad import train as trainer
from recon_ad.data import folder_source, memory_source
from recon_ad.data.build import build_source
from recon_ad.errors import UserError


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    write_odd_files(folder)
    return folder


@pytest.fixture(scope="module")
def predicted(odd, tmp_path_factory):
    """The command's rows by path, its status and its words."""
    workdir = tmp_path_factory.mktemp("run")
    config = small_config(**{"data.source": "memory"})
    trainer.train(config, workdir, source=memory_source([GRAY] * 12))
    output = workdir / "out"
    arguments = ["--detector", workdir / "detector", "--input", odd, "--output", output]
    done = subprocess.run(
        [sys.executable, "-m", "recon_ad.predict", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO((output / "predictions.csv").read_text())))
    return {row["path"]: row for row in rows}, done, output


def test_every_file_has_a_row_and_the_status_tells_of_the_broken_ones(predicted, odd):
    rows, done, output = predicted
    assert len(BROKEN) + len(SCORED) > 30
    assert set(rows) == {*BROKEN, *SCORED}
    assert done.returncode == 3
    assert f"{len(rows)} images: " in done.stdout
    assert f" anomalous, {len(BROKEN)} not judged; see " in done.stdout
    told = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    # Each begins with its path, once.
    first = [name for name in rows if name in BROKEN][:5]
    assert [line.split(": ")[0].strip() for line in told[:-1]] == [
        str(odd / name) for name in first
    ]
    assert f"and {len(BROKEN) - 5} more broken" in told[-1]
    assert "1 other files" in done.stdout
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    lines = (output / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["path"] for line in lines} == set(rows)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_a_row_with_its_sentence(predicted, odd, name):
    row = predicted[0][name]
    assert row["error"].startswith(str(odd / name)) and BROKEN[name] in row["error"]
    assert "\n" not in row["error"]
    assert row["score"] == row["anomalous"] == row["regions"] == ""


@pytest.mark.parametrize("name", SCORED)
def test_an_odd_file_is_scored(predicted, name):
    rows, _, output = predicted
    row = rows[name]
    assert row["error"] == "" and np.isfinite(float(row["score"])), row["error"]
    assert (output / "overlays" / f"{name}.png").is_file()


def test_the_same_picture_scores_the_same_in_every_form(predicted):
    rows = predicted[0]
    same = ("sixteen_bit.png", "sixteen_bit.tif", "UPPER.PNG", "link.png", "float.tif", "float.npy")
    for name in same:
        assert float(rows[name]["score"]) == pytest.approx(
            float(rows["gray.png"]["score"]), rel=1e-5
        )
    assert float(rows["rgb.png"]["score"]) != float(rows["gray.png"]["score"])


def test_as_training_data_the_first_broken_file_stops_with_its_sentence(odd):
    first = min(name for name in BROKEN)
    with pytest.raises(UserError) as caught:
        folder_source(odd, channels=1)
    assert str(caught.value).startswith(str(odd / first)) and BROKEN[first] in str(caught.value)


def test_as_training_data_broken_files_are_skipped_each_with_its_sentence(odd, tmp_path):
    source = folder_source(odd, channels=1, on_error="skip")
    assert {r.name for r in source.train} == set(SCORED)
    told = [note for note in source.notes if note.startswith("Training image left out")]
    more = [note for note in source.notes if "more training images left out" in note]
    assert len(told) == 20 and more == [
        f"{len(BROKEN) - 20} more training images left out as broken."
    ]
    config = small_config()
    detector = trainer.train(config, tmp_path / "run", source=source)
    assert np.isfinite(detector.thresholds.image)


def test_as_test_data_broken_files_are_left_out_with_a_note_or_stop(odd, tmp_path):
    good = tmp_path / "train/good"
    good.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(GRAY).save(good / f"{i}.png")
    (tmp_path / "test").mkdir()
    (tmp_path / "test/good").symlink_to(odd)
    config = small_config(**{"data.source": "folder", "data.path": str(tmp_path)})
    with pytest.raises(UserError):
        build_source(config)
    config.data.on_error = "skip"
    source = build_source(config)
    assert len(source.test) == len(SCORED)
    assert sum(note.startswith("Left out of the test") for note in source.notes) == len(BROKEN)
