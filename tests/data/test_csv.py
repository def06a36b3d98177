"""Sewer-ML's CSV files become a source that stays small with a million rows."""

import gc
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers import layouts
from helpers.sources import assert_patches_are_cut_from, assert_picklable, channels_of
from PIL import Image

from recon_ad.data import csv_source as csv_module
from recon_ad.data.csv_source import SEWER_ML_DEFECTS, csv_source
from recon_ad.data.source import GOOD
from recon_ad.errors import UserError

TRAIN, TEST = "SewerML_Train.csv", "SewerML_Val.csv"
GOOD_NAMES = [f"{i:08d}.png" for i in (0, 1, 3)]


@pytest.fixture
def root(tmp_path) -> Path:
    return layouts.sewer_ml(tmp_path)


def listed(root: Path):
    return csv_source(root, images=root / "images")


def described(records):
    return [(r.name, r.defect) for r in records]


def rows_of(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def test_good_images_train_and_the_validation_set_tests(root):
    source = listed(root)
    assert described(source.train) == [(name, GOOD) for name in GOOD_NAMES]
    assert described(source.test) == [
        (f"{5 + i:08d}.png", defect) for i, defect in enumerate((GOOD, "RB", "RO+OK", "AF"))
    ]
    assert all(r.load_mask is None for r in source.train + source.test)
    for record in source.train + source.test:
        stored = np.asarray(Image.open(root / "images" / record.name))
        np.testing.assert_array_equal(record.load(), stored)
    assert_picklable(source)


def test_there_are_17_defects_and_the_water_level_is_none(tmp_path):
    assert len(SEWER_ML_DEFECTS) == 17 and "VA" not in SEWER_ML_DEFECTS
    layouts.sewer_ml(tmp_path, test=SEWER_ML_DEFECTS)
    assert [r.defect for r in listed(tmp_path).test] == list(SEWER_ML_DEFECTS)


def test_several_defects_are_named_in_the_order_of_the_columns(root):
    header, *rows = rows_of(root / TEST)
    order = [*header[:3], *reversed(header[3:20]), *header[20:]]
    rows = [[dict(zip(header, row, strict=True))[c] for c in order] for row in rows]
    layouts.table(root / TEST, [order, *rows])
    assert Counter(r.defect for r in listed(root).test) == Counter([GOOD, "RB", "OK+RO", "AF"])


@pytest.mark.parametrize("in_classes, in_defect, expected", [(0, 1, "Defect"), (1, 0, "RB")])
def test_an_image_is_good_only_if_all_columns_say_so(root, in_classes, in_defect, expected):
    for name in (TRAIN, TEST):
        changed(1, "RB", str(in_classes))(root / name)
        changed(1, "Defect", str(in_defect))(root / name)
    source = listed(root)
    assert [r.name for r in source.train] == GOOD_NAMES[1:]
    assert source.test[0].defect == expected


def test_the_column_defect_may_be_missing(root):
    for name in (TRAIN, TEST):
        layouts.table(root / name, [row[:-2] for row in rows_of(root / name)])
    assert len(listed(root).train) == 3


@pytest.mark.parametrize("below", ["train00", "Train", "train00/train00"])
def test_images_may_lie_in_the_folders_that_the_archives_unpack_to(root, below):
    (root / "images" / below).mkdir(parents=True)
    (root / "images" / "valid00").mkdir()
    for i in range(9):
        name = f"{i:08d}.png"
        (root / "images" / name).rename(root / "images" / (below if i < 5 else "valid00") / name)
    if "/" in below:
        with pytest.raises(UserError, match=r"the image 00000000\.png is listed but neither there"):
            listed(root)
    else:
        source = listed(root)
        assert {r.load().shape for r in source.train + source.test} == {(20, 30, 3)}


@pytest.mark.parametrize("channels, expected", [(None, 3), (3, 3), (1, 1)])
def test_all_images_are_read_with_the_same_channels(root, channels, expected):
    layouts.picture(root / "images" / "00000001.png")
    source = csv_source(str(root), images=str(root / "images"), channels=channels)
    assert channels_of(source) == {expected}


def test_records_are_sorted_whatever_the_order_of_the_rows(root):
    header, *rows = rows_of(root / TRAIN)
    layouts.table(root / TRAIN, [header, *reversed(rows)])
    assert [r.name for r in listed(root).train] == GOOD_NAMES


def test_other_ways_to_write_the_same_table_are_read(root):
    expected = described(listed(root).test)
    text = (root / TEST).read_bytes().decode()
    quoted = [",".join(f'"{v}"' for v in line.split(",")) for line in text.splitlines()]
    for rewritten in (
        "\ufeff" + text,
        text.replace("\r\n", "\n"),
        text.replace("\r\n", "\r\n\r\n"),
        "\r\n".join(quoted),
    ):
        assert rewritten != text
        (root / TEST).write_bytes(rewritten.encode())
        assert described(listed(root).test) == expected


def changed(row: int, column: str, value: str):
    def change(path: Path) -> None:
        rows = rows_of(path)
        rows[row][rows[0].index(column)] = value
        layouts.table(path, rows)

    return change


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda p: p.unlink(), "there is no such file: put SewerML_Val.csv there"),
        (lambda p: p.write_text(""), "has no column Filename"),
        (lambda p: layouts.table(p, rows_of(p)[:1]), "lists no images"),
        (lambda p: p.write_text(p.read_text().replace(",", ";")), "separated by commas"),
        (changed(0, "RO", "Roots"), "has no column RO"),
        (changed(0, "Filename", "File"), "has no column Filename"),
        (changed(2, "RO", "2"), r"row 3 \(00000006\.png\) has '2' in column RO: give 0 or 1"),
        (changed(2, "OK", ""), r"row 3 \(00000006\.png\) has '' in column OK"),
        (changed(2, "Defect", "yes"), "row 3 .* has 'yes' in column Defect"),
        (changed(3, "Filename", "00000006.png"), "row 4 lists 00000006.png a second time"),
        (changed(3, "Filename", "00000001.png"), "row 4 lists 00000001.png a second time"),
        (changed(3, "Filename", ""), "row 4 names no image"),
        (changed(3, "Filename", "gone.png"), "the image gone.png is listed but neither there"),
        (lambda p: layouts.table(p, [*rows_of(p), ["a.png", "0"]]), "row 6 has 2 values .* 22"),
        (lambda p: p.write_text(p.read_text(), encoding="utf-16"), "is not text in UTF-8"),
        (lambda p: p.write_bytes(p.read_bytes() + "é.png".encode("latin-1")), "not text in UTF-8"),
        (lambda p: p.write_text('"' + "x" * 200_000), "is no CSV file"),
    ],
)
def test_unusable_files_end_in_a_sentence_that_names_the_row(root, change, expected):
    change(root / TEST)
    with pytest.raises(UserError, match=expected) as caught:
        listed(root)
    assert str(caught.value).startswith(str(root))


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"path": "gone"}, "^gone: there is no such folder"),
        ({"images": "gone"}, "^gone: there is no such folder"),
        ({"channels": 0}, "channels is 0"),
    ],
)
def test_unusable_arguments_end_in_a_sentence_that_helps(root, arguments, expected):
    with pytest.raises(UserError, match=expected):
        csv_source(**({"path": root, "images": root / "images"} | arguments))


def test_patches_are_cut_from_the_good_images(tmp_path):
    assert_patches_are_cut_from(listed(layouts.sewer_ml(tmp_path, size=(64, 64))).train)


def test_a_long_list_is_read_in_little_time_and_memory(root, monkeypatch):
    """A fiftieth of Sewer-ML; in full it took 6 s and 0.4 GB."""
    numbers = range(100, 20_100)
    rows = [layouts.sewer_row("", label)[1:] for label in ("", *SEWER_ML_DEFECTS)]
    labelled = ([f"{i:08d}.png", *rows[i % 2 * (i % 18)]] for i in numbers)
    layouts.table(root / TRAIN, [layouts.SEWER_ML, *labelled])
    asked = []
    monkeypatch.setattr(csv_module._Folders, "find", lambda self, name: asked.append(name))
    start = time.process_time()
    tracemalloc.start()
    source = listed(root)
    gc.collect()  # what is left of rows that are not kept
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - start < 5  # 0.3 s, with memory traced
    kept = len(source.train)
    assert kept == len(numbers) // 2 + sum(i % 2 and i % 18 == 0 for i in numbers)
    assert size / kept < 280  # bytes for each record, its name and its loader: 232
    assert len(asked) < 300
