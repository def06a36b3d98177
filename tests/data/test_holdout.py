"""Held-out good images: disjoint from training, series and neighbours together, gaps respected."""

from functools import partial

import numpy as np
import pytest
from helpers.sources import assert_picklable

from recon_ad.data.holdout import cross_holdout, group_numbers, hold_out_all, split_holdout
from recon_ad.data.source import Record, Source
from recon_ad.errors import UserError


def named(*names: str) -> list[Record]:
    """Return records without images, because only the names are needed."""
    return [Record(name, None) for name in names]


def split(records, **options):
    defaults = {"fraction": 0.1, "few": 10, "gap": 128, "min_side": 128}
    return split_holdout(records, **(defaults | options))


def pixels(height: int, width: int) -> np.ndarray:
    return np.arange(height * width).astype(np.uint16).reshape(height, width, 1)


def sized(name: str, height: int, width: int) -> Record:
    return Record(name, partial(pixels, height, width))


@pytest.mark.parametrize(
    "n, fraction, held, blocks",
    [(240, 0.1, 24, 10), (12, 0.1, 1, 1), (20, 0.1, 2, 2), (10, 0.01, 1, 1), (11, 0.5, 6, 6),
     (10, 0.9, 9, 9), (400, 0.13, 52, 10)],
)  # fmt: skip
def test_blocks_are_contiguous_spread_and_of_the_fraction(n, fraction, held, blocks):
    records = named(*(f"train/good/{i:03d}.png" for i in range(n)))
    got = split(records[::-1], fraction=fraction)  # the order of the records does not matter
    names = [r.name for r in got.heldout]
    assert len(names) == held and names == sorted(names)
    assert sorted([r.name for r in got.train] + names) == [r.name for r in records]
    index = np.array([int(name[-7:-4]) for name in names])
    assert np.count_nonzero(np.diff(index) > 1) + 1 <= blocks
    if fraction < 0.5:
        starts = index[np.r_[True, np.diff(index) > 1]]
        assert len(starts) == blocks
        assert len(starts) == 1 or np.ptp(np.diff(starts)) <= 2  # evenly spread
        assert starts[0] > 0 and index[-1] < n - 1  # training images on both sides
    place = f"{blocks} contiguous blocks" if blocks > 1 else "the middle"
    assert got.how == f"{held} of {n} images in {place} of the sorted names"


@pytest.mark.parametrize("options", [{}, {"group": r"(\d)\."}, {"few": 100}])
def test_a_validation_part_of_the_data_set_is_held_out_and_nothing_else(options):
    own = [record._replace(validation=True) for record in named("validation/good/0.png")]
    got = split(named("train/good/0.png", "train/good/1.png") + own, **options)
    assert [r.name for r in got.heldout] == ["validation/good/0.png"]
    assert [r.name for r in got.train] == ["train/good/0.png", "train/good/1.png"]
    assert got.how == "1 image of the data set's own validation part"
    assert got.regions_per_image == 1
    with pytest.raises(UserError, match="1 image of the data set's own validation part and no"):
        split(own)


def test_each_category_has_its_validation_part_or_none():
    several = [
        r._replace(category="a") for r in named(*(f"a/train/{i:02d}.png" for i in range(20)))
    ]
    several += [r._replace(category="b") for r in named("b/train/0.png")]
    several += [r._replace(category="b", validation=True) for r in named("b/validation/0.png")]
    got = split(several)
    assert [r.name for r in got.heldout] == [
        "a/train/04.png",
        "a/train/14.png",
        "b/validation/0.png",
    ]
    assert "a: 2 of 20 images" in got.how and "b: 1 image of" in got.how


