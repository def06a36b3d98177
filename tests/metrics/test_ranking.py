"""Metrics of the order of scores, against scikit-learn."""

import functools
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from recon_ad import metrics

EXACT = 1e-12


def _random(seed, n=300):
    random = np.random.default_rng(seed)
    labels = random.random(n) < 0.3
    return random.normal(size=n) + labels, labels


def _cases():
    random = np.random.default_rng(0)
    scores, labels = _random(1)
    return {
        "distinct": (scores, labels),
        "float32": (scores.astype(np.float32), labels),
        "heavy_ties": (np.round(scores * 2) / 2, labels),
        "two_scores": ((scores > 0).astype(np.float64), labels),
        "constant": (np.full(300, -7.5), labels),
        "negative": (scores - 1e6, labels),
        "both_zeros": (np.where(scores > 0, 0.0, -0.0), labels),
        "tiny": (random.integers(0, 50, 300).astype(np.float32) * np.float32(1e-45), labels),
        "one_each": (np.array([0.1, 0.2]), np.array([True, False])),
        "perfect": (np.arange(10.0), np.arange(10) >= 6),
        "inverted": (-np.arange(10.0), np.arange(10) >= 6),
        "rare": (random.normal(size=500), np.arange(500) == 77),
    }


CASES = pytest.mark.parametrize(("scores", "labels"), _cases().values(), ids=_cases())


@CASES
def test_figures_and_curves_are_scikit_learns(scores, labels):
    counts = metrics.levels(scores, labels)
    expected = sklearn_metrics.roc_auc_score(labels, scores)
    assert metrics.auroc(counts) == pytest.approx(expected, abs=EXACT)
    expected = sklearn_metrics.average_precision_score(labels, scores)
    assert metrics.average_precision(counts) == pytest.approx(expected, abs=EXACT)
    curve = metrics.roc_curve(counts, max_points=10_000)
    theirs = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve, theirs[:2], atol=EXACT)
    assert np.trapezoid(*curve[::-1]) == pytest.approx(metrics.auroc(counts), abs=EXACT)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    curve = metrics.pr_curve(counts, max_points=10_000)
    np.testing.assert_allclose(curve, (recall[-2::-1], precision[-2::-1]), atol=EXACT)
    f1, threshold = metrics.f1_max(counts)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
    assert f1 == pytest.approx(best, abs=EXACT)
    reached = sklearn_metrics.f1_score(labels, scores >= threshold)
    assert reached == pytest.approx(f1, abs=EXACT)


@pytest.mark.parametrize("max_points", [2, 3, 50, 1000])
def test_thinned_curve_keeps_ends_and_stays_on_the_full_one(max_points):
    counts = metrics.levels(*_random(2, n=5000))
    full = np.stack(metrics.roc_curve(counts, max_points=10_000), axis=1)
    thinned = np.stack(metrics.roc_curve(counts, max_points=max_points), axis=1)
    assert max_points / 2 < len(thinned) <= max_points
    assert thinned[0].tolist() == [0, 0] and thinned[-1].tolist() == [1, 1]
    assert {tuple(point) for point in thinned} <= {tuple(point) for point in full}
    # Evenly spaced along the curve, apart from the step of one item.
    assert np.diff(thinned.sum(1)).max() <= 2 / (max_points - 1) + 2 / 1000


@pytest.mark.parametrize(
    ("labels", "reason"),
    [([0, 0, 0], "no anomalous items"), ([1, 1, 1], "no normal items"), ([], "no items")],
)
def test_figures_without_both_classes_say_which_is_missing(labels, reason):
    counts = metrics.levels(np.arange(len(labels), dtype=float), np.array(labels, bool))
    for figure in (
        metrics.auroc, metrics.average_precision, metrics.f1_max, metrics.roc_curve,
        metrics.pr_curve, metrics.iou_max, metrics.auroc_bound, metrics.average_precision_bound,
        metrics.f1_max_bound, metrics.iou_max_bound,
        functools.partial(metrics.presorted_good, percent=5),
        functools.partial(metrics.presorted_bad, percent=5),
    ):  # fmt: skip
        with pytest.raises(metrics.UndefinedMetric) as raised:
            figure(counts)
        assert str(raised.value) == reason, figure


def _presorted(scores, labels, percent):
    """Compute PG and PB by trying every threshold."""
    good, bad = scores[~labels], scores[labels]
    kept, caught = [], []
    for threshold in [*scores, np.inf]:
        escaped, scrapped = np.sum(bad < threshold), np.sum(good >= threshold)
        if 100 * escaped <= percent * len(bad):
            kept.append(np.mean(good < threshold))
        if 100 * scrapped <= percent * len(good):
            caught.append(np.mean(bad >= threshold))
    return max(kept), max(caught)


@CASES
@pytest.mark.parametrize("percent", [1, 2, 5, 50])
def test_presorted_shares_are_the_best_of_the_thresholds_allowed(scores, labels, percent):
    counts = metrics.levels(scores, labels)
    pairs = zip(
        (metrics.presorted_good, metrics.presorted_bad),
        (np.sum(labels), np.sum(~labels)),
        _presorted(scores, labels, percent),
        strict=True,
    )
    for figure, items, expected in pairs:
        if items * percent < 100:
            with pytest.raises(metrics.UndefinedMetric, match=f"{percent} % of {items} "):
                figure(counts, percent=percent)
        else:
            assert figure(counts, percent=percent) == pytest.approx(expected, abs=EXACT)


def test_presorted_shares_mirror_each_other_and_rise_with_the_errors_allowed():
    scores, labels = _random(4, n=900)
    counts, mirrored = metrics.levels(scores, labels), metrics.levels(-scores, ~labels)
    shares = [metrics.presorted_good(counts, percent=p) for p in range(1, 100)]
    assert 0 < shares[0] < shares[-1] and (np.diff(shares) >= 0).all()
    # Without ties, one is the other with the classes and their order exchanged.
    other = [metrics.presorted_bad(mirrored, percent=p) for p in range(1, 100)]
    assert shares == pytest.approx(other, abs=EXACT)
    for percent in (0, 100):
        for figure in (metrics.presorted_good, metrics.presorted_bad):
            with pytest.raises(ValueError, match=f"not {percent}"):
                figure(counts, percent=percent)


def test_a_curve_of_one_point_and_scores_without_a_rank_are_refused():
    with pytest.raises(ValueError, match="max_points"):
        metrics.roc_curve(metrics.levels(*_random(2)), max_points=1)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="1 of 3 scores"):
            metrics.levels(np.array([0.0, bad, 1.0]), np.array([True, False, True]))


def test_of_equally_good_thresholds_the_highest_is_given():
    # F1 is 2/3 at 3 (T=1, F=0, P=2) and again at 0 (T=2, F=2).
    scores = np.array([3.0, 2.0, 1.0, 0.0])
    labels = np.array([True, False, False, True])
    assert metrics.f1_max(metrics.levels(scores, labels)) == (2 / 3, 3.0)


def test_metrics_import_no_jax():
    check = "import sys, recon_ad.metrics; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
