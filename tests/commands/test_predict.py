"""`python -m recon_ad.predict`: tables and overlays of files, and the mistakes that it rejects."""

import errno
import gc
import json
import os
import shutil
import weakref

import jax
import numpy as np
import pytest
from helpers.commands import refusal, run_command
from helpers.detectors import plain_detector
from helpers.small_runs import table
from PIL import Image

from recon_ad.data.truth import Regions
from recon_ad.detector import image_files, predictions
from recon_ad.detector.directory import load
from recon_ad.detector.inference import UNCALIBRATED
from recon_ad.predict import summary
from recon_ad.runtime import files
from recon_ad.runtime.waiting import exclusive_lock


@pytest.fixture(scope="module")
def detector(finished_run):
    return finished_run() / "detector"


@pytest.fixture
def predicted(detector, tmp_path):
    """Run the command on images; check its exit status and return its output."""

    def command(images, *, status=0, output=tmp_path / "out"):
        given = ("--detector", detector, "--input", images, "--output", output)
        done = run_command("predict", *given)
        assert done.returncode == status, done.stderr
        return done.stdout

    return command


def test_one_file_is_judged_and_the_commands_own_output_is_not(predicted, chess_folder, tmp_path):
    predicted(chess_folder / "test/good/001.png")
    assert (tmp_path / "out/overlays/001.png.png").is_file()
    images = shutil.copytree(chess_folder / "test/elastic", tmp_path / "images")
    for _ in range(2):
        assert predicted(images, output=images / "out").startswith("4 images: ")


def test_a_row_has_the_raw_score_and_one_for_people(predicted, detector, chess_folder, tmp_path):
    predicted(chess_folder / "test")
    lines = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    rows, opened = list(map(json.loads, lines)), load(detector)
    assert {row["anomalous"] for row in rows} == {False, True}
    for row, cells in zip(rows, table(tmp_path / "out/predictions.csv"), strict=True):
        normalised = float(opened.normalised(row["score"]))
        assert row["normalised_score"] == float(cells["normalised_score"]) == normalised
        assert (normalised > 0.5) is row["anomalous"]
    # A detector without kept scores has none.
    opened.with_thresholds(opened.thresholds, {}).save(tmp_path / "older")
    given = ("--input", chess_folder / "test/good/001.png", "--output", tmp_path / "none")
    assert run_command("predict", "--detector", tmp_path / "older", *given).returncode == 0
    (row,) = table(tmp_path / "none/predictions.csv")
    assert row["normalised_score"] == "" and row["score"]
    assert json.loads((tmp_path / "none/predictions.jsonl").read_text())["normalised_score"] is None


