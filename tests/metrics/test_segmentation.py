"""Segmentation metrics from histograms of pixels, against their definitions."""

import tracemalloc

import jaxtyping
import numpy as np
import pytest
from helpers import metrics_reference as reference
from sklearn import metrics as sklearn_metrics

from recon_ad import metrics
from recon_ad.metrics import segmentation

ROUNDING = 1e-12  # for sums of a few hundred terms; values are of order 1
ULP = 2.0**-23  # of a float32 in [1, 2): a bin of 22 bits has 1024 of these, one of 16 bits 65536


def _cases():
    random = np.random.default_rng(0)
    # Several regions, a diagonal that is one region, and an image without a defect.
    truths = np.zeros((3, 8, 9), bool)
    truths[0, 1:3, 1:4] = truths[0, 5, 6] = True
    truths[1, [2, 3, 4], [5, 6, 7]] = True  # connected only at corners
    truths[1, 7, 0:3] = True
    shape = truths.shape
    noise = random.normal(size=shape)
    rank = random.permutation(truths.size).reshape(shape)
    cases = {
        "uniform": random.random(shape) + 0.3 * truths,
        "negative": noise + truths - 5,
        "mixed_signs": noise + truths,
        "wide_range": np.exp(20 * noise + 10 * truths) * np.where(noise > 0, 1, -1),
        "tied": np.round(noise + truths),
        "two_scores": (noise > 1) | (truths & (noise > 0)),
        "constant": np.full(shape, 0.25),
        "both_zeros": np.where(noise > 0, 0.0, -0.0),
        "denormal": (rank + 200 * truths) * 2.0**-149,
        "denormal_both_signs": (rank - 100) * 2.0**-149,
        "largest": np.finfo(np.float32).max * np.sign(noise),
        "perfect": rank + 1000.0 * truths,
        "inverted": rank - 1000.0 * truths,
        "one_bin_interleaved": 1 + rank * ULP,
        "one_bin_perfect": 1 + (rank + 216 * truths) * ULP,
        "one_bin_inverted": 1 + (rank + 216 * ~truths) * ULP,
        "one_bin_anomalous_tie_on_top": 1 + np.where(truths, 500, rank) * ULP,
        "one_bin_normal_tie_on_top": 1 + np.where(truths, rank, 500) * ULP,
        "one_negative_bin": -1 - (rank + 216 * truths) * ULP,
        "few_bins": 1 + (rank * 37 + 900 * truths) * ULP,
        "coarse_bins": 1 + (rank * 1500 + 90000 * truths) * ULP,
    }
    return {name: (maps.astype(np.float32), truths) for name, maps in cases.items()}


CASES = _cases()
EACH_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def _images(maps, truths, bits=segmentation.BITS):
    return [metrics.image_histogram(m, t, bits=bits) for m, t in zip(maps, truths, strict=True)]


def _histogram(maps, truths, bits=segmentation.BITS):
    return metrics.merge(*_images(maps, truths, bits))


def _assert_equal(ours, theirs, rtol=0.0):
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol)


def _exact(maps, truths, limit):
    # In float64, because scikit-learn sums the scores to find a NaN.
    scores, labels = maps.ravel().astype(np.float64), truths.ravel()
    return {
        "auroc": sklearn_metrics.roc_auc_score(labels, scores),
        "ap": sklearn_metrics.average_precision_score(labels, scores),
        "f1": reference.f1_max(maps, truths),
        "iou": reference.iou_max(maps, truths)[0],
        "aupro": reference.aupro(maps, truths, limit),
        "recall": reference.iou_max(maps, truths)[2],
    }


def _binned(histogram, limit):
    """Return (value, bound) by the name of the metric."""
    counts, pro = histogram.levels(), {"fpr_limit": limit}
    return {
        "auroc": (metrics.auroc(counts), metrics.auroc_bound(counts)),
        "ap": (metrics.average_precision(counts), metrics.average_precision_bound(counts)),
        "f1": (metrics.f1_max(counts)[0], metrics.f1_max_bound(counts)),
        "iou": (metrics.iou_max(counts)[0], metrics.iou_max_bound(counts)),
        "aupro": (metrics.aupro(histogram, **pro), metrics.aupro_bound(histogram, **pro)),
        "recall": (metrics.iou_max(counts)[2], metrics.recall_bound(counts)),
    }


