"""The C++ program, which must judge as `python -m recon_ad.predict --onnx` does."""

import json
import os
import subprocess
import time

import numpy as np
import pytest
from helpers.cpp import CATEGORY, MODELS, by_cpp, by_python, noise, same_rows
from helpers.cpp_models import tiny_model
from helpers.layouts import saved

from recon_ad.data.decode import decode_image
from recon_ad.runtime.files import plain_cell

pytestmark = pytest.mark.slow

BROKEN = ("truncated.png", "truncated.jpg", "text.png", "empty.png", "folder.png", "animated.png")


@pytest.mark.parametrize(
    ("name", "features"), [*((name, "") for name in MODELS), ("gray", "hu"), ("gray", "encoder")]
)
def test_it_judges_and_draws_as_python_does(name, features, program, exported, images, tmp_path):
    model = exported(name, features)
    ours = by_cpp(program, model, images, tmp_path / "ours")
    theirs = by_python(model, images, tmp_path / "theirs")
    assert ours.status == theirs.status == 3, ours.error + theirs.error
    same_rows(ours, theirs)
    judged = [row for row in ours.rows.values() if not row["error"]]
    assert all(bool(row["defect_probability"]) == bool(features) for row in judged)
    assert {row["anomalous"] for row in judged} == {"true", "false"}
    assert all(row["normalised_score"] for row in judged)
    # An accepted image has none, and with a classifier more images are accepted.
    assert max(int(row["regions"]) for row in judged) > (name == "gray" and not features)
    for row in judged:
        name = f"overlays/{row['path']}.png"
        drawn, expected = (decode_image(tmp_path / who / name) for who in ("ours", "theirs"))
        np.testing.assert_array_equal(drawn, expected, err_msg=name)
    for path in BROKEN:
        assert ours.rows[path]["error"].startswith(f"{images / path}: ")
    said, expected = (
        [line for line in run.out.replace(str(tmp_path / who), "OUT").splitlines() if "OUT" in line]
        for run, who in ((ours, "ours"), (theirs, "theirs"))
    )
    assert said == expected and len(said) == 2  # the counts, and the number of further broken files
    broken = len(ours.rows) - len(judged)
    assert f", {broken} not judged; " in said[0]
    lines = (tmp_path / "ours/predictions.jsonl").read_text().splitlines()
    for line, row in zip(map(json.loads, lines), ours.rows.values(), strict=True):
        assert line["path"] == row["path"] and line["error"] == (row["error"] or None)
        for field in ("score", "normalised_score"):
            assert line[field] == (float(row[field]) if row[field] else None)


# Sorted by code points. Python orders a byte that is not valid UTF-8 before U+E123.
NAMES = (
    "a b.png", 'q"u,ote.png', "Ä.png", "_x.PNG", "\U0001d518.png", "\ue123.png", "tab\t.png",
    "sub/b.png", "a.b/z.png", "=1+1.png", os.fsdecode(b"\xff.png"), os.fsdecode(b"\xe2\x82.png"),
)  # fmt: skip


def test_every_byte_of_the_tables_is_pythons_whatever_files_are_called(program, model, tmp_path):
    folder = tmp_path / "images"
    for i, name in enumerate(NAMES):
        saved(folder / name, noise(20 + i)[..., 0], format="PNG")
    (folder / ".hidden.png").touch()
    (folder / "notes.txt").touch()
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    theirs = by_python(model, folder, tmp_path / "theirs")
    assert ours.status == theirs.status == 0, ours.error
    assert "1 other files" in ours.out
    for table in ("predictions.csv", "predictions.jsonl"):
        written, expected = ((tmp_path / who / table).read_bytes() for who in ("ours", "theirs"))
        assert written == expected
    kept, expected = (
        sorted(p.relative_to(tmp_path / who) for p in (tmp_path / who).rglob("*"))
        for who in ("ours", "theirs")
    )
    assert kept == expected  # without half-written files


