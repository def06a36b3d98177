"""Folders in the MVTec layout, plain folders and arrays in memory become sources."""

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.layouts import SIZE, cut, mask, picture, rectangles, saved
from helpers.sources import assert_picklable, by_name, channels_of
from PIL import Image

from recon_ad.data.folder import folder_source, memory_source
from recon_ad.data.source import GOOD, readable
from recon_ad.errors import UserError


def truncated(path: Path) -> Path:
    return cut(picture(path, (200, 200)))


def roi(path: Path, rows: int) -> Path:
    """Writes a region of interest of the first rows."""
    levels = np.zeros(SIZE, np.uint8)
    levels[:rows] = 255
    return saved(path, levels)


@pytest.fixture
def dataset(tmp_path) -> Path:
    """The MVTec layout with what lies about in real folders, as the category `tile`."""
    root = tmp_path / "set" / "tile"
    for name in ("002.png", "000.PNG", "001.Jpg"):
        picture(root / "train/good" / name)
    picture(root / "test/good/000.bmp")
    for name in ("b.png", "a.tif", "c.JPEG"):
        picture(root / "test/crack" / name)
    picture(root / "test/blob/a.png")
    for name in ("crack/b_mask.png", "crack/c_mask.PNG", "blob/a_mask.bmp"):
        mask(root / "ground_truth" / name, 2)
    mask(root / "ground_truth/crack/a.png", 2, value=1)
    for folder in (root / "train/good", root / "test/crack", root / "ground_truth/crack"):
        (folder / ".DS_Store").write_bytes(b"x")
        picture(folder / ".hidden.png")
        picture(folder / ".ipynb_checkpoints/000-checkpoint.png")
    picture(root / "test/.ipynb_checkpoints/x.png")
    return root


def test_mvtec_layout_is_listed_in_order_without_dotfiles(dataset):
    source = folder_source(dataset)
    assert [r.name for r in source.train] == [
        f"train/good/{n}" for n in ("000.PNG", "001.Jpg", "002.png")
    ]
    assert [(r.name, r.defect, r.load_mask is not None) for r in source.test] == [
        ("test/blob/a.png", "blob", True),
        ("test/crack/a.tif", "crack", True),
        ("test/crack/b.png", "crack", True),
        ("test/crack/c.JPEG", "crack", True),
        ("test/good/000.bmp", GOOD, False),
    ]
    assert source.notes == ()


def test_records_load_the_files_and_their_masks(dataset):
    source = folder_source(dataset)
    stored = np.asarray(Image.open(dataset / "train/good/002.png"))
    np.testing.assert_array_equal(source.train[2].load()[..., 0], stored)
    for record in source.test[:4]:
        assert record.load().shape == (*SIZE, 1)
        np.testing.assert_array_equal(record.load_mask(), rectangles(2))
    assert_picklable(source)


def test_category_is_a_subfolder_and_names_are_relative_to_it(dataset):
    by_category = folder_source(str(dataset.parent), category="tile")
    assert [r.name for r in by_category.train] == [r.name for r in folder_source(dataset).train]


@pytest.mark.parametrize(
    "change, expected",
    [
        (
            lambda d: (d / "ground_truth").rename(d / "elsewhere"),
            "There is no folder ground_truth, so no defective test image has a mask.",
        ),
        (
            lambda d: [picture(d / f"test/crack/x{i}.png") for i in range(9)],
            "9 defective test images without a mask: test/crack/x0.png, test/crack/x1.png, "
            "test/crack/x2.png and 6 more.",
        ),
        (lambda d: picture(d / "test/loose.png"), "1 image directly under test left out.*loose"),
        (
            lambda d: [picture(d / f"test/OK/{n}.png") and mask(d / f"ground_truth/OK/{n}.png", 2)
                       for n in "ab"],
            "test/OK counts as a type of defect",
        ),
    ],
)  # fmt: skip
def test_what_is_odd_in_the_test_split_is_told_in_one_note(dataset, change, expected):
    change(dataset)
    (note,) = folder_source(dataset).notes
    assert re.match(expected, note)


def test_missing_and_empty_masks_are_noted_by_image_and_not_used(dataset):
    (dataset / "ground_truth/crack/b_mask.png").unlink()
    mask(dataset / "ground_truth/blob/a_mask.bmp")
    source = folder_source(dataset)
    assert [r.name for r in source.test if r.anomalous and r.load_mask is None] == [
        "test/blob/a.png",
        "test/crack/b.png",
    ]
    missing, empty = source.notes
    assert missing == "1 defective test image without a mask: test/crack/b.png."
    assert "1 defective test image with an empty mask" in empty and "test/blob/a.png" in empty


