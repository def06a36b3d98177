"""The interval of the image AUROC: its formula computed differently, its coverage by simulation."""

import numpy as np
import pytest
from scipy import optimize, stats

from recon_ad.metrics import UndefinedMetric
from recon_ad.metrics.auroc_interval import TRUST, _variance, auroc_interval, least_auroc
from recon_ad.metrics.ranking import wins


def samples(rng, good, defective, auroc):
    scores = rng.normal(size=good + defective)
    labels = np.arange(good + defective) >= good
    scores[labels] += 2**0.5 * stats.norm.ppf(auroc)
    return scores, labels


def pairs(scores, labels):
    """Return 1 for pairs whose defective image scores above the good one, and 0.5 for ties."""
    good, defective = scores[~labels], scores[labels]
    return (defective[:, None] > good) + 0.5 * (defective[:, None] == good)


def test_the_variance_is_that_of_normal_scores():
    rng = np.random.default_rng(0)
    for auroc, m, n in ((0.5, 3, 5), (0.86, 4, 7), (0.97, 6, 3)):
        found = [pairs(*samples(rng, m, n, auroc)).mean() for _ in range(20_000)]
        # A variance of 20,000 values is off by 1 %, or by some percent for skewed ones.
        assert _variance(auroc, m, n) == pytest.approx(np.var(found), rel=0.05)
        assert _variance(auroc, m, n) == pytest.approx(_variance(1 - auroc, m, n))
    assert _variance(0.0, 3, 3) == _variance(1.0, 3, 3) == 0.0


def test_the_ends_solve_the_equation_and_wins_are_those_of_pairs():
    scores, labels = samples(np.random.default_rng(2), 14, 30, 0.9)
    scores = np.round(scores, 1)  # with ties
    table = pairs(scores, labels)
    won = wins(scores, labels)
    np.testing.assert_array_equal(won[~labels], 2 * table.sum(0))
    np.testing.assert_array_equal(won[labels], 2 * table.sum(1))
    auroc = table.mean()
    observed = table.mean(0).var(ddof=1) / 14 + table.mean(1).var(ddof=1) / 30
    inside = (auroc * 420 + 0.5) / 421
    ratio = (observed / _variance(inside, 14, 30)) ** (14 / (14 + TRUST))

    def excess(theta):
        return (auroc - theta) ** 2 - stats.norm.ppf(0.975) ** 2 * ratio * _variance(theta, 14, 30)

    ends = optimize.brentq(excess, 0.5, auroc), optimize.brentq(excess, auroc, 1 - 1e-12)
    assert auroc_interval(scores, labels) == pytest.approx(ends, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "good", "defective"), [(0.8, 9, 12), (0.95, 30, 15), (1.0, 4, 5)]
)
def test_the_least_auroc_is_a_bound_by_hanley_and_mcneils_variance(value, good, defective):
    def excess(theta):
        # Hanley and McNeil 1982, Radiology 143, p. 29, with half of all images of each kind.
        q1, q2 = theta / (2 - theta), 2 * theta**2 / (1 + theta)
        half = (good + defective) / 2
        products = theta * (1 - theta) + (half - 1) * (q1 + q2 - 2 * theta**2)
        return value - theta - stats.norm.ppf(0.99) * np.sqrt(products / (good * defective))

    expected = optimize.brentq(excess, 1e-9, value - 1e-9)
    assert least_auroc(value, good, defective) == pytest.approx(expected, abs=1e-4)  # z is rounded


def test_it_mirrors_and_holds_what_is_perfect():
    scores, labels = samples(np.random.default_rng(3), 9, 12, 0.8)
    low, high = auroc_interval(scores, labels)
    assert auroc_interval(-scores, labels) == pytest.approx((1 - high, 1 - low))
    perfect = np.arange(10.0)
    low, high = auroc_interval(perfect, perfect >= 5)
    assert 0.5 < low < 0.8 and high == 1.0
    with pytest.raises(UndefinedMetric, match="4 good test images are too few"):
        auroc_interval(perfect, perfect >= 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("good", "defective", "auroc", "least"),
    [(20, 40, 0.86, 0.935), (30, 90, 0.96, 0.935), (12, 30, 0.98, 0.935), (8, 8, 0.96, 0.93)],
)
def test_it_covers(good, defective, auroc, least):
    rng, covered = np.random.default_rng(0), []
    for _ in range(4000):
        low, high = auroc_interval(*samples(rng, good, defective, auroc))
        covered.append(low <= auroc <= high)
    # The nominal limits, and two standard errors of 4000 draws.
    assert least - 0.007 < np.mean(covered) < 0.965 + 0.007