def test_names_that_are_no_utf8_or_that_no_terminal_can_show_are_escaped(
    predicted, chess_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    images = tmp_path / "images"
    images.mkdir()
    name = os.fsdecode(b"bad\xff.png")
    shutil.copy(chess_folder / "test/elastic/000.png", images / name)
    (images / "größe.png").write_bytes(b"no image")
    told = predicted(images, status=3)
    assert "1 not judged" in told and "gr\\xf6\\xdfe.png: " in told
    lines = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == [name, "größe.png"]
    assert "bad\\udcff.png" in (tmp_path / "out/predictions.csv").read_text()


RUN = ["--detector", "{run}/detector"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([*RUN, "--input", "{tmp}/missing"], "no file or folder {tmp}/missing"),
        ([*RUN, "--input", "{tmp}"], "{tmp} holds no images"),
        ([*RUN, "--input", "{run}", "--runtime", "openvino"], "--runtime is for --onnx"),
        ([*RUN, "--input", "{good}", "--roi", "{tmp}"], "for none of the images"),
        ([*RUN, "--input", "{good}", "--submission", "{tmp}/S"], "has no folder test_private"),
        (["--detector", "{run}/model.onnx", "--input", "{run}"], "is not a detector directory"),
        (["--onnx", "model.txt", "--input", "{run}"], "model.txt is not an exported model"),
        (["--onnx", ".", "--input", "{run}"], ". is not an exported model"),
        (["--input", "{run}"], "give either --detector"),
    ],
)
def test_mistakes_end_in_one_sentence(finished_run, chess_folder, tmp_path, given, says):
    places = {"run": finished_run(), "tmp": tmp_path, "good": chess_folder / "test/good"}
    given = [text.format(**places) for text in given]
    assert says.format(**places) in refusal("predict", *given, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_judged_leave_no_image_in_memory(tmp_path, monkeypatch):
    for name, side in (("a.png", 8), ("roi.png", 5)):
        Image.fromarray(np.zeros((side, side), np.uint8)).save(tmp_path / name)
    seen = []

    def decoded(*_):
        image = np.zeros((8, 8, 1), np.uint8)
        seen.append(weakref.ref(image))
        return image

    monkeypatch.setattr(image_files, "decoded", decoded)
    judged = image_files.judge_and_draw(
        plain_detector(), "a.png", tmp_path / "a.png",
        regions=Regions(tmp_path), overlays=tmp_path / "overlays",
    )  # fmt: skip
    gc.collect()
    assert "has 5 × 5 pixels" in judged.row["error"] and seen[0]() is None
    said = summary([judged], tmp_path).splitlines()
    assert said[1] == f"  {judged.row['error']}"  # the error itself names the file


@pytest.fixture
def images(tmp_path):
    """Write three images, one with a name like a spreadsheet formula and one with a long name."""
    folder = tmp_path / "in"
    folder.mkdir()
    for shade, name in enumerate(("=1+1.png", "b.png", f"{'c' * 240}.png")):
        Image.new("L", (40, 40), 80 * shade).save(folder / name)
    return folder


def interrupted_at(count):
    """Return a `judge_file` that is interrupted at that call, and the names passed to it."""
    judge, names = image_files.judge_file, []

    def interrupted(opened, name, file, **options):
        names.append(name)
        if len(names) == count:
            raise KeyboardInterrupt
        return judge(opened, name, file, **options)

    return interrupted, names


def test_an_interrupted_prediction_goes_on_and_ends_the_same(
    detector, images, tmp_path, monkeypatch
):
    given = ["predict", "--detector", detector, "--input", images, "--output"]
    assert run_command(*given, tmp_path / "whole").returncode == 0
    judge = image_files.judge_file
    interrupted, judged = interrupted_at(3)
    monkeypatch.setattr(image_files, "judge_file", interrupted)
    out = tmp_path / "out"
    done = run_command(*given, out)
    assert (done.returncode, done.stderr) == (130, "interrupted.\n")
    names = [row["path"] for row in table(out / "predictions.csv")]
    assert names == ["'=1+1.png", "b.png"]  # a spreadsheet takes the first one for text
    with (out / ".predictions.journal").open("a") as journal:
        journal.write('{"half')  # as after a full disk
    # The file is replaced by another one, and then again with the same size and time.
    at = (images / "b.png").stat().st_mtime_ns
    Image.new("L", (40, 40), 200).save(images / "b.png")
    Image.new("L", (40, 40), 80).save(images / "b.png")
    os.utime(images / "b.png", ns=(at, at))
    assert run_command(*given, out).returncode == 0
    assert judged == ["=1+1.png", "b.png", f"{'c' * 240}.png", "b.png", f"{'c' * 240}.png"]
    for name in ("predictions.csv", "predictions.jsonl"):
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert len(list((out / "overlays").iterdir())) == 3
    assert not (out / ".predictions.journal").exists()
    # Rows of another detector are not reused.
    assert run_command(*given, images / "a").returncode == 0
    assert run_command(*given, images / "b").returncode == 0
    assert len(table(images / "b/predictions.csv")) == 3  # no overlay of "a" among them
    # A damaged journal is ignored.
    monkeypatch.setattr(image_files, "judge_file", judge)
    (out / ".predictions.journal").write_bytes(b"\xff\xfe\0bad\n")
    assert run_command(*given, out).returncode == 0
    assert (out / "predictions.csv").read_text() == (tmp_path / "whole/predictions.csv").read_text()


@pytest.mark.parametrize("form", ["npy", "png"])
def test_maps_lie_beside_the_overlays_and_are_the_detectors(form, detector, images, monkeypatch):
    (images / "broken.png").write_bytes(b"no image")
    out = images / "out"  # inside the judged folder, but never judged itself
    given = ["predict", "--detector", detector, "--input", images, "--output", out, "--maps", form]
    interrupted, names = interrupted_at(3)
    monkeypatch.setattr(image_files, "judge_file", interrupted)
    assert run_command(*given).returncode == 130
    first = out / f"overlays/=1+1.png.map.{form}"
    written = first.stat().st_ino
    assert run_command(*given).returncode == 3  # the broken file interrupted the first run
    assert len(names) == 5 and first.stat().st_ino == written
    assert len(table(out / "predictions.csv")) == 4
    found, opened = sorted((out / "overlays").glob(f"*.map.{form}")), load(detector)
    assert len(found) == 3 and len(list((out / "overlays").iterdir())) == 6
    judged = sorted(file for file in images.glob("*.png") if file.name != "broken.png")
    for image, path in zip(judged, found, strict=True):
        expected = opened.predict(image_files.decoded(opened, image)).anomaly_map
        if form == "npy":
            values = np.load(path)
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, expected)
            continue
        with Image.open(path) as png:
            assert png.mode.startswith("I;16")
            black, white = float(png.text["black"]), float(png.text["white"])
            values = black + np.asarray(png).astype(float) * (white - black) / 65535
        assert (black, white) == (expected.min(), expected.max())
        np.testing.assert_allclose(values, expected, atol=0.5001 * (white - black) / 65535)


