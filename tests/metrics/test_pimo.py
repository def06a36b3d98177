"""AUPIMO against its definition, image by image from raw scores, and the error of its bins."""

import time

import numpy as np
import pytest
from helpers import metrics_reference as reference

from recon_ad import metrics
from recon_ad.metrics.segmentation import coarsen

# Few pixels, and therefore high rates: the loops are over all thresholds.
RANGE = (0.004, 0.2)
QUADRATURE = 1e-10  # 20 nodes on exp over at most log(50): the error is below 1e-14 per line


def _images(seed, *, tied=False, n=8):
    """Draw maps and truths, the first half of them good."""
    rng = np.random.default_rng(seed)
    truths = np.zeros((n, 14, 15), bool)
    for truth in truths[n // 2 :]:
        row, column = rng.integers(0, 9, 2)
        truth[row : row + 5, column : column + 4] = True
    maps = rng.normal(size=truths.shape) + truths * rng.normal(2, 1, (n, 1, 1))
    return (np.round(maps) if tied else maps).astype(np.float32), truths


def _histograms(maps, truths, valid=None, bits=32):
    valid = [None] * len(maps) if valid is None else valid
    histograms = [
        metrics.image_histogram(m, t, valid=v, bits=bits)
        for m, t, v in zip(maps, truths, valid, strict=True)
    ]
    return (
        [h for h, t in zip(histograms, truths, strict=True) if not t.any()],
        [h for h, t in zip(histograms, truths, strict=True) if t.any()],
    )


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_of_exact_scores_it_is_the_mean_area_of_the_images(seed, tied):
    maps, truths = _images(seed, tied=tied)
    ours = metrics.aupimo(*_histograms(maps, truths), fpr_range=RANGE)
    assert ours == pytest.approx(reference.aupimo(maps, truths, *RANGE), abs=QUADRATURE)
    assert metrics.aupimo_bound(*_histograms(maps, truths), fpr_range=RANGE) == 0
    assert 0.05 < ours < 0.95


def test_each_good_image_counts_alike_however_much_of_it_counts():
    maps, truths = _images(5)
    rng = np.random.default_rng(5)
    valid = rng.random(truths.shape) < np.linspace(0.1, 1, len(maps))[::-1, None, None]
    valid[0] = False  # no pixel of it counts
    valid[-1] &= ~truths[-1]  # its defect does not count
    maps[1] += 2
    maps[~valid] = np.nan
    ours = metrics.aupimo(*_histograms(maps, truths, valid), fpr_range=RANGE)
    expected = reference.aupimo(maps, truths, *RANGE, valid)
    assert ours == pytest.approx(expected, abs=QUADRATURE)
    # Pooled pixels would give another value.
    sizes = [h.normal.sum() for h in _histograms(maps, truths, valid)[0]]
    assert max(sizes) > 1.3 * min(size for size in sizes if size)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bits", [9, 12, 16, 22])
def test_binned_it_is_within_its_bound(bits, tied):
    for seed in range(6):
        maps, truths = _images(seed, tied=tied)
        exact = metrics.aupimo(*_histograms(maps, truths), fpr_range=RANGE)
        parts = _histograms(maps, truths, bits=bits)
        # The stored form: some histograms are coarser than others.
        parts[0][0] = coarsen(parts[0][0], bits=max(9, bits - 2))
        binned = metrics.aupimo(*parts, fpr_range=RANGE)
        bound = metrics.aupimo_bound(*parts, fpr_range=RANGE)
        assert abs(binned - exact) <= bound + 1e-12 <= 1
        assert bits < 22 or bound < 0.01


def test_the_bound_is_reached_where_one_bin_hides_the_order():
    truths = np.zeros((2, 10, 10), bool)
    truths[1, :5] = True
    ulp = 2.0**-23  # of a float32 in [1, 2): all scores are in one bin of 22 bits
    for sign in (1, -1):
        maps = 1 + (200 + sign * np.where(truths, 100, np.arange(100).reshape(10, 10))) * ulp
        maps = maps.astype(np.float32)
        exact = metrics.aupimo(*_histograms(maps, truths), fpr_range=(0.01, 1.0))
        binned = metrics.aupimo(*_histograms(maps, truths, bits=22), fpr_range=(0.01, 1.0))
        bound = metrics.aupimo_bound(*_histograms(maps, truths, bits=22), fpr_range=(0.01, 1.0))
        assert exact == pytest.approx(1 if sign > 0 else 0, abs=1e-9)
        # The metric is the line's area: (1 - 0.01) / log(100).
        assert binned == pytest.approx(0.99 / np.log(100), abs=1e-12)
        assert bound == pytest.approx(max(binned, 1 - binned), abs=1e-12)


def test_scale_and_pixels_far_below_change_nothing():
    maps, truths = _images(3)
    parts = _histograms(maps, truths)
    expected = metrics.aupimo(*parts, fpr_range=RANGE)
    assert metrics.aupimo(*_histograms(maps * 1024, truths), fpr_range=RANGE) == expected
    # Good pixels of defective images do not matter, so a rough truth costs nothing.
    rough = np.where(truths.any((1, 2), keepdims=True) & ~truths, 99, maps).astype(np.float32)
    assert metrics.aupimo(*_histograms(rough, truths), fpr_range=RANGE) == expected
    # Completely separated.
    apart = np.where(truths, 99, maps).astype(np.float32)
    assert metrics.aupimo(*_histograms(apart, truths), fpr_range=RANGE) == pytest.approx(1)


def test_what_cannot_be_resolved_says_why():
    good, defective = _histograms(*_images(0))
    assert sum(h.normal.sum() for h in good) == 840
    for parts, says in (
        (([], defective), "no good images"),
        ((good, []), "no defective images"),
        ((good, good), "no defective images"),
        ((good, defective), "840 pixels, fewer than the 100,000 .* rate of 1e-05"),
    ):
        for figure in (metrics.aupimo, metrics.aupimo_bound):
            with pytest.raises(metrics.UndefinedMetric, match=says):
                figure(*parts)
    metrics.aupimo(good, defective, fpr_range=(1 / 840, 0.5))  # exactly one
    for wrong in ((0.0, 0.1), (0.2, 0.1), (0.1, 1.1)):
        with pytest.raises(ValueError, match="two ascending rates"):
            metrics.aupimo(good, defective, fpr_range=wrong)


def test_a_hundred_images_take_no_time():
    rng = np.random.default_rng(0)
    truth = np.zeros((256, 256), bool)
    truth[100:130, 90:140] = True
    parts = [
        [
            metrics.compact(metrics.image_histogram(values + 2 * mask, mask))
            for values in rng.standard_normal((10, *truth.shape), np.float32) ** 2
        ]
        * 5
        for mask in (truth & False, truth)
    ]
    begin = time.perf_counter()
    figure, bound = metrics.aupimo(*parts), metrics.aupimo_bound(*parts)
    assert time.perf_counter() - begin < 1  # some hundredths of a second
    assert 0 < figure < 1 and bound < 0.02
