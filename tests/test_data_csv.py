"""Sewer-ML's CSV files become a source that stays small with a million rows."""

import pickle
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image

from recon_ad.data import csv_source as csv_module
from recon_ad.data.csv_source import SEWER_ML_DEFECTS, csv_source
from recon_ad.data.pipeline import Images, patch_batches
from recon_ad.data.source import GOOD
from recon_ad.errors import UserError


@pytest.fixture
def root(tmp_path) -> Path:
    return layouts.sewer_ml(tmp_path)


def listed(root: Path):
    return csv_source(root, images=root / "images")


def rows_of(path: Path) -> list[list[str]]:
    return [line.split(",") for line in path.read_text().splitlines()]


def test_good_images_train_and_the_validation_set_tests(root):
    source = listed(root)
    assert [(r.name, r.defect) for r in source.train] == [(f"{i:08d}.png", GOOD) for i in (0, 1, 3)]
    assert [(r.name, r.defect) for r in source.test] == [
        ("00000005.png", GOOD),
        ("00000006.png", "RB"),
        ("00000007.png", "RO+OK"),
        ("00000008.png", "AF"),
    ]
    assert all(r.load_mask is None for r in source.train + source.test)
    for record in source.train + source.test:
        stored = np.asarray(Image.open(root / "images" / record.name))
        np.testing.assert_array_equal(record.load(), stored)


def test_there_are_17_defects_and_the_water_level_is_none(tmp_path):
    assert len(SEWER_ML_DEFECTS) == 17 and "VA" not in SEWER_ML_DEFECTS
    layouts.sewer_ml(tmp_path, test=SEWER_ML_DEFECTS)
    assert [r.defect for r in listed(tmp_path).test] == list(SEWER_ML_DEFECTS)


def test_several_defects_are_named_in_the_order_of_the_columns(root):
    path = root / "SewerML_Val.csv"
    header, *rows = rows_of(path)
    order = [*header[:3], *reversed(header[3:20]), *header[20:]]
    layouts.table(
        path, [order, *([dict(zip(header, row, strict=True))[c] for c in order] for row in rows)]
    )
    assert Counter(r.defect for r in listed(root).test) == Counter([GOOD, "RB", "OK+RO", "AF"])


@pytest.mark.parametrize("in_classes, in_defect, expected", [(0, 1, "Defect"), (1, 0, "RB")])
def test_an_image_is_good_only_if_all_columns_say_so(root, in_classes, in_defect, expected):
    for name in ("SewerML_Train.csv", "SewerML_Val.csv"):
        header, row, *rows = rows_of(root / name)
        row[header.index("RB")], row[header.index("Defect")] = str(in_classes), str(in_defect)
        layouts.table(root / name, [header, row, *rows])
    source = listed(root)
    assert [r.name for r in source.train] == ["00000001.png", "00000003.png"]
    assert source.test[0].defect == expected


def test_the_column_defect_may_be_missing(root):
    for name in ("SewerML_Train.csv", "SewerML_Val.csv"):
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
    assert {r.load().shape[2] for r in source.train + source.test} == {expected}


def test_records_are_sorted_whatever_the_order_of_the_rows(root):
    path = root / "SewerML_Train.csv"
    header, *rows = rows_of(path)
    layouts.table(path, [header, *reversed(rows)])
    assert [r.name for r in listed(root).train] == [f"{i:08d}.png" for i in (0, 1, 3)]


@pytest.mark.parametrize(
    "rewritten",
    [
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\r\n", "\n").encode(),
        lambda text: text.replace("\r\n", "\r\n\r\n").encode(),
        lambda text: "\r\n".join(
            ",".join(f'"{value}"' for value in line.split(",")) for line in text.splitlines()
        ).encode(),
    ],
    ids=["byte order mark", "unix", "empty lines", "quoted"],
)
def test_other_ways_to_write_the_same_table_are_read(root, rewritten):
    expected = [(r.name, r.defect) for r in listed(root).test]
    path = root / "SewerML_Val.csv"
    path.write_bytes(rewritten(path.read_bytes().decode()))
    assert [(r.name, r.defect) for r in listed(root).test] == expected


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
    path = root / "SewerML_Val.csv"
    change(path)
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


def test_without_a_good_image_there_is_nothing_to_train_on(tmp_path):
    layouts.sewer_ml(tmp_path, train=("RB", "RO"))
    with pytest.raises(UserError, match="lists no image without a defect"):
        listed(tmp_path)


def test_an_image_not_looked_for_in_listing_is_named_when_it_loads(root, monkeypatch):
    monkeypatch.setattr(csv_module, "_LOOKED_FOR", 1)
    (root / "images" / "00000003.png").unlink()
    source = listed(root)
    with pytest.raises(UserError, match=r"the image 00000003\.png is listed but neither there"):
        source.train[2].load()


def test_records_can_be_pickled_for_worker_processes(root):
    source = listed(root)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.train[1].load(), source.train[1].load())


def test_patches_are_cut_from_the_good_images(tmp_path):
    layouts.sewer_ml(tmp_path, size=(64, 64))
    records = listed(tmp_path).train
    images = Images(records, size=None, patch_size=32, memory_mib=0, disk_mib=0)
    batches = patch_batches(images, seed=0, batch_size=6, patch_size=32, start=0)
    seen = [next(batches)["image"] for _ in range(3)]
    assert {batch.shape for batch in seen} == {(6, 32, 32, 3)}
    again = patch_batches(images, seed=0, batch_size=6, patch_size=32, start=2)
    np.testing.assert_array_equal(next(again)["image"], seen[2])
    wholes = [record.load() for record in records]
    for patch in np.rint(seen[0] * 255).astype(np.uint8):
        assert any(
            (whole[row : row + 32, column : column + 32] == patch).all()
            for whole in wholes
            for row in range(33)
            for column in range(33)
        )


def test_a_long_list_is_read_in_little_time_and_memory(root, monkeypatch):
    """A tenth of Sewer-ML; in full it took 6 s and 0.4 GB."""
    count = 100_000
    labels = ["", *SEWER_ML_DEFECTS]
    rows = [layouts.sewer_row("", label) for label in labels]
    layouts.table(
        root / "SewerML_Train.csv",
        [
            layouts.SEWER_ML,
            *([f"{i:08d}.png", *rows[i % 2 * (i % 18)][1:]] for i in range(100, 100 + count)),
        ],
    )
    asked = []
    monkeypatch.setattr(csv_module._Folders, "find", lambda self, name: asked.append(name))
    start = time.process_time()
    tracemalloc.start()
    source = listed(root)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - start < 15  # 1 s, with memory traced
    kept = len(source.train)
    assert kept == count // 2 + sum(1 for i in range(100, 100 + count) if i % 2 and i % 18 == 0)
    assert size / kept < 280  # bytes for each record, its name and its loader: 232
    assert len(asked) < 300