def _assert_within_bounds(maps, truths, bits, limit):
    exact = _exact(maps, truths, limit)
    for name, (figure, bound) in _binned(_histogram(maps, truths, bits), limit).items():
        assert 0 <= bound <= 1 and 0 <= figure <= 1 + ROUNDING, name
        assert abs(figure - exact[name]) <= bound + ROUNDING, (name, figure, exact[name], bound)
        if name in ("f1", "iou"):
            assert figure <= exact[name] + ROUNDING, name


@EACH_CASE
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_all_32_bits_give_the_exact_figures(case, limit):
    maps, truths = case
    exact = _exact(maps, truths, limit)
    for name, (figure, _) in _binned(_histogram(maps, truths, 32), limit).items():
        assert figure == pytest.approx(exact[name], abs=ROUNDING), name


@EACH_CASE
@pytest.mark.parametrize("bits", [9, 16, 22, 26])
def test_binned_figures_are_within_their_bounds(case, bits):
    _assert_within_bounds(*case, bits, 0.3)


@pytest.mark.parametrize("bits", [9, 16, 22])
def test_where_all_scores_of_a_bin_tie_figures_are_exact(bits):
    random = np.random.default_rng(0)
    truths = np.zeros((3, 20, 30), bool)
    truths[:, 4:8, 5:15] = True
    maps = np.where(random.random(truths.shape) < np.where(truths, 0.6, 0.1), 3.7, 0.2)
    maps = maps.astype(np.float32)  # saturated at one value, and at another elsewhere
    exact = _exact(maps, truths, 0.3)
    for name, (figure, bound) in _binned(_histogram(maps, truths, bits), 0.3).items():
        assert bound == pytest.approx(0, abs=ROUNDING) and figure == pytest.approx(exact[name])
    # One pixel that differs in its last bits makes its bin uncertain again.
    maps[0, 0, 0] = np.nextafter(np.float32(3.7), np.float32(4))
    bounds = {name: b for name, (_, b) in _binned(_histogram(maps, truths, bits), 0.3).items()}
    assert all(bound > 0 for bound in bounds.values()), bounds


@pytest.mark.parametrize("seed", range(40))
def test_bounds_hold_on_small_random_images(seed):
    random = np.random.default_rng(seed)
    truths = random.random((2, 4, 5)) < random.choice([0.1, 0.4, 0.7])
    truths[0, 0, :2] = True, False
    spread = random.choice([1e-5, 0.01, 1, 30])
    maps = np.exp(spread * (random.normal(size=truths.shape) + random.normal() * truths))
    maps = np.minimum(maps, 1e38).astype(np.float32)
    if seed % 2:  # with scores that tie at the ends
        maps = np.clip(maps, *np.quantile(maps, [random.choice([0, 0.4]), random.choice([0.6, 1])]))
        maps = maps.astype(np.float32)
    for bits in (9, 10, 13, 16, 22):
        _assert_within_bounds(maps, truths, bits, random.choice([0.05, 0.3, 0.77, 1.0]))


@pytest.mark.parametrize("name", ["one_bin_perfect", "one_bin_inverted"])
def test_bound_is_reached_when_one_bin_hides_the_whole_order(name):
    maps, truths = CASES[name]
    exact, binned = _exact(maps, truths, 1.0), _binned(_histogram(maps, truths, 22), 1.0)
    assert binned["auroc"] == (0.5, 0.5)
    for figure, (value, bound) in binned.items():
        assert bound > 0.1, figure
        if name == "one_bin_perfect" and figure != "recall":
            assert exact[figure] == pytest.approx(value + bound, abs=1e-9), figure


def test_average_precision_bound_is_nearly_reached_from_below():
    # The midpoint rule in the bound costs a little; more than 2 % would be a mistake in the bound.
    scores = (1 + np.arange(400) * ULP).astype(np.float32)
    labels = np.arange(400) < 300  # one bin, in which they follow ten of the normal ones
    scores[310:] += 1  # and ninety normal ones above it
    counts = metrics.image_histogram(scores[None], labels[None]).levels()
    exact = sklearn_metrics.average_precision_score(labels, scores)
    missed = metrics.average_precision(counts) - exact
    bound = metrics.average_precision_bound(counts)
    assert bound == pytest.approx(missed, rel=0.02) and bound >= missed > 0.1


