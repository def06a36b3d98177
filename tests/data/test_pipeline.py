"""Patches: order, resumption and sharing between hosts; resizing."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image

from recon_ad.data.arrays import resize
from recon_ad.data.pipeline import (
    Images,
    grid_patches,
    patch_batches,
    prepared_batches,
    read_whole,
)
from recon_ad.data.source import Record
from recon_ad.errors import UserError


def gradient_image(i, height=36, width=40):
    """Return an image in which each pixel encodes its image and its position."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full((height, width), i), rows, columns], axis=-1).astype(np.uint8)


def records(n, **size):
    return [Record(f"{i}.png", functools.partial(gradient_image, i, **size)) for i in range(n)]


def with_roi(*marked, side=256):
    """Return a record whose image is bright only in its region of interest."""
    roi = np.zeros((side, side), bool)
    for place in marked:
        roi[place] = True
    image = np.where(roi, 200, 100).astype(np.uint8)[..., None]
    return Record("a.png", lambda: image, load_roi=lambda: roi)


def kept(of, *, memory_mib=10, disk_mib=0, patch_size=32):
    return Images(of, size=None, patch_size=patch_size, memory_mib=memory_mib, disk_mib=disk_mib)


def batches(images, count, **options):
    settings = {"seed": 0, "batch_size": 4, "patch_size": 32, "start": 0} | options
    source = patch_batches(images, **settings)
    return [next(source) for _ in range(count)]


def assert_equal(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def levels(values):
    return np.round(values * 255).astype(int)


@pytest.fixture(params=[(100, 0), (0, 100), (0, 0)], ids=["memory", "file", "not kept"])
def images(request):
    memory, disk = request.param
    return kept(records(5), memory_mib=memory, disk_mib=disk)


def test_batches_follow_from_the_seed_and_the_step_whoever_reads_them(images):
    whole = batches(images, 10)
    assert_equal(batches(images, 10), whole)
    other = batches(images, 5, seed=1)
    assert any((a["image"] != b["image"]).any() for a, b in zip(whole[:5], other, strict=True))
    for start in (1, 3, 7):
        assert_equal(batches(images, 10 - start, start=start), whole[start:])
    for hosts in (2, 4):  # each reads contiguous slices of the same global batch
        parts = [batches(images, 3, host=h, hosts=hosts) for h in range(hosts)]
        assert_equal(jax.tree.map(lambda *rows: np.concatenate(rows), *parts), whole[:3])
    for k, batch in enumerate(whole):
        np.testing.assert_array_equal(batch["index"], np.arange(4 * k, 4 * k + 4))


def test_patches_are_cut_unchanged_from_everywhere_and_all_images_are_seen_as_often(images):
    corners, order = set(), []
    for batch in batches(images, 12, batch_size=10):
        for patch in levels(batch["image"]):
            image, row, column = patch[0, 0]
            order.append(image)
            corners.add((row, column))
            expected = gradient_image(image)[row : row + 32, column : column + 32]
            np.testing.assert_array_equal(patch, expected)
    for found, sides in zip(np.transpose(list(corners)), (36, 40), strict=True):
        assert set(found) == set(range(sides - 32 + 1))
    rounds = np.reshape(order, (24, 5))
    assert (np.sort(rounds) == np.arange(5)).all() and len({tuple(r) for r in rounds}) > 10


def test_images_smaller_than_a_patch_are_mirrored_up_to_one():
    assert batches(kept(records(2, height=10)), 1)[0]["image"].shape == (4, 32, 32, 3)


def test_differing_channels_are_refused_by_name():
    odd = Record("gray.png", functools.partial(np.zeros, (40, 50, 1), np.uint8))
    with pytest.raises(UserError, match=r"gray\.png"):
        kept([*records(1), odd])[1]


def test_grid_patches_are_spread_over_records_and_corners_and_limited():
    patches, again = (
        grid_patches(records(40, height=96, width=96), size=None, patch_size=32, limit=40)
        for _ in range(2)
    )
    np.testing.assert_array_equal(patches, again)
    images, *corners = levels(patches[:, 0, 0]).T
    assert sorted(images) == list(range(40))
    assert set(zip(*corners, strict=True)) == {(r, c) for r in (0, 32, 64) for c in (0, 32, 64)}
    few = grid_patches(records(4, height=64, width=96), size=None, patch_size=32, limit=8)
    assert few.shape == (8, 32, 32, 3) and set(levels(few[:, 0, 0, 0])) == {0, 1, 2, 3}


def test_resize_agrees_with_pillow_on_8_bits_and_keeps_constants():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR))
    # Pillow rounds to 8 bits, also between its two passes.
    np.testing.assert_allclose(resize(image, (20, 30)) * 255, expected, atol=1.01)
    constant = np.full((33, 57, 2), 0.3, np.float32)
    np.testing.assert_allclose(resize(constant, (64, 64)), 0.3, rtol=1e-6)
    assert resize(image, None) is image