def test_what_was_judged_without_maps_is_judged_again_with_them(
    detector, images, tmp_path, monkeypatch
):
    given = ["predict", "--detector", detector, "--input", images, "--output", tmp_path / "out"]
    interrupted, names = interrupted_at(3)
    monkeypatch.setattr(image_files, "judge_file", interrupted)
    assert run_command(*given).returncode == 130
    assert run_command(*given, "--maps=npy").returncode == 0
    assert len(names) == 6 and len(list((tmp_path / "out/overlays").glob("*.map.npy"))) == 3


def test_two_do_not_write_the_same_tables(detector, images, tmp_path):
    given = ["predict", "--detector", detector, "--input", images, "--output", tmp_path / "out"]
    with exclusive_lock(tmp_path / "out" / predictions.LOCK):
        assert "another process works there" in refusal(*given)
    assert run_command(*given).returncode == 0
    assert not (tmp_path / "out" / predictions.LOCK).exists()


def test_a_detector_that_was_never_calibrated_decides_nothing(images, tmp_path):
    plain_detector().with_thresholds(UNCALIBRATED, {}).save(tmp_path / "detector")
    for command, folder in (("predict", "--input"), ("inspect", "--watch")):
        given = ("--detector", tmp_path / "detector", folder, images, "--output", tmp_path / "out")
        assert "has no thresholds" in refusal(command, *given)


def test_a_full_disk_is_a_sentence_and_leaves_what_was_judged(
    detector, images, tmp_path, monkeypatch
):
    overlays, write = [], files.write_bytes

    def full(path, content):
        if path.parent.name == "overlays":
            overlays.append(path)
            if len(overlays) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(image_files.files, "write_bytes", full)
    out = tmp_path / "out"
    assert "the disk is full" in refusal(
        "predict", "--detector", detector, "--input", images, "--output", out
    )
    assert len(table(out / "predictions.csv")) == 2


def test_a_score_that_is_no_number_is_a_broken_row(images):
    opened = plain_detector().with_record({})  # a copy, because all tests share it
    opened.variables = jax.tree.map(lambda x: x * np.nan, opened.variables)
    result = image_files.judge_file(opened, "b.png", images / "b.png", regions=Regions(images))
    assert result.outcome == image_files.BROKEN and "the score is" in result.row["error"]
