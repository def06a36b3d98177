"""Cutting and stitching of tiles: cover, weights, identity."""

import functools

import numpy as np
import pytest
from scipy import signal

from recon_ad.ops import tiles

SIZES = [((64, 64), 16), ((70, 33), 16), ((33, 100), 32), ((32, 32), 5), ((41, 57), 31)]


@pytest.mark.parametrize(("size", "stride"), SIZES)
def test_tiles_cover_every_pixel_and_stitching_them_gives_the_image_back(size, stride):
    tile = (32, 32)
    image, covered = np.random.default_rng(0).random((*size, 2), np.float32), np.zeros(size, int)
    corners = tiles.tile_corners(size, tile=tile, stride=(stride, stride))
    for row, column in corners:
        assert row + 32 <= size[0] and column + 32 <= size[1]
        covered[row : row + 32, column : column + 32] += 1
    assert covered.min() >= 1
    cut = tiles.cut(image, corners, tile=tile)
    for kind in ("uniform", "hann"):
        weights = tiles.tile_weights(tile, kind=kind)
        # About ten float32 additions and one division per pixel. At the corner of a hann tile the
        # weights are 6e-6, but numerator and denominator share them.
        stitched = tiles.stitch(iter(cut), corners, size=size, weights=weights)
        np.testing.assert_allclose(stitched, image, rtol=1e-5, err_msg=kind)


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((100, 50), None, (100, 50)),
        ((100, 50), (30, 40), (30, 40)),
        ((100, 50), (20, 0), (40, 20)),
        ((50, 101), (20, 0), (20, 40)),  # 40.4
        ((40, 101), (20, 0), (20, 51)),  # 50.5, halves round up
        ((7, 7), (16, 0), (16, 16)),
    ],
)
def test_a_shorter_side_keeps_the_aspect_ratio(size, resize, expected):
    assert tiles.resized_size(size, resize) == expected


def test_an_image_that_would_become_too_long_keeps_its_aspect_ratio_at_a_smaller_size():
    assert tiles.resized_size((1, 128), (512, 0)) == (512, 1 << 16)
    assert tiles.resized_size((3, 768), (512, 0)) == (256, 1 << 16)
    assert tiles.resized_size((10**9, 2), (512, 0)) == (1 << 16, 1)


@pytest.mark.parametrize("limit", [1, 2, 3, 12, 32])
def test_compiled_batches_are_of_few_sizes_and_at_least_three_quarters_full(limit):
    powers = {2**i for i in range(limit.bit_length()) if 2**i <= limit}
    for count in range(1, 100):
        parts = list(tiles.split(count, functools.partial(tiles.batch_for, limit=limit)))
        taken = [i for part, _ in parts for i in range(part.start, part.stop)]
        assert taken == list(range(count))
        for part, size in parts:
            assert size in powers | {limit}
            assert 4 * (part.stop - part.start) >= 3 * size
        assert len({size for _, size in parts}) <= 4


def test_nine_tiles_are_eight_and_one():
    parts = list(tiles.split(9, functools.partial(tiles.batch_for, limit=32)))
    assert parts == [(slice(0, 8), 8), (slice(8, 9), 1)]


def test_stitch_averages_with_the_weights():
    weights = np.array([[1.0, 3.0]], np.float32)
    parts = [np.full((1, 2, 1), 10, np.float32), np.full((1, 2, 1), 20, np.float32)]
    result = tiles.stitch(parts, [(0, 0), (0, 1)], size=(1, 3), weights=weights)
    np.testing.assert_allclose(result[0, :, 0], [10, (3 * 10 + 1 * 20) / 4, 20])


def test_hann_weights_peak_in_the_middle_and_unknown_ones_are_refused():
    weights = tiles.tile_weights((8, 16), kind="hann")
    # SciPy's window has its zeros at the ends; ours has them half a pixel outside.
    rows, columns = (signal.windows.hann(2 * n + 1)[1::2] for n in (8, 16))
    np.testing.assert_allclose(weights, np.outer(rows, columns), atol=1e-6)
    assert weights.min() > 0
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-6)
    assert weights[3:5, 7:9].min() == weights.max()
    with pytest.raises(ValueError, match="gauss"):
        tiles.tile_weights((8, 8), kind="gauss")
    with pytest.raises(ValueError, match="choose one of"):
        tiles.tile_weights((8, 8), kind="welch")


def test_small_images_are_mirrored_up_to_a_tile():
    image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    padded = tiles.pad_to_tile(image, tile=(8, 3))
    assert padded.shape == (8, 3, 1)
    np.testing.assert_array_equal(padded[:, 0, 0], [0, 3, 3, 0, 0, 3, 3, 0])


def test_padded_maps_say_which_pixels_are_real():
    padded, valid = tiles.pad_map(np.ones((5, 64), np.float32), multiple=64)
    assert padded.shape == valid.shape == (64, 64) and padded.sum() == 5 * 64
    assert valid[:5].all() and not valid[5:].any()


@pytest.mark.parametrize("size", [(9, 12), (7, 3), (4, 20), (1, 1)])
def test_the_border_alone_is_attenuated_and_once(size):
    values = np.ones(size, np.float32)
    tiles.attenuate_border(values, border=2, weight=0.25)
    row, column = np.indices(size)
    edge = np.minimum.reduce([row, column, size[0] - 1 - row, size[1] - 1 - column])
    np.testing.assert_array_equal(values, np.where(edge < 2, 0.25, 1))
    tiles.attenuate_border(values, border=0, weight=0.0)
    assert values.min() > 0