@pytest.mark.parametrize(
    "harm, expected",
    [
        (lambda p: mask(p, 2, size=(30, 20)), ("test/crack/b.png", "30 × 20", "20 × 30")),
        (truncated, ("_mask.png: ",)),
    ],
)
def test_an_unusable_mask_is_named_or_left_out(dataset, harm, expected):
    wrong = harm(dataset / "ground_truth/crack/b_mask.png")
    with pytest.raises(UserError) as caught:
        folder_source(dataset)
    assert all(part in str(caught.value) for part in (str(wrong), *expected))
    source = folder_source(dataset, on_error="skip")
    assert by_name(source)["test/crack/b.png"].load_mask is None
    (note,) = source.notes
    assert "broken or wrong-sized" in note and "test/crack/b.png" in note


def test_a_broken_test_image_is_left_to_who_decodes_it(dataset):
    (dataset / "test/crack/b.png").write_bytes(b"")
    record = by_name(folder_source(dataset))["test/crack/b.png"]
    with pytest.raises(UserError, match=r"b\.png: .*0 bytes"):
        record.load()


def test_a_truncated_training_image_stops_with_its_name_or_is_counted(dataset):
    first = truncated(dataset / "train/good/000.PNG")
    (dataset / "train/good/005.png").write_text("no image")
    with pytest.raises(UserError, match=f"^{first}: .*truncated"):
        folder_source(dataset)
    source = folder_source(dataset, on_error="skip")
    assert [r.name for r in source.train] == ["train/good/001.Jpg", "train/good/002.png"]
    truncated_note, text_note = source.notes
    assert truncated_note.startswith(f"Training image left out: {first}: ")
    assert "005.png: is not an image" in text_note


def test_of_many_broken_training_images_some_are_told_one_by_one(dataset):
    for i in range(30):
        (dataset / f"train/good/x{i}.png").write_text("no image")
    notes = folder_source(dataset, on_error="skip").notes
    assert len(notes) == 21 and notes[-1] == "10 more training images left out as broken."


def test_if_every_training_image_is_broken_the_first_reason_is_given(tmp_path):
    truncated(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"none of the 1 training images .*a\.png"):
        folder_source(tmp_path, on_error="skip")


def test_a_plain_folder_of_good_images_has_no_test_split(tmp_path):
    for name in ("b.png", "a.jpg", ".c.png"):
        picture(tmp_path / name)
    source = folder_source(tmp_path)
    assert [r.name for r in source.train] == ["a.jpg", "b.png"]
    assert source.test == () and source.notes == ()


