"""Paired tests of two detectors: DeLong's over all pairs of images, McNemar's by SciPy."""

import numpy as np
import pytest
from scipy import stats

from recon_ad import metrics

# For sums of some thousand pairs; both are of order 1.
ROUNDING = 1e-12


def _scored(seed, *, normals=40, defects=25, tied=False):
    """Draw scores of two detectors that partly agree, and the truth."""
    rng = np.random.default_rng(seed)
    anomalous = rng.permutation(np.arange(normals + defects) < defects)
    shared = rng.normal(size=len(anomalous))
    first, second = (
        shared + rng.normal(size=len(anomalous)) + gain * anomalous for gain in rng.uniform(0, 2, 2)
    )
    return (np.round(first), np.round(second), anomalous) if tied else (first, second, anomalous)


def _brute_force(first, second, anomalous):
    """Compute difference and p by DeLong et al. 1988, eq. 4 to 6, from every pair of images."""
    components = []
    for scores in (first, second):
        over = scores[anomalous][:, None] - scores[~anomalous][None]
        psi = np.where(over > 0, 1.0, np.where(over == 0, 0.5, 0.0))
        components.append((psi.mean(1), psi.mean(0), psi.mean()))
    (d0, n0, auc0), (d1, n1, auc1) = components
    covariance = np.cov(d0, d1) / len(d0) + np.cov(n0, n1) / len(n0)
    contrast = np.array([-1, 1])
    z = (auc1 - auc0) / np.sqrt(contrast @ covariance @ contrast)
    return auc1 - auc0, 2 * stats.norm.sf(abs(z))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("normals", "defects"), [(40, 25), (2, 2), (3, 200), (200, 3)])
def test_delong_is_that_of_every_pair(normals, defects, tied):
    for seed in range(5):
        scored = _scored(seed, normals=normals, defects=defects, tied=tied)
        try:
            found = metrics.delong(*scored)
        except metrics.UndefinedMetric:
            assert normals == defects == 2  # which both may rank in the same way
            continue
        assert tuple(found) == pytest.approx(_brute_force(*scored), abs=ROUNDING)
        # Monotone maps of scores change nothing; exchanging the detectors changes only the sign.
        first, second, anomalous = scored
        assert metrics.delong(np.exp(first), 3 * second - 1, anomalous) == found
        other = metrics.delong(second, first, anomalous)
        assert (other.difference, other.p) == pytest.approx((-found.difference, found.p))


def test_delong_says_difference_of_equals_as_often_as_it_should():
    ps = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        anomalous = np.arange(120) < 50
        shared = rng.normal(size=120) + anomalous
        ps.append(metrics.delong(*(shared + rng.normal(size=(2, 120))), anomalous).p)
    # 20 of 400 are expected below 0.05, with three standard deviations of 4.4.
    assert 7 <= np.sum(np.array(ps) < 0.05) <= 33
    assert 0.4 < np.mean(ps) < 0.6


def test_delong_without_variance_gives_a_reason():
    anomalous = np.arange(10) >= 6
    perfect, worst = np.arange(10.0), -np.arange(10.0)
    for first, second, says in (
        (perfect, perfect, "neither detector ranks"),
        (perfect, np.exp(perfect), "neither detector ranks"),
        (perfect, anomalous * 1.0, "neither detector ranks"),  # an AUROC of 1 by other scores
        (np.ones(10), np.zeros(10), "neither detector ranks"),
        (worst, perfect, "the same for every image"),
    ):
        with pytest.raises(metrics.UndefinedMetric, match=says):
            metrics.delong(first, second, anomalous)
    for labels, says in ((anomalous | True, "two good"), (np.arange(10) > 8, "two defective")):
        with pytest.raises(metrics.UndefinedMetric, match=f"fewer than {says} images"):
            metrics.delong(perfect, worst, labels)
    # One AUROC of 1 is allowed.
    other = np.array([0, 1, 2, 3, 4, 7, 5, 6, 8, 9.0])
    found = metrics.delong(perfect, other, anomalous)
    assert tuple(found) == pytest.approx(_brute_force(perfect, other, anomalous), abs=ROUNDING)


@pytest.mark.parametrize("only", [(0, 1), (1, 1), (5, 5), (2, 9), (9, 2), (0, 40), (130, 171)])
def test_mcnemar_is_the_binomial_test(only):
    first = np.repeat([True, False, True, False], [*only, 7, 3])
    second = np.repeat([False, True, True, False], [*only, 7, 3])
    expected = stats.binomtest(only[0], sum(only)).pvalue
    assert tuple(metrics.mcnemar(first, second)) == (*only, pytest.approx(expected, rel=1e-10))


def test_mcnemar_of_equal_decisions_gives_a_reason():
    for right in (np.ones(4, bool), np.zeros(4, bool), np.arange(4) > 1, np.zeros(0, bool)):
        with pytest.raises(metrics.UndefinedMetric, match="correct about the same images"):
            metrics.mcnemar(right, right)