@pytest.mark.parametrize(
    "given, roi",
    [("", ""), ("test/good", "roi.png"), ("test/good", "roi/test/good"), ("z.png", "")],
)
def test_regions_of_interest_are_found_and_heeded(program, model, tmp_path, given, roi):
    data = tmp_path / "data"
    region = np.zeros((50, 70), np.uint8)
    region[10:40, 20:60] = 255
    for i, path in enumerate(("test/good/a", "test/good/b", "test/good/other", "z")):
        size = (20, 20) if "other" in path else (50, 70)
        saved(data / f"{path}.png", noise(*size, seed=i)[..., 0])
    saved(data / "roi.png", region)
    saved(data / "roi/test/good/a.png", region // 255)
    saved(data / "roi/test/good/b.jpg", 255 - region)
    saved(data / "ground_truth/bad/a_mask.png", region)
    more = ("--roi", data / roi) if roi else ()
    # Both write to one folder; files already there are not judged.
    theirs = by_python(model, data / given, data / "out", *more)
    ours = by_cpp(program, model, data / given, data / "out", *more)
    assert ours.status == theirs.status, ours.error
    assert ours.out == theirs.out
    same_rows(ours, theirs)


@pytest.mark.parametrize("category", ["a part", CATEGORY])
def test_the_thresholds_are_those_of_the_category(program, model, tmp_path, category):
    for i in range(3):
        saved(tmp_path / f"images/{i}.png", noise(seed=i)[..., 0])
    more = ("--category", category)
    theirs = by_python(model, tmp_path / "images", tmp_path / "theirs", *more)
    ours = by_cpp(program, model, tmp_path / "images", tmp_path / "ours", *more)
    same_rows(ours, theirs)
    general = by_cpp(program, model, tmp_path / "images", tmp_path / "general")
    share = 0.5 if category == "a part" else 1.5
    for name, row in ours.rows.items():
        threshold = float(general.rows[name]["threshold"])
        assert float(row["threshold"]) == pytest.approx(share * threshold)
        assert (row["anomalous"] == "true") is (float(row["score"]) > share * threshold)
        assert general.rows[name]["normalised_score"]
        assert bool(row["normalised_score"]) is (category == "a part")
    refused = by_cpp(program, model, tmp_path / "images", tmp_path / "no", "--category=another")
    assert refused.status == 2 and 'a category "another": choose one of' in refused.error


def test_cells_are_no_formulas_as_in_python(program, model, tmp_path):
    folder = tmp_path / "images"
    names = ["=1.png", "x;=1+1.png", "\uff1d1.png", "a|@b.png", "a-b.png", "x; -1.png", "\t=1.png"]
    for name in names:
        saved(folder / name, noise()[..., 0])
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    theirs = by_python(model, folder, tmp_path / "theirs")
    assert sorted(ours.rows) == sorted(theirs.rows) == sorted(map(plain_cell, names))


def test_a_killed_program_leaves_a_row_of_each_image_that_it_judged(program, tmp_path):
    first = saved(tmp_path / "images/0.png", noise(400, 400)[..., 0])
    for i in range(1, 500):
        os.link(first, tmp_path / f"images/{i}.png")
    model, table = tiny_model(tmp_path), tmp_path / "out/predictions.csv"
    flags = (f"--model={model}", f"--input={tmp_path / 'images'}", f"--output={tmp_path / 'out'}")
    with subprocess.Popen([program, *flags], stdout=subprocess.DEVNULL) as running:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if table.is_file() and table.read_text().count("\n") > 3:
                break
            time.sleep(0.01)
        running.kill()
    lines = table.read_text().splitlines()
    assert 3 < len(lines) < 501
    objects = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in objects][:3] == ["0.png", "1.png", "10.png"]


def test_one_good_image_ends_with_zero(program, model, images, tmp_path):
    ours = by_cpp(program, model, images / "gray.png", tmp_path / "ours")
    assert ours.status == 0 and list(ours.rows) == ["gray.png"]
    assert (tmp_path / "ours/overlays/gray.png.png").is_file()