@EACH_CASE
@pytest.mark.parametrize("bits", [9, 16, 22, 32])
def test_a_levels_score_picks_exactly_its_bins(case, bits):
    maps, truths = case
    counts = _histogram(maps, truths, bits).levels()
    assert np.isfinite(counts.score).all()
    for items, number in ((maps[~truths], counts.normal), (maps[truths], counts.anomalous)):
        picked = (items >= counts.score[:, None]).sum(1)
        np.testing.assert_array_equal(picked, np.cumsum(number))


@EACH_CASE
def test_iou_and_recall_are_reached_at_the_threshold(case):
    maps, truths = case
    iou, threshold, recall = found = metrics.iou_max(_histogram(maps, truths).levels())
    if maps is CASES["tied"][0]:  # its bins are exact
        assert found == pytest.approx(reference.iou_max(maps, truths), abs=ROUNDING)
    called = maps >= np.float32(threshold)
    assert iou == pytest.approx((called & truths).sum() / (called | truths).sum(), abs=ROUNDING)
    assert recall == pytest.approx((called & truths).sum() / truths.sum(), abs=ROUNDING)


@pytest.mark.parametrize("name", ["wide_range", "tied", "denormal"])
def test_merged_parts_in_any_order_are_one_pass(name):
    maps, truths = CASES[name]
    first, second, third = _images(maps, truths)
    expected = metrics.merge(first, second, third)
    for merged in (
        metrics.merge(third, metrics.merge(second, first)),
        metrics.merge(metrics.merge(second, third), metrics.empty_histogram(), first),
    ):
        _assert_equal(merged[:4], expected[:4])
        np.testing.assert_allclose(merged.overlap, expected.overlap, rtol=1e-14)
    assert expected.normal.sum() == (~truths).sum() and expected.anomalous.sum() == truths.sum()
    assert expected.overlap.sum() == pytest.approx(4)  # regions; the diagonal is one of them


def test_a_change_of_scale_changes_nothing():
    maps, truths = CASES["uniform"]
    expected, larger = (_binned(_histogram(m, truths), 0.3) for m in (maps, maps * 1024))
    assert expected == larger


@EACH_CASE
def test_pro_curve_encloses_the_area_and_thins(case):
    histogram = _histogram(*case)
    fpr, pro = metrics.pro_curve(histogram)
    area = metrics.aupro(histogram, fpr_limit=1.0)
    assert np.trapezoid(pro, fpr) == pytest.approx(area, abs=ROUNDING)
    thinned = np.stack(metrics.pro_curve(histogram, max_points=5), axis=1)
    assert len(thinned) <= 5 and thinned[0].tolist() == [0, 0] and thinned[-1].tolist() == [1, 1]


def test_pixels_left_out_count_nowhere_and_do_not_cut_regions():
    random = np.random.default_rng(5)
    truth = np.zeros((6, 9), bool)
    truth[1, 1:8] = truth[4, 0] = truth[4, 8] = True
    anomaly_map = random.random((6, 9), dtype=np.float32)
    valid = np.ones((6, 9), bool)
    valid[:, 4] = False  # through the long region
    valid[4, 0] = False  # all of a region
    anomaly_map[~valid] = np.nan
    histogram = metrics.image_histogram(anomaly_map, truth, valid=valid)
    assert histogram.anomalous.sum() == 7 and histogram.normal.sum() == 54 - 9 - 6 + 1
    # Two regions, with 6 pixels and 1.
    assert histogram.overlap.sum() == pytest.approx(2)
    nothing = metrics.image_histogram(anomaly_map, truth, valid=valid & False)
    assert len(nothing.key) == 0
    _assert_equal(metrics.merge(nothing, histogram), histogram)
    assert set(np.round(histogram.overlap[histogram.anomalous == 1], 9)) == {1.0, round(1 / 6, 9)}


def test_wider_floats_are_rounded_to_float32():
    maps, truths = CASES["mixed_signs"]
    _assert_equal(
        _histogram(maps.astype(np.float64) * (1 + 1e-9), truths), _histogram(maps, truths)
    )


@pytest.mark.parametrize(
    ("truth", "reason"), [(False, "no anomalous pixels"), (True, "no normal pixels")]
)
@pytest.mark.parametrize("figure", [metrics.aupro, metrics.aupro_bound, metrics.pro_curve])
def test_region_figures_without_both_classes_say_which_is_missing(figure, truth, reason):
    histogram = metrics.image_histogram(np.ones((3, 3), np.float32), np.full((3, 3), truth))
    with pytest.raises(metrics.UndefinedMetric, match=f"^{reason}$"):
        figure(histogram)


