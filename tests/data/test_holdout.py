"""Held-out normals: nothing in both parts, series and neighbours kept together, gaps respected."""

from functools import partial

import numpy as np
import pytest
from helpers.sources import assert_picklable

from recon_ad.data.folder import folder_source, memory_source
from recon_ad.data.holdout import split_holdout
from recon_ad.data.source import Record, Source
from recon_ad.errors import UserError

LOCATION = r"^\d+_\d+_(\d+_\d+)_"  # ball_screw: third and fourth field of the name


def unloadable() -> np.ndarray:
    raise AssertionError("loaded although only names are needed")


def named(*names: str) -> list[Record]:
    return [Record(name, unloadable) for name in names]


def numbered(n: int) -> list[Record]:
    return named(*(f"train/good/{i:03d}.png" for i in range(n)))


def split(records, **options):
    defaults = {"fraction": 0.1, "few": 10, "gap": 128, "min_side": 128}
    return split_holdout(records, **(defaults | options))


def sized(name: str, height: int, width: int) -> Record:
    """A record of a black image of that size."""
    return Record(name, partial(np.zeros, (height, width, 1), np.uint8))


@pytest.mark.parametrize(
    "n, fraction, held, blocks",
    [
        (240, 0.1, 24, 4),
        (12, 0.1, 1, 1),
        (20, 0.1, 2, 2),
        (10, 0.01, 1, 1),
        (11, 0.5, 6, 4),
        (10, 0.9, 9, 4),
        (400, 0.13, 52, 4),
    ],
)
def test_blocks_are_contiguous_spread_and_of_the_fraction(n, fraction, held, blocks):
    records = numbered(n)
    got = split(records[::-1], fraction=fraction)  # the order given does not matter
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
    records = named(*(f"{key}{i}.png" for key, n in sizes.items() for i in range(n)))
    got = split(records, fraction=0.3, group="^[a-d]")  # without a capture group: the whole match
    assert {r.name[0] for r in got.heldout} == {"b", "d"}


def test_the_group_is_searched_in_the_file_name_alone():
    got = split(named("train/good/a1.png", "train/good/b1.png"), group="^(.)")
    assert len(got.train) == len(got.heldout) == 1


@pytest.mark.parametrize(
    "options, expected",
    [
        ({"group": r"(\d)"}, r'good/x\.png: the name does not match the hold-out group "\('),
        ({"group": "(q)?x|a"}, "does not match"),  # a group that takes no part
        ({"group": r"\.png"}, r'puts all 2 images into one group, ".png"'),
        ({"group": "("}, "is no regular expression"),
        ({"fraction": 0.0}, "fraction is 0"),
        ({"fraction": 1.0}, "fraction is 1"),
    ],
)
def test_unusable_options_end_in_a_sentence(options, expected):
    with pytest.raises(UserError, match=expected):
        split(named("good/x.png", "good/a1.png"), **options)


def coordinates(height: int, width: int) -> np.ndarray:
    """An image whose three channels tell row and column (in units of 4 px and the rest)."""
    rows, columns = np.indices((height, width))
    return np.stack([rows // 4, columns // 4, rows % 4 * 4 + columns % 4], -1).astype(np.uint8)


def positions(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    image = image.astype(int)
    return image[..., 0] * 4 + image[..., 2] // 4, image[..., 1] * 4 + image[..., 2] % 4


@pytest.mark.parametrize(
    "height, width, fraction, axis, held",
    [
        (700, 1000, 0.2, 1, 200),
        (700, 1000, 0.05, 1, 128),  # at least one patch
        (1000, 700, 0.2, 0, 200),
        (500, 500, 0.3, 1, 150),
        (128, 384, 0.1, 1, 128),  # the smallest that can be cut
        (700, 1000, 0.9, 1, 744),  # training keeps at least one patch
    ],
)
def test_regions_leave_a_gap_and_share_no_pixel(height, width, fraction, axis, held):
    record = Record("000.png", partial(coordinates, height, width))
    got = split([record], fraction=fraction)
    (train,), (heldout,) = got.train, got.heldout
    training, kept = positions(train.load())[axis], positions(heldout.load())[axis]
    longer = (height, width)[axis]
    assert training.min() == 0 and kept.max() == longer - 1
    assert kept.min() - training.max() - 1 == 128
    assert kept.max() - kept.min() + 1 == held
    other = (height, width)[1 - axis]
    assert train.load().shape[1 - axis] == heldout.load().shape[1 - axis] == other
    word = ("rows", "columns")[axis]
    assert heldout.name == f"000.png[{word} {longer - held}:{longer}]"
    assert train.name == f"000.png[{word} 0:{longer - held - 128}]"
    assert got.how == f"every image's last {held} {word}, 128 px apart from the training part"
    assert_picklable(Source(got.train, got.heldout))


def test_images_too_small_to_cut_stay_in_training():
    # No patch fits the shorter side of c.
    sizes = {"a": (700, 1000), "b": (200, 383), "c": (100, 1000), "d": (800, 600)}
    got = split([sized(f"{name}.png", *size) for name, size in sizes.items()], fraction=0.2)
    assert [r.name for r in got.train] == [
        "a.png[columns 0:672]",
        "b.png",
        "c.png",
        "d.png[rows 0:512]",
    ]
    assert [r.load().shape[:2] for r in got.heldout] == [(700, 200), (160, 600)]
    assert "160 to 200 px" in got.how and "2 too small" in got.how


def test_too_few_images_end_in_a_sentence_that_helps():
    with pytest.raises(UserError, match="no good images"):
        split([])
    source = memory_source(np.zeros((3, 200, 300), np.uint8))
    with pytest.raises(UserError, match=r"3 good images.*128 px.*more images or a smaller patch"):
        split(source.train)


def test_one_image_is_cut_even_where_one_counts_as_enough():
    got = split([sized("a.png", 700, 1000)], few=1)
    assert "last" in got.how and len(got.train) == len(got.heldout) == 1
    assert got.train[0].load().base is None  # does not keep the whole image alive


def test_ball_screw_is_held_out_by_location(real_data):
    records = folder_source(real_data / "bsdata", category="ball_screw").train
    got = split(records, fraction=0.2, group=LOCATION)

    def locations(part):
        return {"_".join(r.name.split("/")[-1].split("_")[2:4]) for r in part}

    assert not locations(got.train) & locations(got.heldout)
    assert len(locations(got.train) | locations(got.heldout)) == 10
    assert len(got.heldout) >= 24 and len(got.train) + len(got.heldout) == 120
    assert all(location in got.how for location in locations(got.heldout))


def test_nanofibres_are_held_out_by_region(real_data):
    records = folder_source(real_data / "nanotwice", category="nanofibres").train
    got = split(records, fraction=0.2)
    assert [r.load().shape for r in got.train] == [(700, 1024 - 128 - 205, 1)] * 5
    assert got.how == "every image's last 205 columns, 128 px apart from the training part"
    whole = records[0].load()
    np.testing.assert_array_equal(got.heldout[0].load(), whole[:, -205:])
    np.testing.assert_array_equal(got.train[0].load(), whole[:, :691])


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
    # Five of the held-out strips make up the region, not the image.
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
