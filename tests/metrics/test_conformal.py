"""Thresholds with a promise, design effect and odd images, against definitions and simulation."""

import numpy as np
import pytest
from scipy import stats

from recon_ad.metrics.conformal import (
    conformal_threshold,
    design_effect,
    needed,
    odd_ones,
    rate_interval,
    surprising,
)


@pytest.mark.parametrize(
    ("n", "fpr", "regions", "rank", "supported"),
    [(99, 0.01, 1, 99, 0.01), (199, 0.01, 1, 198, 0.01), (100, 0.01, 1, 100, 0.01),
     (9, 0.1, 1, 9, 0.1), (98, 0.01, 1, 98, 1 / 99), (5, 0.01, 1, 5, 1 / 6), (1, 0.01, 1, 1, 0.5),
     (20, 0.25, 1, 16, 0.25), (8, 0.01, 1, 8, 1 / 9),
     # Regions use the rate that gives an image's rate. With 4 other regions the largest is exceeded
     # by one of a new image's 4 regions in half of all cases.
     (399, 0.04, 4, 396, 0.04), (4, 0.04, 4, 4, 0.5)],
)  # fmt: skip
def test_takes_the_score_of_the_conformal_rank(n, fpr, regions, rank, supported):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    found = conformal_threshold(scores, fpr=fpr, regions_per_image=float(regions))
    assert (found.threshold, found.fpr) == (rank, pytest.approx(supported))
    assert found.units == n and scores[list(found.deciding)].tolist() == [rank]
    # Groups of one image are independent images.
    assert conformal_threshold(scores, fpr=fpr, groups=np.arange(n)).threshold == (
        conformal_threshold(scores, fpr=fpr).threshold
    )


def test_groups_weigh_alike_however_many_images_they_have():
    scores = np.array([1.0, 2, 3, 4, 10, 20])
    groups = np.array([7, 7, 7, 7, 2, 5])
    # Each group and everything beyond them has weight 1/4, so a level of 3/4 is reached only by the
    # last one, and one of 1/2 by the second.
    for fpr, threshold in ((0.25, 20), (0.5, 10), (0.75, 4), (0.8, 4), (0.82, 3)):
        assert conformal_threshold(scores, fpr=fpr, groups=groups).threshold == threshold
    assert conformal_threshold(scores, fpr=0.1, groups=groups)[:3] == (20, 0.25, 3)


@pytest.mark.parametrize(("series", "rho"), [(None, 0.0), (20, 0.8), (10, 0.5), (10, 0.8)])
@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.1])
def test_the_promise_is_kept_on_average_for_images_of_new_series(series, rho, fpr):
    rng, n, realised, promised = np.random.default_rng(0), 100, [], []
    for _ in range(300):
        scores = rng.normal(size=n)
        number = np.arange(n)
        if series:
            number = np.arange(n) * series // n
            scores = rho**0.5 * rng.normal(size=series)[number] + (1 - rho) ** 0.5 * scores
        blocks = np.arange(n) // 10
        for kind in ({"effect": design_effect(scores, blocks)[1]}, {"groups": number}):
            found = conformal_threshold(scores, fpr=fpr, **kind)
            realised.append(stats.norm.sf(found.threshold))
            promised.append(found.fpr)
    for kind in (0, 1):
        mine = np.array(realised[kind::2])
        # Three standard errors of the mean of 300.
        assert mine.mean() < np.mean(promised[kind::2]) + 3 * mine.std() / 300**0.5


def test_a_promise_that_takes_series_for_independent_images_is_broken():
    rng, realised = np.random.default_rng(0), []
    for _ in range(300):
        scores = 0.8**0.5 * np.repeat(rng.normal(size=10), 10) + 0.2**0.5 * rng.normal(size=100)
        realised.append(stats.norm.sf(conformal_threshold(scores, fpr=0.01).threshold))
    assert np.mean(realised) > 0.02


