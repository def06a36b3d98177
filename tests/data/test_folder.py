"""Folders in the MVTec layout, plain folders, and arrays in memory as sources."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.layouts import SIZE, cut, mask, picture, rectangles, saved
from helpers.sources import assert_picklable, by_name, channels_of
from PIL import Image

from recon_ad.checking.check import check_folder
from recon_ad.data.folder import folder_source, memory_source
from recon_ad.data.source import GOOD, readable
from recon_ad.errors import UserError


def truncated(path: Path) -> Path:
    return cut(picture(path, (200, 200)))


def roi(path: Path, rows: int) -> Path:
    """Write a region of interest of the first rows."""
    levels = np.zeros(SIZE, np.uint8)
    levels[:rows] = 255
    return saved(path, levels)


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Write the MVTec layout as the category `tile`, with stray files as in real folders."""
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


def names_of(records) -> list[str]:
    return [record.name for record in records]


def test_mvtec_layout_is_listed_in_order_without_dotfiles_and_loads(dataset):
    source = folder_source(dataset)
    train = [f"train/good/{n}" for n in ("000.PNG", "001.Jpg", "002.png")]
    assert names_of(source.train) == train and source.notes == ()
    assert [(r.name, r.defect, r.load_mask is not None) for r in source.test] == [
        ("test/blob/a.png", "blob", True),
        *((f"test/crack/{name}", "crack", True) for name in ("a.tif", "b.png", "c.JPEG")),
        ("test/good/000.bmp", GOOD, False),
    ]
    stored = np.asarray(Image.open(dataset / "train/good/002.png"))
    np.testing.assert_array_equal(source.train[2].load()[..., 0], stored)
    for record in source.test[:4]:
        assert record.load().shape == (*SIZE, 1)
        np.testing.assert_array_equal(record.load_mask(), rectangles(2))
    assert_picklable(source)
    assert names_of(folder_source(str(dataset.parent), category="tile").train) == train


def test_what_is_odd_in_the_test_split_is_noted_and_empty_masks_are_not_used(dataset):
    for name in ("loose.png", "OK/a.png", *(f"crack/x{i}.png" for i in range(9))):
        picture(dataset / "test" / name)
    (dataset / "test/crack/b.png").write_bytes(b"")  # the decoder reports it
    mask(dataset / "ground_truth/OK/a.png", 2)
    mask(dataset / "ground_truth/blob/a_mask.bmp")
    source = folder_source(dataset)
    unmasked = [r for r in source.test if r.anomalous and r.load_mask is None]
    assert names_of(unmasked) == ["test/blob/a.png", *(f"test/crack/x{i}.png" for i in range(9))]
    for note, expected in zip(
        source.notes,
        (
            "test/OK counts as a type of defect",
            "1 image directly under test left out.*loose",
            "9 defective test images without a mask: test/crack/x0.png, test/crack/x1.png, "
            "test/crack/x2.png and 6 more.$",
            "1 defective test image with an empty mask.*test/blob/a.png",
        ),
        strict=True,
    ):
        assert re.match(expected, note)
    (dataset / "ground_truth").rename(dataset / "elsewhere")
    expected = "No folder ground_truth was found, so no defective test image has a mask."
    assert folder_source(dataset).notes[2:] == (expected,)


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


def test_a_mask_of_two_images_is_named(dataset):
    picture(dataset / "test/crack/b.jpg")
    with pytest.raises(
        UserError, match=r"b_mask\.png is the mask of both .*crack/b\.jpg and b\.png"
    ):
        folder_source(dataset)
    assert any("mask of both" in finding.text for finding in check_folder(dataset).findings)


@pytest.mark.parametrize("name", ["b_GT.png", "b_label.bmp", "B_mask.png"])
def test_masks_among_good_images_are_named(tmp_path, name):
    for file in ("a.png", "b.png", "c_gt.png"):  # no image is called c
        picture(tmp_path / file)
    folder_source(tmp_path)
    mask(tmp_path / name, 2)
    with pytest.raises(UserError, match=f"{name} seems to be the mask of b"):
        folder_source(tmp_path)
    assert any(
        "seems to be the mask" in finding.text for finding in check_folder(tmp_path).findings
    )