@pytest.mark.parametrize(
    "fraction, groups", [(0.01, "F"), (0.1, "F"), (0.2, "CH"), (0.3, "BFI"), (0.99, "ABCDEFGHJ")]
)
def test_groups_are_held_out_whole_and_evenly_spaced(fraction, groups):
    keys = "ABCDEFGHIJ"
    records = named(*(f"good/{i:02d}_{key}.png" for i in range(12) for key in keys))
    got = split(records, fraction=fraction, group=r"_([A-J])\.")
    assert {r.name[-5] for r in got.train} | {r.name[-5] for r in got.heldout} == set(keys)
    held = {r.name[-5] for r in got.heldout}
    assert not held & {r.name[-5] for r in got.train}
    assert len(got.heldout) == 12 * len(held) >= min(fraction, 0.9) * 120
    if fraction < 0.9:
        assert held == set(groups)
    assert f"of {len(keys)} by" in got.how and ", ".join(sorted(held)) in got.how


def test_groups_go_on_until_the_fraction_is_reached_though_their_sizes_differ():
    sizes = {"a": 5, "b": 1, "c": 1, "d": 13}
    records = named(*(f"good/{key}{i}.png" for key, n in sizes.items() for i in range(n)))
    # Without a capture group the whole match counts, and only the file name of the path is used.
    got = split(records, fraction=0.3, group="^[a-d]")
    assert {r.name[5] for r in got.heldout} == {"b", "d"}


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"group": r"(\d)"}, r'good/x\.png: the name does not match the hold-out group "\('),
        ({"group": "(q)?x|a"}, "does not match"),  # a group that does not participate
        ({"group": r"\.png"}, r'puts all 2 images into one group, ".png"'),
        ({"group": "("}, "is not a valid regular expression"),
        ({"fraction": 0.0}, "fraction is 0"),
        ({"fraction": 1.0}, "fraction is 1"),
    ],
)
def test_unusable_options_end_in_a_sentence(options, expected):
    with pytest.raises(UserError, match=expected):
        split(named("good/x.png", "good/a1.png"), **options)


@pytest.mark.parametrize(
    "height, width, fraction, axis, held",
    [
        (700, 1000, 0.2, 1, 200),
        (700, 1000, 0.05, 1, 128),  # at least one patch
        (1000, 700, 0.2, 0, 200),
        (500, 500, 0.3, 1, 150),
        (128, 384, 0.1, 1, 128),  # the smallest image that can be cut
        (700, 1000, 0.9, 1, 744),  # training keeps at least one patch
    ],
)
def test_regions_leave_a_gap_and_share_no_pixel(height, width, fraction, axis, held):
    got = split([sized("000.png", height, width)], fraction=fraction)
    (train,), (heldout,) = got.train, got.heldout
    stop = (height, width)[axis] - held
    first, _, last = np.split(pixels(height, width), [stop - 128, stop], axis)
    np.testing.assert_array_equal(train.load(), first)
    np.testing.assert_array_equal(heldout.load(), last)
    assert last.shape[axis] == held
    word = ("rows", "columns")[axis]
    assert heldout.name == f"000.png[{word} {stop}:{stop + held}]"
    assert train.name == f"000.png[{word} 0:{stop - 128}]"
    assert got.how == f"every image's last {held} {word}, 128 px apart from the training part"
    assert_picklable(Source(got.train, got.heldout))


def test_images_too_small_to_cut_stay_in_training():
    # No patch fits the shorter side of c.
    sizes = {"a": (700, 1000), "b": (200, 383), "c": (100, 1000), "d": (800, 600)}
    got = split([sized(f"{name}.png", *size) for name, size in sizes.items()], fraction=0.2)
    names = ["a.png[columns 0:672]", "b.png", "c.png", "d.png[rows 0:512]"]
    assert [r.name for r in got.train] == names
    assert [r.load().shape[:2] for r in got.heldout] == [(700, 200), (160, 600)]
    assert "160 to 200 px" in got.how and "2 too small" in got.how


def test_too_few_images_end_in_a_sentence_that_helps_but_one_can_be_cut():
    with pytest.raises(UserError, match="no good images"):
        split([])
    with pytest.raises(UserError, match=r"3 good images.*128 px.*more images or a smaller patch"):
        split([sized(f"{i}.png", 200, 300) for i in range(3)])
    got = split([sized("a.png", 700, 1000)], few=1)
    assert "last" in got.how and len(got.train) == len(got.heldout) == 1
    assert got.train[0].load().base is None  # it does not keep the whole image alive


