"""Order, resumption and sharing of patches; resizing."""

import functools

import numpy as np
import pytest
from PIL import Image

from recon_ad.data.arrays import resize, to_unit
from recon_ad.data.pipeline import Images, grid_patches, patch_batches, read_whole
from recon_ad.data.source import Record
from recon_ad.errors import UserError


def gradient_image(i, height=40, width=50):
    """Each pixel says which image it is of, and where it lies."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([np.full((height, width), i), rows, columns], axis=-1).astype(np.uint8)


def records(n, **size):
    return [Record(f"{i}.png", functools.partial(gradient_image, i, **size)) for i in range(n)]


def batches(images, count, **options):
    settings = {"seed": 0, "batch_size": 4, "patch_size": 32, "start": 0} | options
    source = patch_batches(images, **settings)
    return [next(source) for _ in range(count)]


KEPT = {"in memory": (100, 0), "in a file": (0, 100), "decoded at each access": (0, 0)}


@pytest.fixture(params=KEPT)
def images(request):
    return Images(
        records(5),
        size=None,
        patch_size=32,
        memory_mib=KEPT[request.param][0],
        disk_mib=KEPT[request.param][1],
    )


def test_batches_are_the_same_again_and_differ_with_the_seed(images):
    once, again, other = batches(images, 5), batches(images, 5), batches(images, 5, seed=1)
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
    assert any((a["image"] != b["image"]).any() for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("start", [1, 3, 7])
def test_starting_later_gives_the_later_batches(images, start):
    whole, rest = batches(images, 10), batches(images, 10 - start, start=start)
    for a, b in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(a["index"], b["index"])
        np.testing.assert_array_equal(a["image"], b["image"])


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_read_contiguous_slices_of_the_same_global_batch(images, hosts):
    whole = batches(images, 4)
    parts = [batches(images, 4, host=h, hosts=hosts) for h in range(hosts)]
    for k, batch in enumerate(whole):
        np.testing.assert_array_equal(batch["index"], np.arange(4 * k, 4 * k + 4))
        for name in batch:
            together = np.concatenate([part[k][name] for part in parts])
            np.testing.assert_array_equal(together, batch[name])


def test_patches_are_cut_from_the_image_unchanged_and_everywhere(images):
    rows, columns = set(), set()
    for batch in batches(images, 60):
        for patch in np.round(batch["image"] * 255).astype(int):
            row, column = patch[0, 0, 1:]
            rows.add(row)
            columns.add(column)
            expected = gradient_image(patch[0, 0, 0])[row : row + 32, column : column + 32]
            np.testing.assert_array_equal(patch, expected)
    assert rows == set(range(40 - 32 + 1))
    assert columns == set(range(50 - 32 + 1))


def test_every_image_is_seen_equally_often_in_changing_order(images):
    seen = np.concatenate([np.round(b["image"][:, 0, 0, 0] * 255) for b in batches(images, 25)])
    rounds = seen.reshape(20, 5)
    assert all(sorted(r) == [0, 1, 2, 3, 4] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 10


def test_images_smaller_than_a_patch_are_mirrored_up_to_one():
    small = Images(records(2, height=10), size=None, patch_size=32, memory_mib=10, disk_mib=0)
    assert batches(small, 1)[0]["image"].shape == (4, 32, 32, 3)


def test_differing_channels_are_refused_by_name():
    odd = Record("gray.png", functools.partial(np.zeros, (40, 50, 1), np.uint8))
    with pytest.raises(UserError, match=r"gray\.png"):
        images = Images([*records(1), odd], size=None, patch_size=32, memory_mib=10, disk_mib=0)
        images[1]


def test_grid_patches_are_spread_over_the_records_and_limited():
    patches = grid_patches(records(4, height=64, width=96), size=None, patch_size=32, limit=8)
    assert patches.shape == (8, 32, 32, 3)
    assert set(np.round(patches[:, 0, 0, 0] * 255)) == {0, 1, 2, 3}
    again = grid_patches(records(4, height=64, width=96), size=None, patch_size=32, limit=8)
    np.testing.assert_array_equal(patches, again)


def test_grid_patches_of_many_records_are_not_all_of_one_corner():
    many = grid_patches(records(40, height=96, width=96), size=None, patch_size=32, limit=40)
    assert {tuple(p) for p in np.round(many[:, 0, 0, 1:] * 255).astype(int)} == {
        (r, c) for r in (0, 32, 64) for c in (0, 32, 64)
    }


def test_uint8_and_float_images_mean_the_same():
    eight = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    unit = to_unit(eight)
    assert unit.dtype == np.float32
    assert unit.min() == 0
    assert unit.max() == 1
    np.testing.assert_array_equal(to_unit(unit), unit)


def test_resize_agrees_with_pillow_on_8_bits_and_keeps_constants():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((30, 20), Image.Resampling.BILINEAR))
    # Pillow rounds to 8 bits, also between its two passes.
    np.testing.assert_allclose(resize(image, (20, 30)) * 255, expected, atol=1.01)
    constant = np.full((33, 57, 2), 0.3, np.float32)
    np.testing.assert_allclose(resize(constant, (64, 64)), 0.3, rtol=1e-6)
    assert resize(image, None) is image


def test_a_set_larger_than_either_cache_is_not_decoded_in_vain(monkeypatch):
    decoded = []

    def load(i):
        decoded.append(i)
        return np.zeros((512, 1024, 2), np.uint8)  # 1 MiB

    many = [Record(str(i), functools.partial(load, i)) for i in range(100)]
    Images(many, size=None, patch_size=32, memory_mib=2, disk_mib=50)
    assert (
        len(decoded) < 10
    )  # two of the hundred for size and channels, three that filled the memory
    decoded.clear()
    images = Images(many, size=None, patch_size=32, memory_mib=2, disk_mib=200)
    assert images[7].image.base is not None and len(decoded) == 105
    images[7].image[0, 0]
    assert len(decoded) == 105


def with_roi(roi):
    image = np.where(roi, 200, 100).astype(np.uint8)[..., None]
    return Record("a.png", lambda: image, load_roi=lambda: roi)


def test_patches_lie_in_the_region_of_interest_by_half_or_more(tmp_path):
    roi = np.zeros((256, 256), bool)
    roi[64:192, 96:224] = True
    images = Images([with_roi(roi)], size=None, patch_size=64, memory_mib=10, disk_mib=0)
    for batch in batches(images, 20):
        assert ((batch["image"] > 0.5).mean(axis=(1, 2, 3)) >= 0.5).all()
    grid = grid_patches([with_roi(roi)], size=None, patch_size=64, limit=16)
    assert len(grid) == 6 and ((grid > 0.5).mean(axis=(1, 2, 3)) >= 0.5).all()
    everywhere = grid_patches(
        [with_roi(roi)._replace(load_roi=None)], size=None, patch_size=64, limit=16
    )
    assert len(everywhere) == 16


def test_a_region_too_small_for_any_patch_is_named():
    roi = np.zeros((256, 256), bool)
    roi[60:70, 60:70] = True
    with pytest.raises(UserError, match="no patch of the held-out images lies in its region"):
        grid_patches([with_roi(roi)], size=None, patch_size=64, limit=4)


def test_a_region_is_resized_with_its_image():
    roi = np.zeros((128, 128), bool)
    roi[:, :64] = True
    whole = read_whole(with_roi(roi), size=(64, 32), patch_size=64)
    assert whole.image.shape == (64, 64, 1) and whole.roi.shape == (64, 64)
    np.testing.assert_array_equal(whole.roi[0, :32], np.arange(32) < 16)


@pytest.mark.parametrize("side", [20, 64, 128, 200, 400])
def test_patches_are_found_in_a_region_of_any_size(side):
    """Uniform draws over the image would miss a small one most of the time."""
    roi = np.zeros((1024, 1024), bool)
    roi[300 : 300 + side, 700 : 700 + side] = True
    images = Images([with_roi(roi)], size=None, patch_size=128, memory_mib=10, disk_mib=0)
    shares = np.array([(b["image"] > 0.5).mean(axis=(1, 2, 3)) for b in batches(images, 10)])
    assert shares.min() > 0
    if side >= 128:
        assert (shares >= 0.5).mean() > 0.98
    else:
        assert shares.min() > 0.5 * side**2 / 128**2


def test_a_region_of_two_far_corners_is_drawn_from_evenly():
    roi = np.zeros((1024, 1024), bool)
    roi[:8, :8] = roi[-8:, -8:] = True
    images = Images([with_roi(roi)], size=None, patch_size=32, memory_mib=10, disk_mib=0)
    assert all((b["image"] > 0.5).any(axis=(1, 2, 3)).all() for b in batches(images, 5))


def test_a_region_that_is_lost_in_resizing_is_named():
    roi = np.zeros((512, 512), bool)
    roi[3, 3] = True
    with pytest.raises(UserError, match=r"a\.png: nothing is left of its region of interest"):
        read_whole(with_roi(roi), size=(64, 64), patch_size=32)
