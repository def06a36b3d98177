"""Sewer-ML's CSV files as a source that stays small with a million rows."""

import gc
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from helpers import layouts
from helpers.sources import assert_picklable, channels_of
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


def listed(root: Path, **options):
    return csv_source(root, images=root / "images", **options)


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
    for record in source.train + source.test:
        assert record.load_mask is None
        stored = np.asarray(Image.open(root / "images" / record.name))
        np.testing.assert_array_equal(record.load(), stored)
    assert_picklable(source)


def test_there_are_17_defects_and_the_water_level_is_none(root):
    assert len(SEWER_ML_DEFECTS) == 17 and "VA" not in SEWER_ML_DEFECTS
    layouts.sewer_ml(root, test=SEWER_ML_DEFECTS)
    assert [r.defect for r in listed(root).test] == list(SEWER_ML_DEFECTS)


@pytest.mark.parametrize(
    "in_classes, in_defect, expected", [("0", "1", "Defect"), ("1", "0", "RB")]
)
def test_an_image_is_good_only_if_all_columns_say_so(root, in_classes, in_defect, expected):
    for name in (TRAIN, TEST):
        changed(1, "RB", in_classes)(root / name)
        changed(1, "Defect", in_defect)(root / name)
    source = listed(root)
    assert [r.name for r in source.train] == GOOD_NAMES[1:] and source.test[0].defect == expected


def test_images_may_lie_in_the_folders_that_the_archives_unpack_to_and_no_deeper(root):
    images = root / "images"
    for i in range(9):
        folder = images / ("Train" if i < 5 else "valid00")
        folder.mkdir(exist_ok=True)
        (images / f"{i:08d}.png").rename(folder / f"{i:08d}.png")
    source = listed(root)
    assert {r.load().shape for r in source.train + source.test} == {(20, 30, 3)}
    (images / "deeper").mkdir()
    (images / "Train").rename(images / "deeper/Train")
    with pytest.raises(UserError, match=r"the image 00000000\.png is listed but neither there"):
        listed(root)


def test_all_images_are_read_with_the_same_channels(root):
    layouts.picture(root / "images" / "00000001.png")
    assert channels_of(listed(root)) == {3} and channels_of(listed(root, channels=1)) == {1}


def test_other_ways_to_write_the_same_table_are_read(root):
    expected = described(listed(root).test)
    text, (header, *rows) = (root / TEST).read_bytes().decode(), rows_of(root / TEST)
    quoted = [",".join(f'"{v}"' for v in line.split(",")) for line in text.splitlines()]
    for rewritten in (
        "\ufeff" + text,
        text.replace("\r\n", "\n"),
        text.replace("\r\n", "\r\n\r\n"),
        "\r\n".join(quoted),
        "\n".join(",".join(row) for row in (header, *rows[::-1])),
        "\n".join(",".join(row[:-1]) for row in (header, *rows)),  # without the column Defect
    ):
        assert rewritten != text
        (root / TEST).write_bytes(rewritten.encode())
        assert described(listed(root).test) == expected
    # Several defects are named in the order of the columns.
    order = [*header[:3], *reversed(header[3:20]), *header[20:]]
    rows = [[dict(zip(header, row, strict=True))[c] for c in order] for row in rows]
    layouts.table(root / TEST, [order, *rows])
    assert [r.defect for r in listed(root).test] == [GOOD, "RB", "OK+RO", "AF"]


def changed(row: int, column: str, value: str):
    def change(path: Path) -> None:
        rows = rows_of(path)
        rows[row][rows[0].index(column)] = value
        layouts.table(path, rows)

    return change


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda p: p.unlink(), "file not found: put SewerML_Val.csv there"),
        (lambda p: p.write_text(""), "has no column Filename"),
        (lambda p: layouts.table(p, rows_of(p)[:1]), "lists no images"),
        (lambda p: p.write_text(p.read_text().replace(",", ";")), "separated by commas"),
        (changed(0, "RO", "Roots"), "has no column RO"),
        (changed(2, "RO", "2"), r"row 3 \(00000006\.png\) has '2' in column RO: give 0 or 1"),
        (changed(2, "Defect", ""), "row 3 .* has '' in column Defect"),
        (changed(3, "Filename", "00000006.png"), "row 4 lists 00000006.png a second time"),
        (changed(3, "Filename", "00000001.png"), "row 4 lists 00000001.png a second time"),
        (changed(3, "Filename", ""), "row 4 names no image"),
        (changed(3, "Filename", "gone.png"), "the image gone.png is listed but neither there"),
        (lambda p: layouts.table(p, [*rows_of(p), ["a.png", "0"]]), "row 6 has 2 values .* 22"),
        (lambda p: p.write_bytes(p.read_bytes() + "é.png".encode("latin-1")), "not text in UTF-8"),
        (lambda p: p.write_text('"' + "x" * 200_000), "is not a valid CSV file"),
    ],
)
def test_unusable_files_end_in_a_sentence_that_names_the_row(root, change, expected):
    change(root / TEST)
    with pytest.raises(UserError, match=expected) as caught:
        listed(root)
    assert str(caught.value).startswith(str(root))


def test_unusable_arguments_end_in_a_sentence_that_helps(root):
    with pytest.raises(UserError, match="channels is 0"):
        listed(root, channels=0)
    for path, images in ((root, "gone"), ("gone", root)):
        with pytest.raises(UserError, match=r"^gone: folder not found"):
            csv_source(path, images=images)


def test_a_long_list_is_read_in_little_time_and_memory(root, monkeypatch):
    """Read a fiftieth of Sewer-ML; the whole set took 6 s and 0.4 GB."""
    numbers = range(100, 20_100)
    rows = [layouts.sewer_row("", label)[1:] for label in ("", *SEWER_ML_DEFECTS)]
    labelled = ([f"{i:08d}.png", *rows[i % 2 * (i % 18)]] for i in numbers)
    layouts.table(root / TRAIN, [layouts.SEWER_ML, *labelled])
    asked = []
    monkeypatch.setattr(csv_module._Folders, "find", lambda self, name: asked.append(name))
    start = time.process_time()
    tracemalloc.start()
    source = listed(root)
    gc.collect()  # releases rows that are not kept
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - start < 5  # 0.3 s with memory tracing
    kept = len(source.train)
    assert kept == len(numbers) // 2 + sum(i % 2 and i % 18 == 0 for i in numbers)
    assert size / kept < 280  # bytes per record with its name and loader; 232 measured
    assert len(asked) < 300