def test_masks_that_cannot_be_meant_are_noted_where_figures_are_made(dataset):
    classes = np.zeros(SIZE, np.uint8)
    classes[:2], classes[2:4] = 60, 240
    saved(dataset / "ground_truth/crack/b_mask.png", classes)
    inverted = np.full(SIZE, 255, np.uint8)
    inverted[4:6, 4:6] = 0
    saved(dataset / "ground_truth/blob/a_mask.bmp", inverted)
    grays, whole = folder_source(dataset).notes
    assert "gray levels in the mask that count as good" in grays and "test/crack/b.png" in grays
    assert "seems inverted" in whole and "test/blob/a.png" in whole


def test_mvtec_ad_2s_layout_is_read(dataset):
    for name in ("bad/1.png", "bad/2.png", "good/1.png"):
        picture(dataset / "test_public" / name)
    mask(dataset / "test_public/ground_truth/bad/1_mask.png", 2)
    picture(dataset / "validation/good/1.png")
    shutil.rmtree(dataset / "test")
    shutil.rmtree(dataset / "ground_truth")
    source = folder_source(dataset)
    assert [(r.name, r.defect, r.load_mask is not None) for r in source.test] == [
        ("test_public/bad/1.png", "bad", True),
        ("test_public/bad/2.png", "bad", False),
        ("test_public/good/1.png", GOOD, False),
    ]
    assert [r.name for r in source.train if r.validation] == ["validation/good/1.png"]
    assert len(source.train) > 1 and not any("Not used" in note for note in source.notes)
    findings = [finding.text for finding in check_folder(dataset).findings]
    assert not any("will not be used" in text for text in findings)
    assert any(text.startswith("1 defective test image has no mask") for text in findings)


def test_broken_training_images_stop_with_their_name_or_are_counted(dataset):
    first = truncated(dataset / "train/good/000.PNG")
    picture(dataset / "roi/train/good/002.png", size=(9, 9))
    for i in range(30):
        (dataset / f"train/good/x{i}.png").write_text("no image")
    with pytest.raises(UserError, match=f"^{first}: .*truncated"):
        folder_source(dataset)
    source = folder_source(dataset, on_error="skip")
    assert names_of(source.train) == ["train/good/001.Jpg"]
    of_cut, of_roi, of_text, *_, more = source.notes[:21]
    assert of_cut.startswith(f"Training image left out: {first}: ")
    assert "the region of interest has 9 × 9 pixels" in of_roi
    assert "x0.png: is not an image" in of_text
    assert more == "12 more training images left out as broken."
    (dataset / "train/good/001.Jpg").unlink()
    with pytest.raises(UserError, match=r"none of the 32 training images .*000\.PNG"):
        folder_source(dataset, on_error="skip")


def test_a_plain_folder_of_good_images_has_no_test_split(tmp_path):
    for name in ("b.png", "a.jpg", ".c.png", "more/c.png"):
        picture(tmp_path / name)
    source = folder_source(tmp_path)
    assert names_of(source.train) == ["a.jpg", "b.png", "more/c.png"]
    assert source.test == () and source.notes == ()
    for name in ("b.webp", "more/d.txt"):
        (tmp_path / name).write_bytes(b"x")
    (note,) = folder_source(tmp_path).notes
    assert note.startswith("2 files") and "b.webp" in note and "more/d.txt" in note


def test_subfolders_are_searched_and_several_masks_of_an_image_united(dataset):
    for name in ("train/good/day2/0.png", "test/crack/day2/b.png", "test/logical/a.png"):
        picture(dataset / name)
    mask(dataset / "ground_truth/crack/day2/b_mask.png", 2)
    for i in (2, 9):
        mask(dataset / f"ground_truth/logical/a/{i:03d}.png", i)
    records = by_name(folder_source(dataset))
    assert "train/good/day2/0.png" in records
    record = records["test/crack/day2/b.png"]
    assert record.defect == "crack" and record.load_mask().any()
    np.testing.assert_array_equal(records["test/logical/a.png"].load_mask(), rectangles(2, 9))


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