def with_roi(roi: np.ndarray) -> Record:
    return sized("a.png", *roi.shape)._replace(load_roi=lambda: roi)


def columns(first: int, last: int) -> np.ndarray:
    roi = np.zeros((256, 1024), bool)
    roi[:, first:last] = True
    return roi


def test_regions_are_cut_from_the_region_of_interest():
    division = split([with_roi(columns(100, 700))], fraction=0.2, gap=64, min_side=64)
    (train,), (held,) = division.train, division.heldout
    assert train.load().shape[1] == 700 - 120 - 64 and held.load().shape[1] == 120
    assert held.load_roi().all() and train.load_roi().sum() == 256 * (516 - 100)
    # Five of the held-out strips make up the region, but not the image.
    assert division.regions_per_image == pytest.approx(5)
    assert "of the region of interest" in division.how


def test_an_image_whose_region_cannot_be_cut_is_trained_on_whole():
    whole, cut = with_roi(columns(500, 620)), with_roi(columns(0, 1024))._replace(name="b.png")
    division = split([whole, cut], fraction=0.2, gap=64, min_side=64)
    assert len(division.train) == 2 and len(division.heldout) == 1
    with pytest.raises(UserError, match="also in its region of interest"):
        split([whole], fraction=0.2, gap=64, min_side=64)


def test_a_sparse_region_counts_by_its_pixels():
    roi = columns(0, 600)
    roi[:64, 600:] = True
    division = split([with_roi(roi)], fraction=0.2, gap=64, min_side=64)
    assert division.regions_per_image == pytest.approx(roi.sum() / roi[:, -205:].sum())


def test_crossed_images_are_all_in_both_parts_in_blocks_of_neighbours():
    records = named(*(f"good/{i:03d}.png" for i in range(25)))
    got = cross_holdout(records[::-1])
    assert got.crossed and not got.grouped and got.train == got.heldout == tuple(records)
    assert list(got.blocks) == sorted(got.blocks) and len(set(got.blocks)) == 10
    assert got.how.startswith("every training image (25)") and "(10 blocks" in got.how
    assert cross_holdout(records[:4]).blocks == (0, 1, 2, 3)


def test_crossed_groups_are_whole_and_categories_have_blocks_of_their_own():
    records = named(*(f"good/{key}{i}.png" for i in range(3) for key in "abc"))
    got = cross_holdout(records, group="[abc]")
    assert (
        got.grouped
        and got.how
        == 'every training image (9), judged without its own group (3 groups by "[abc]")'
    )
    for record, block in zip(got.heldout, got.blocks, strict=True):
        assert "abc"[block] == record.name[5]
    parts = [record._replace(category="xy"[i % 2]) for i, record in enumerate(records)]
    both = cross_holdout(parts)
    assert len(both.heldout) == 9 and both.crossed
    blocks = {c: {b for r, b in zip(both.heldout, both.blocks, strict=True) if r.category == c}
              for c in "xy"}  # fmt: skip
    assert not blocks["x"] & blocks["y"] and sorted(blocks["x"] | blocks["y"]) == list(range(9))
    groups = cross_holdout(parts, group="[abc]")
    assert len(set(groups.blocks)) == 6  # three of each category


def test_every_way_of_dividing_numbers_its_blocks():
    records = named(*(f"good/{key}{i}.png" for key in "abcdefghij" for i in range(6)))
    by_block = split(records, fraction=0.4)
    assert len(by_block.blocks) == 24 and len(set(by_block.blocks)) == 10 and not by_block.grouped
    by_group = split(records, fraction=0.3, group="[a-j]")
    assert by_group.grouped and len(set(by_group.blocks)) == 3
    for record, block in zip(by_group.heldout, by_group.blocks, strict=True):
        assert by_group.heldout[by_group.blocks.index(block)].name[5] == record.name[5]
    held = hold_out_all(records, how="")
    assert not held.grouped and len(set(held.blocks)) == 10 and held.train == ()
    assert group_numbers(["x/b1", "a1", "b2"], "[ab]") == (1, 0, 1)