def test_the_intraclass_correlation_is_that_of_the_analysis_of_variance():
    rng = np.random.default_rng(1)
    blocks = np.repeat(np.arange(5), [3, 4, 5, 6, 2])
    scores = rng.normal(size=20) + 2 * rng.normal(size=5)[blocks]
    ranks = stats.rankdata(scores)
    parts = [ranks[blocks == b] for b in range(5)]
    # F = B / W, from which the correlation follows.
    ratio = stats.f_oneway(*parts).statistic
    size = (20 - sum(len(p) ** 2 for p in parts) / 20) / 4
    rho = (ratio - 1) / (ratio - 1 + size)
    assert 0 < rho < 1
    effect = 1 + (sum(len(p) ** 2 for p in parts) / 20 - 1) * rho
    assert design_effect(scores, blocks) == pytest.approx((rho, effect))


def test_one_odd_image_hides_no_series_and_independent_images_count_fully():
    rng = np.random.default_rng(0)
    blocks = np.repeat(np.arange(10), 10)
    scores = np.repeat(rng.normal(size=10), 10) + 0.3 * rng.normal(size=100)
    odd = scores.copy()
    odd[3] = 1e6
    assert design_effect(odd, blocks)[1] == pytest.approx(design_effect(scores, blocks)[1], rel=0.1)
    effects = [design_effect(rng.normal(size=100), blocks)[1] for _ in range(200)]
    assert np.median(effects) < 1.2
    for scores, blocks in ((np.ones(4), np.arange(4)), (np.ones(4), np.zeros(4, int))):
        assert design_effect(scores, blocks) == (0.0, 1.0)
    assert design_effect(np.ones(4), np.array([0, 0, 1, 1]))[1] == 1.0


@pytest.mark.parametrize(("fpr", "regions", "units"), [(0.01, 1, 99), (0.06, 1, 16), (0.5, 4, 4)])
def test_as_many_units_are_needed_as_support_the_rate(fpr, regions, units):
    assert needed(fpr, regions_per_image=float(regions)) == units
    for n, enough in ((units, True), (units - 1, False)):
        found = conformal_threshold(np.arange(float(n)), fpr=fpr, regions_per_image=float(regions))
        # 1/17 is below 6 %, so the threshold is then for 1/17.
        assert (found.fpr == fpr) is enough


@pytest.mark.parametrize("tail", ["normal", "gumbel", "exponential"])
def test_odd_images_are_named_and_ordinary_ones_rarely(tail):
    rng = np.random.default_rng(0)
    for n in (8, 20, 60):
        named = missed = 0
        for _ in range(300):
            scores = 10 + getattr(rng, tail)(size=n)
            named += odd_ones(scores).any()
            scores[2] = 10 + 40
            missed += not odd_ones(scores)[2]
        # 5 % of exponential values, and three standard errors.
        assert named <= 0.09 * 300 and missed <= 0.1 * 300, n
    assert not odd_ones(np.ones(9)).any() and not odd_ones(np.array([1.0, 5, 9])).any()
    # A whole lot that scores above all of a hundred earlier images.
    later = odd_ones(np.full(5, 3.0), known=np.linspace(-1, 1, 200))
    assert later.all()


def test_rates_and_tests_are_exact():
    # The values at which a tail is 2.5 %.
    low, high = rate_interval(7, 14)
    assert stats.binom.sf(6, 14, low) == pytest.approx(0.025)
    assert stats.binom.cdf(7, 14, high) == pytest.approx(0.025)
    assert rate_interval(0, 14)[0] == 0.0 and rate_interval(14, 14)[1] == 1.0


@pytest.mark.parametrize(("n", "fpr"), [(20, 0.05), (50, 0.02), (99, 0.01), (100, 0.05)])
def test_a_promise_that_is_kept_is_seldom_found_broken(n, fpr):
    rng, broken = np.random.default_rng(0), []
    for _ in range(1500):
        found = conformal_threshold(rng.random(n), fpr=fpr)
        stopped = rng.binomial(300, 1 - found.threshold)
        broken.append(surprising(stopped, 300, promised=found.fpr, units=found.units) < 0.05)
    # Two standard errors; the count is discrete, so the level is not usually reached.
    assert 0.01 < np.mean(broken) < 0.05 + 0.012
    # With more and more units each calibration's rate approaches the promised one.
    many = surprising(7, 14, promised=0.14, units=1e7)
    assert many == pytest.approx(stats.binom.sf(6, 14, 0.14), rel=1e-4)
    assert surprising(0, 14, promised=0.14, units=50.0) == 1.0