def test_regions_of_interest_belong_to_the_images_of_the_same_path_or_to_all(dataset, tmp_path):
    roi(dataset / "roi/train/good/002.png", 5)
    roi(dataset / "roi/test/crack/b.png", 7)
    source = folder_source(dataset)
    regions = {n: r.load_roi().sum() for n, r in by_name(source).items() if r.load_roi}
    assert regions == {"train/good/002.png": 150, "test/crack/b.png": 210}
    assert "without a region of interest" in source.notes[-1]
    roi(dataset / "roi.png", 3)
    source = folder_source(dataset)
    assert [r.load_roi().sum() for r in source.train] == [90, 90, 150] and source.notes == ()
    picture(tmp_path / "plain/a.png")
    roi(tmp_path / "plain/roi.png", 5)
    assert names_of(folder_source(tmp_path / "plain").train) == ["a.png"]


def test_a_region_of_interest_that_marks_nothing_is_named(dataset):
    roi(dataset / "roi.png", 0)
    with pytest.raises(UserError, match=r"roi\.png: the region of interest marks no pixel"):
        folder_source(dataset)


def test_a_defect_outside_the_region_of_interest_leaves_the_test(dataset):
    roi(dataset / "roi.png", 2)  # the masks mark rows 2 to 4
    source = readable(folder_source(dataset), on_error="raise")
    assert {r.defect for r in source.test} == {"good"}
    assert sum("no defective pixel in its region" in note for note in source.notes) == 4


def test_broken_test_images_are_named_together(dataset):
    source = folder_source(dataset)
    for record in source.test[:2]:
        (dataset / record.name).write_bytes(b"no image")
    with pytest.raises(UserError) as caught:
        readable(source, on_error="raise")
    assert str(caught.value).count("is not an image") == 2


def test_training_images_with_other_channels_are_named(tmp_path):
    picture(tmp_path / "a.png")
    for name in ("b.npy", "c.npy"):
        np.save(tmp_path / name, np.zeros((8, 9, 5), np.uint8))
    with pytest.raises(UserError, match=r"\[1, 5\]; a\.png has 1"):
        folder_source(tmp_path)
    with pytest.raises(UserError, match=r"a\.png: has 1 channels and not 5"):
        folder_source(tmp_path, channels=5)
    assert len(folder_source(tmp_path, channels=5, on_error="skip").train) == 2