def test_a_set_larger_than_either_cache_is_not_decoded_in_vain():
    decoded = []

    def load(i):
        decoded.append(i)
        return np.zeros((512, 1024, 2), np.uint8)  # 1 MiB

    many = [Record(str(i), functools.partial(load, i)) for i in range(30)]
    kept(many, memory_mib=2, disk_mib=15)
    assert len(decoded) < 10  # two for size and channels, three that filled the memory
    decoded.clear()
    images = kept(many, memory_mib=2, disk_mib=60)
    assert images[7].image.base is not None and len(decoded) == 35
    images[7].image[0, 0]
    assert len(decoded) == 35


def test_patches_lie_in_the_region_of_interest_by_half_or_more():
    record = with_roi(np.s_[64:192, 96:224])
    for batch in batches(kept([record], patch_size=64), 20, patch_size=64):
        assert ((batch["image"] > 0.5).mean(axis=(1, 2, 3)) >= 0.5).all()
    grid = grid_patches([record], size=None, patch_size=64, limit=16)
    assert len(grid) == 6 and ((grid > 0.5).mean(axis=(1, 2, 3)) >= 0.5).all()
    everywhere = [record._replace(load_roi=None)]
    assert len(grid_patches(everywhere, size=None, patch_size=64, limit=16)) == 16


@pytest.mark.parametrize("side", [10, 32, 64, 100, 200])
def test_patches_are_found_in_a_region_of_any_size(side):
    """Find patches in a small region, which uniform draws over the image would mostly miss."""
    record = with_roi(np.s_[150 : 150 + side, 250 : 250 + side], side=512)
    seen = batches(kept([record], patch_size=64), 10, patch_size=64)
    shares = np.array([(b["image"] > 0.5).mean(axis=(1, 2, 3)) for b in seen])
    assert shares.min() > (0 if side >= 64 else 0.5 * side**2 / 64**2)
    assert (shares >= 0.5).mean() > 0.98 or side < 64


def test_a_region_of_two_far_corners_is_drawn_from_evenly():
    record = with_roi(np.s_[:8, :8], np.s_[-8:, -8:], side=1024)
    seen = np.concatenate([b["image"] for b in batches(kept([record]), 5)])
    assert (seen > 0.5).any(axis=(1, 2, 3)).all()


def test_a_region_is_resized_with_its_image():
    record = with_roi(np.s_[:, :64], side=128)
    whole = read_whole(record, size=(64, 32), patch_size=64)
    assert whole.image.shape == (64, 64, 1) and whole.roi.shape == (64, 64)
    np.testing.assert_array_equal(whole.roi[0, :32], np.arange(32) < 16)


def test_a_region_too_small_or_lost_in_resizing_is_named():
    with pytest.raises(UserError, match="no patch of the held-out images lies in its region"):
        grid_patches([with_roi(np.s_[60:70, 60:70])], size=None, patch_size=64, limit=4)
    dot = with_roi(np.s_[3, 3], side=512)
    with pytest.raises(UserError, match=r"a\.png: nothing is left of its region of interest"):
        read_whole(dot, size=(64, 64), patch_size=32)


def test_tiles_of_inference_take_the_place_of_images():
    marked = with_roi(np.s_[:40, 70:], side=128)
    marked = marked._replace(load=lambda: np.zeros((128, 128, 3), np.uint8))
    of = [*records(2, height=64, width=80), marked]
    images = Images(of, size=None, patch_size=64, memory_mib=10, disk_mib=0, tiled=True)
    # Two images of 64 × 80 px, and a square whose region of interest leaves one tile.
    assert images.numbers.tolist() == [0, 0, 1, 1, 2] and (len(images), images.images) == (5, 3)
    first = images[0].image
    np.testing.assert_array_equal(first, of[0].load()[:, :64])
    np.testing.assert_array_equal(images[3].image, of[1].load()[:, 16:])
    assert [images[i].number for i in range(5)] == [0, 0, 1, 1, 2]
    found = batches(images, 2, batch_size=5, patch_size=64)
    for batch in found:
        assert sorted(batch["number"].tolist()) == [0, 0, 1, 1, 2]
    rows = [np.array([i]) for i in range(5)]
    prepared = prepared_batches(rows, numbers=images.numbers, seed=0, batch_size=5, start=0)
    for batch in found:
        other = next(prepared)
        assert other["number"].tolist() == batch["number"].tolist()
        assert images.numbers[other["prepared"][:, 0]].tolist() == batch["number"].tolist()


def test_tiles_are_the_same_where_images_are_not_kept():
    of = records(3, height=40, width=100)
    each = [
        Images(of, size=None, patch_size=40, memory_mib=memory, disk_mib=0, tiled=True)
        for memory in (10, 0)
    ]
    assert len(each[0]) == len(each[1]) == 9
    for i in range(9):
        np.testing.assert_array_equal(each[0][i].image, each[1][i].image)
