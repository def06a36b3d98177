"""Damaged and odd files: each is scored or reported with its problem, wherever images enter."""

import json

import numpy as np
import pytest
from helpers.commands import run_command
from helpers.odd_files import BROKEN, GRAY, SCORED, write_odd_files
from helpers.small_runs import small_config, table
from PIL import Image

from recon_ad.data import folder_source
from recon_ad.data.build import build_source
from recon_ad.data.decode import decode_image
from recon_ad.detector.directory import load
from recon_ad.errors import UserError
from recon_ad.training import run as trainer


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    write_odd_files(folder := tmp_path_factory.mktemp("odd"))
    return folder


@pytest.fixture(scope="module")
def predicted(odd, finished_run, tmp_path_factory):
    """Run the command on all files; return its rows by path, its result and its output folder."""
    output = tmp_path_factory.mktemp("predicted")
    given = ("--detector", finished_run() / "detector", "--input", odd, "--output", output)
    done = run_command("predict", *given)
    return {row["path"]: row for row in table(output / "predictions.csv")}, done, output


def test_every_file_has_a_row_and_the_status_tells_of_the_broken_ones(predicted, odd):
    rows, done, output = predicted
    assert len(BROKEN) + len(SCORED) > 30
    assert set(rows) == {*BROKEN, *SCORED}
    assert done.returncode == 3
    assert f"{len(rows)} images: " in done.stdout
    assert f" anomalous, {len(BROKEN)} not judged; see " in done.stdout
    told = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    first = [str(odd / name) for name in rows if name in BROKEN][:5]
    assert [line.split(": ")[0].strip() for line in told[:-1]] == first  # each path once
    assert f"and {len(BROKEN) - 5} more broken" in told[-1]
    assert "1 other files" in done.stdout
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    lines = (output / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["path"] for line in lines} == set(rows)


def test_a_broken_file_is_a_row_with_its_sentence(predicted, odd):
    for name, sentence in BROKEN.items():
        row = predicted[0][name]
        assert row["error"].startswith(str(odd / name)) and sentence in row["error"], name
        assert "\n" not in row["error"]
        assert row["score"] == row["anomalous"] == row["regions"] == ""


def test_an_odd_file_is_scored(predicted):
    rows, _, output = predicted
    for name in SCORED:
        assert rows[name]["error"] == "" and np.isfinite(float(rows[name]["score"])), rows[name]
        assert (output / "overlays" / f"{name}.png").is_file(), name


def test_the_same_picture_scores_the_same_in_every_form(predicted, odd, finished_run):
    rows = predicted[0]
    same = ("sixteen_bit.png", "sixteen_bit.tif", "UPPER.PNG", "link.png", "float.tif", "float.npy")
    gray = float(rows["gray.png"]["score"])
    for name in same:
        assert float(rows[name]["score"]) == pytest.approx(gray, rel=1e-5)
    assert float(rows["rgb.png"]["score"]) != gray
    expected = load(finished_run() / "detector")(decode_image(odd / "gray.png"))
    assert gray == float(expected.score)
    assert rows["gray.png"]["anomalous"] == ("true" if expected.label else "false")
    overlay = decode_image(predicted[2] / "overlays/sub/folder/deep.jpeg.png")
    # The overlay includes its caption, which may be wider.
    assert overlay.shape[0] > 96 and overlay.shape[1] >= 128 and overlay.shape[2] == 3


def test_as_training_data_broken_files_stop_or_are_skipped_each_with_its_sentence(odd, tmp_path):
    first = min(BROKEN)
    with pytest.raises(UserError) as caught:
        folder_source(odd, channels=1)
    assert str(caught.value).startswith(str(odd / first)) and BROKEN[first] in str(caught.value)
    source = folder_source(odd, channels=1, on_error="skip")
    assert {r.name for r in source.train} == set(SCORED)
    told = [note for note in source.notes if note.startswith("Training image left out")]
    more = [note for note in source.notes if "more training images left out" in note]
    assert len(told) == 20
    assert more == [f"{len(BROKEN) - 20} more training images left out as broken."]
    config = small_config("configs/folder.py:smoke", **{"train.steps": 2})
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