def test_three_pages_of_gray_are_no_colours_among_gray_images(tmp_path):
    picture(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((3, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(UserError, match=r"\[1, 3\]; .* give images of one kind"):
        folder_source(tmp_path)
    with pytest.raises(UserError, match=r"b\.tif: has 3 channels of gray"):
        folder_source(tmp_path, channels=1)


@pytest.mark.parametrize(
    "train_rgb, channels, expected",
    [((0, 0), None, 1), ((1, 1), None, 3), ((0, 1), None, 3), ((1, 1), 1, 1), ((0, 0), 3, 3)],
)
def test_all_images_are_read_with_the_same_channels(tmp_path, train_rgb, channels, expected):
    for name, rgb in (("train/good", train_rgb), ("test/good", (0, 1))):
        for i in range(2):
            picture(tmp_path / f"{name}/{i}.png", rgb=bool(rgb[i]))
    source = folder_source(tmp_path, channels=channels)
    assert channels_of(source) == {expected}
    noted = ["1 of 2 training images are RGB" in note for note in source.notes]
    assert noted == [True] * (train_rgb == (0, 1))


TWO = "tile/train/good/a.png nut/train/good/a.png"


@pytest.mark.parametrize(
    "files, arguments, expected",
    [
        ("", {"path": "gone"}, "gone: folder not found"),
        ("a.png", {"path": "a.png"}, r"a\.png: is a file"),
        ("a.png NG/b.png", {}, "has images in NG and no train/good"),
        ("good/a.png scratch/a.png", {}, "has images in scratch and no train/good"),
        ("", {}, "holds neither images .* nor a folder train/good"),
        ("x/test/a.png", {}, "has images in x/test and no train/good"),
        ("train/a.png", {}, "no train/good"),
        (TWO, {}, "there are nut, tile$"),
        (TWO, {"category": "bolt"}, 'no category "bolt": there are nut, tile$'),
        ("a.png", {"category": "bolt"}, 'no category "bolt": there are none'),
        ("train/good/.a.png", {}, "train/good: holds no images"),
        ("a.png", {"channels": 0}, "channels is 0"),
        ("a.png", {"on_error": "ignore"}, 'on_error is "ignore"'),
    ],
)
def test_unusable_folders_end_in_a_sentence_that_helps(tmp_path, files, arguments, expected):
    for file in files.split():
        picture(tmp_path / file)
    with pytest.raises(UserError, match=expected):
        folder_source(**(arguments | {"path": tmp_path / arguments.get("path", "")}))


@pytest.mark.parametrize("dtype, loaded", [("u1", "u1"), ("f8", "f4"), ("f2", "f4")])
@pytest.mark.parametrize("shape", [(3, 8, 9), (3, 8, 9, 3)])
@pytest.mark.parametrize("as_list", [False, True])
def test_images_in_memory_become_training_records(shape, dtype, loaded, as_list):
    images = (np.random.default_rng(0).random(shape) * (255 if dtype == "u1" else 1)).astype(dtype)
    source = memory_source(list(images) if as_list else images)
    assert names_of(source.train) == ["0000", "0001", "0002"] and source.test == ()
    for record, given in zip(source.train, images, strict=True):
        got = record.load()
        assert got.dtype == loaded and got.ndim == 3 and not got.flags.writeable
        np.testing.assert_allclose(got.reshape(given.shape), given, atol=1e-7)
    assert images.flags.writeable
    assert_picklable(source)


FLAT = np.zeros((8, 8), np.uint8)


@pytest.mark.parametrize(
    "images, expected",
    [
        ([], "empty"),
        (FLAT, r"\(8, 8\): give \[n, h, w\]"),
        ([FLAT, np.stack([FLAT] * 3, -1)], "image 1 has 3 chan"),
        ([FLAT[:0]], "image 0 has shape"),
        ([FLAT.astype(np.int64)], "image 0 has type int64"),
        ([FLAT + 1.5], "image 0 has values from 1.5 to 1.5"),
        ([FLAT - 0.1], "image 0 has values"),
        ([FLAT + np.nan], "image 0 holds 64 values that are NaN"),
    ],
)
def test_unusable_arrays_are_named_by_their_index(images, expected):
    with pytest.raises(UserError, match=expected):
        memory_source(images)


@pytest.mark.parametrize(
    "path, train, test",
    [
        ("nanotwice/nanofibres", 5, {"defect": 40}),
        ("bsdata/ball_screw", 120, {"good": 60, "pitting": 55}),
    ],
)
def test_real_data_sets_are_listed_in_full(real_data, path, train, test):
    source = folder_source(real_data / path)
    assert len(source.train) == train and source.notes == ()
    assert Counter(r.defect for r in source.test) == test
    record = next(r for r in source.test if r.load_mask is not None)
    assert record.load_mask().shape == record.load().shape[:2]


def test_a_dark_tiff_of_twelve_bits_is_not_taken_for_one_of_sixteen(tmp_path):
    pixels = np.full((8, 8), 600, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, bitspersample=12, photometric="minisblack")
    source = folder_source(tmp_path)
    assert source.notes == () and source.train[0].load().max() == round(600 / 4095 * 65535)
    assert not any("bits" in finding.text for finding in check_folder(tmp_path).findings)


HIGH, LOW = np.uint16(4000), np.uint8(200)


@pytest.mark.parametrize(
    "levels, input_range, expected",
    [
        ([HIGH], None, [r"above 4000.*input_range=\(0, 4095\)"]),
        ([HIGH], (0, 4095), []),
        ([LOW] * 2, (0, 4095), ["reach only 5% of the way"]),
        ([LOW, LOW, HIGH], (0, 4095), [r"\(1 uint16, 2 uint8\), and one range is set for all"]),
    ],
)
def test_depths_that_do_not_fit_the_input_range_are_noted(tmp_path, levels, input_range, expected):
    for i, level in enumerate(levels):
        saved(tmp_path / f"{i}.png", np.full((8, 8), level))
    notes = folder_source(tmp_path, input_range=input_range).notes
    for note, words in zip(notes, expected, strict=True):
        assert re.search(words, note)