def test_what_lies_beside_the_training_images_is_noted(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.webp").write_bytes(b"x")
    picture(tmp_path / "more/c.png")
    (tmp_path / "more/d.txt").write_bytes(b"x")
    source = folder_source(tmp_path)
    assert [r.name for r in source.train] == ["a.png", "more/c.png"]
    (note,) = source.notes
    assert note.startswith("2 files") and "b.webp" in note and "more/d.txt" in note


def test_subfolders_are_searched_and_keep_their_masks(dataset):
    picture(dataset / "train/good/day2/0.png")
    picture(dataset / "test/crack/day2/b.png")
    mask(dataset / "ground_truth/crack/day2/b_mask.png", 2)
    records = by_name(folder_source(dataset))
    assert "train/good/day2/0.png" in records
    record = records["test/crack/day2/b.png"]
    assert record.defect == "crack" and record.load_mask().any()


def test_several_masks_of_an_image_are_united(dataset):
    picture(dataset / "test/logical/a.png")
    for i in (2, 9):
        mask(dataset / f"ground_truth/logical/a/{i:03d}.png", i)
    record = by_name(folder_source(dataset))["test/logical/a.png"]
    np.testing.assert_array_equal(record.load_mask(), rectangles(2, 9))


def test_a_folder_that_holds_itself_is_named(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(UserError, match="again: is a link to a folder that holds it"):
        folder_source(tmp_path)


@pytest.mark.parametrize("make_odd", [Path.mkdir, lambda p: p.symlink_to("gone.png"), os.mkfifo])
def test_what_only_looks_like_an_image_is_not_passed_over(dataset, make_odd):
    make_odd(dataset / "train/good/x.png")
    with pytest.raises(UserError, match=r"x\.png: is "):
        folder_source(dataset)


def test_regions_of_interest_belong_to_the_images_of_the_same_path(dataset):
    roi(dataset / "roi/train/good/002.png", 5)
    roi(dataset / "roi/test/crack/b.png", 7)
    source = folder_source(dataset)
    regions = {n: r.load_roi().sum() for n, r in by_name(source).items() if r.load_roi}
    assert regions == {"train/good/002.png": 150, "test/crack/b.png": 210}
    assert "without a region of interest" in source.notes[-1]


def test_one_region_of_interest_serves_all_images_without_their_own(dataset, tmp_path):
    roi(dataset / "roi.png", 5)
    source = folder_source(dataset)
    assert all(r.load_roi().sum() == 150 for r in source.train) and source.notes == ()
    roi(dataset / "roi/train/good/002.png", 7)
    assert [r.load_roi().sum() for r in folder_source(dataset).train] == [150, 150, 210]
    picture(tmp_path / "plain/a.png")
    roi(tmp_path / "plain/roi.png", 5)
    assert [r.name for r in folder_source(tmp_path / "plain").train] == ["a.png"]


def test_a_region_of_interest_that_does_not_fit_is_named(dataset):
    roi(dataset / "roi.png", 0)
    with pytest.raises(UserError, match=r"roi\.png: the region of interest marks no pixel"):
        folder_source(dataset).train[0].load_roi()
    picture(dataset / "roi.png", size=(9, 9))
    with pytest.raises(UserError, match=r"roi\.png: the region of interest has 9 × 9 pixels"):
        folder_source(dataset).train[0].load_roi()


def test_training_images_with_other_channels_are_named(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("b.npy", "c.npy"):
        np.save(tmp_path / name, np.zeros((8, 9, 5), np.uint8))
    with pytest.raises(UserError, match=r"\[1, 5\]; a\.png has 1"):
        folder_source(tmp_path)
    with pytest.raises(UserError, match=r"a\.png: has 1 channels and not 5"):
        folder_source(tmp_path, channels=5)
    assert len(folder_source(tmp_path, channels=5, on_error="skip").train) == 2


@pytest.mark.parametrize(
    "train_rgb, channels, expected",
    [
        ([False, False], None, 1),
        ([True, True], None, 3),
        ([False, True], None, 3),
        ([True, True], 1, 1),
        ([False, False], 3, 3),
    ],
)
def test_all_images_are_read_with_the_same_channels(tmp_path, train_rgb, channels, expected):
    for i, rgb in enumerate(train_rgb):
        picture(tmp_path / f"train/good/{i}.png", rgb=rgb)
    picture(tmp_path / "test/good/gray.png")
    picture(tmp_path / "test/good/rgb.png", rgb=True)
    source = folder_source(tmp_path, channels=channels)
    assert channels_of(source) == {expected}
    mixed = channels is None and len(set(train_rgb)) == 2
    assert len(source.notes) == mixed
    if mixed:
        assert "1 of 2 training images are RGB" in source.notes[0]


@pytest.mark.parametrize(
    "files, arguments, expected",
    [
        ((), {"path": "gone"}, "gone: there is no such folder"),
        (("a.png",), {"path": "a.png"}, r"a\.png: is a file"),
        (("a.png", "NG/b.png"), {}, "has images in NG and no train/good"),
        (("good/a.png", "scratch/a.png"), {}, "has images in scratch and no train/good"),
        ((), {}, "holds neither images .* nor a folder train/good"),
        (("x/test/a.png",), {}, "has images in x/test and no train/good"),
        (("train/a.png",), {}, "no train/good"),
        (("tile/train/good/a.png", "nut/train/good/a.png"), {}, "there are nut, tile$"),
        (
            ("tile/train/good/a.png", "nut/train/good/a.png"),
            {"category": "bolt"},
            'no category "bolt": there are nut, tile$',
        ),
        (("a.png",), {"category": "bolt"}, 'no category "bolt": there are none'),
        (("train/good/.a.png",), {}, "train/good: holds no images"),
        (("a.png",), {"channels": 0}, "channels is 0"),
        (("a.png",), {"on_error": "ignore"}, 'on_error is "ignore"'),
    ],
)
def test_unusable_folders_end_in_a_sentence_that_helps(tmp_path, files, arguments, expected):
    for file in files:
        picture(tmp_path / file)
    with pytest.raises(UserError, match=expected):
        folder_source(**(arguments | {"path": tmp_path / arguments.get("path", "")}))


@pytest.mark.parametrize(
    "shape, dtype, loaded",
    [
        ((3, 8, 9), np.uint8, np.uint8),
        ((3, 8, 9, 1), np.uint8, np.uint8),
        ((3, 8, 9, 3), np.uint8, np.uint8),
        ((3, 8, 9, 3), np.float64, np.float32),
        ((3, 8, 9), np.float16, np.float32),
    ],
)
@pytest.mark.parametrize("as_list", [False, True])
def test_images_in_memory_become_training_records(shape, dtype, loaded, as_list):
    images = np.random.default_rng(0).random(shape)
    images = images.astype(dtype) if loaded == np.float32 else (images * 255).astype(dtype)
    source = memory_source(list(images) if as_list else images)
    assert [r.name for r in source.train] == ["0000", "0001", "0002"] and source.test == ()
    for record, given in zip(source.train, images, strict=True):
        got = record.load()
        assert got.dtype == loaded and got.ndim == 3
        np.testing.assert_allclose(got.reshape(given.shape), given, atol=1e-7)
        assert not got.flags.writeable
    assert images.flags.writeable
    assert_picklable(source)


@pytest.mark.parametrize(
    "images, expected",
    [
        ([], "empty"),
        (np.zeros((8, 8), np.uint8), r"\(8, 8\): give \[n, h, w\]"),
        *(
            ([np.zeros((8, 8), np.uint8), np.zeros((8, 8, n), np.uint8)], f"image 1 has {n} chan")
            for n in (3, 4)
        ),
        ([np.zeros((0, 8), np.uint8)], "image 0 has shape"),
        ([np.zeros((8, 8), np.int64)], "image 0 has type int64"),
        ([np.full((8, 8), 1.5)], "image 0 has values from 1.5 to 1.5"),
        ([np.full((8, 8), -0.1)], "image 0 has values"),
        ([np.full((8, 8), np.nan)], "image 0 holds 64 values that are NaN"),
    ],
)
def test_unusable_arrays_are_named_by_their_index(images, expected):
    with pytest.raises(UserError, match=expected):
        memory_source(images)


REAL = [
    ("nanotwice", "nanofibres", 5, "defect 40", 1),
    ("bsdata", "ball_screw", 120, "good 60 pitting 55", 3),
    pytest.param(
        *("mvtec_ad", "grid", 240),
        "good 24 bent 12 broken 12 glue 11 metal_contamination 11 thread 11",
        1,
        marks=pytest.mark.slow,
    ),
    pytest.param(
        *("mtd", "magnetic_tile", 400),
        "good 100 blowhole 115 break 85 crack 57 fray 32 uneven 103",
        1,
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("folder, category, train, test, channels", REAL)
def test_real_data_sets_are_listed_in_full(real_data, folder, category, train, test, channels):
    source = folder_source(real_data / folder, category=category)
    assert len(source.train) == train
    names, numbers = test.split()[::2], map(int, test.split()[1::2])
    assert Counter(r.defect for r in source.test) == dict(zip(names, numbers, strict=True))
    assert source.train[0].load().shape[2] == channels
    without = [r.name for r in source.test if r.anomalous and r.load_mask is None]
    if category == "magnetic_tile":
        (note,) = source.notes
        assert len(without) == 4 and all(name.startswith("test/uneven/") for name in without)
        assert note.startswith("4 defective test images with an empty mask")
        assert without[0] in note and "and 1 more" in note
    else:
        assert without == [] and source.notes == ()
    record = next(r for r in source.test if r.load_mask is not None)
    assert record.load_mask().shape == record.load().shape[:2]


def test_a_defect_outside_the_region_of_interest_leaves_the_test(dataset):
    inside = np.zeros(SIZE, np.uint8)
    inside[10:] = 255  # the masks mark rows 2 to 4
    saved(dataset / "roi.png", inside)
    source = readable(folder_source(dataset), on_error="raise")
    assert {r.defect for r in source.test} == {"good"}
    told = [note for note in source.notes if "no defective pixel in its region" in note]
    assert len(told) == 4


def test_a_training_image_with_a_broken_region_stops_or_is_left_out(dataset):
    picture(dataset / "roi/train/good/002.png", size=(9, 9))
    with pytest.raises(UserError, match="the region of interest has 9 × 9 pixels"):
        folder_source(dataset)
    source = folder_source(dataset, on_error="skip")
    assert "train/good/002.png" not in [r.name for r in source.train]


@pytest.mark.parametrize(
    "levels, input_range, expected",
    [
        ([np.uint16(4000)], None, ["above 4000.*input_range=\\(0, 4095\\)"]),
        ([np.uint16(4000)], (0, 4095), []),
        ([np.uint8(200)] * 2, (0, 4095), ["reach only 5% of the way"]),
        (
            [np.uint8(200), np.uint8(200), np.uint16(4000)],
            (0, 4095),
            ["\\(1 uint16, 2 uint8\\), and one range is set for all"],
        ),
    ],
)
def test_depths_that_do_not_fit_the_input_range_are_noted(tmp_path, levels, input_range, expected):
    for i, level in enumerate(levels):
        saved(tmp_path / f"{i}.png", np.full((8, 8), level))
    notes = folder_source(tmp_path, input_range=input_range).notes
    for note, words in zip(notes, expected, strict=True):
        assert re.search(words, note)