def test_memory_is_bounded_by_the_bins_and_compact_by_its_limit():
    random = np.random.default_rng(6)
    maps = random.integers(0, 2**32, (8, 64, 64), dtype=np.uint32).view(np.float32)
    maps = np.where(np.isfinite(maps), maps, 0).astype(np.float32)  # values of all magnitudes
    truths = random.random(maps.shape) < 0.1
    assert len(_histogram(maps, truths, 12).key) <= 2**12
    fine = _histogram(maps, truths)
    assert len(fine.key) > 30_000
    for max_bins in (512, 2048):
        small = metrics.compact(fine, max_bins=max_bins)
        assert max_bins / 4 < len(small.key) <= max_bins
        assert small.anomalous.sum() == truths.sum()
        assert small.overlap.sum() == pytest.approx(fine.overlap.sum())
    # The resolution is halved until there are few enough bins.
    bins = _map(*(1 + np.arange(600) * 2.0**-13))  # of 22 bits in [1, 2)
    histogram = metrics.image_histogram(bins, bins < 0)
    for max_bins, kept, bits in ((600, 600, 22), (599, 300, 21)):
        small = metrics.compact(histogram, max_bins=max_bins)
        assert (len(small.key), small.bits) == (kept, bits)


def _map(*values):
    return np.array([values], np.float64)


CALM, FEW = np.zeros((4, 4), np.float32), _histogram(*CASES["uniform"])
MISTAKES = [
    ("the same bits", lambda: metrics.merge(FEW, _histogram(*CASES["uniform"], 16))),
    ("the same bits", metrics.merge),
    ("not 33", lambda: metrics.empty_histogram(bits=33)),
    ("not 8", lambda: metrics.image_histogram(CALM, CALM > 0, bits=8)),
    ("not 23", lambda: segmentation.coarsen(FEW, bits=23)),
    ("not 511", lambda: metrics.compact(FEW, max_bins=511)),
    ("fpr_limit", lambda: metrics.aupro(FEW, fpr_limit=0.0)),
    ("fpr_limit", lambda: metrics.aupro(FEW, fpr_limit=1.1)),
    *(
        ("1 of 2 scores", lambda bad=bad: metrics.image_histogram(_map(bad, 0), _map(0, 1) > 0))
        for bad in (np.nan, np.inf, -np.inf, 1e39)
    ),
    ("3 scores but 2 labels", lambda: metrics.levels(np.zeros(3), np.zeros(2, bool))),
    (r"\(4, 4\) and truth mask \(1, 1\)", lambda: metrics.image_histogram(CALM, _map(0) > 0)),
    (
        r"\(4, 4\) and valid mask \(1, 1\)",
        lambda: metrics.image_histogram(CALM, CALM > 0, valid=_map(1) > 0),
    ),
]


@pytest.mark.parametrize(("says", "call"), MISTAKES)
def test_mistakes_are_refused_where_types_are_not_checked_too(monkeypatch, says, call):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=says):
        call()


def test_coarsened_is_binned_coarsely():
    maps, truths = CASES["wide_range"]
    ours = segmentation.coarsen(_histogram(maps, truths), bits=12)
    _assert_equal(ours, _histogram(maps, truths, 12), rtol=1e-14)


def test_large_images_are_counted_in_blocks_and_forgotten():
    truth = np.zeros((3000, 2000), bool)
    truth[1000:1400, 500:1400] = True  # in two blocks of rows
    residual = np.random.default_rng(7).standard_normal(truth.shape, np.float32) ** 2
    residual[truth] *= 3
    total, peaks = metrics.empty_histogram(), []
    tracemalloc.start()
    for _ in range(4):
        total = metrics.merge(total, metrics.image_histogram(residual, truth))
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
    tracemalloc.stop()
    assert peaks[3] < peaks[1] + 1
    assert peaks[3] < 100  # MiB, of which 23 are the regions; one block would take 300
    assert total.normal.sum() + total.anomalous.sum() == 4 * truth.size
    np.testing.assert_allclose(total.overlap, total.anomalous / truth.sum(), rtol=1e-12)
    exact = metrics.auroc(metrics.levels(residual.ravel(), truth.ravel()))
    counts = total.levels()
    assert metrics.auroc(counts) == pytest.approx(exact, abs=metrics.auroc_bound(counts))
