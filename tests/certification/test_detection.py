"""Probability of detection: fits against statsmodels and brute force, bounds, misfits."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special, stats

from recon_ad.certification.detection import (
    ABOVE,
    BELOW,
    LOGISTIC,
    NO_MODEL,
    WITHIN,
    detection,
    goodness_of_fit,
)

LARGEST = 85.0


def study(seed, *, a90, slope, trials=64, ceiling=1.0):
    """Sizes, hits and trials of a simulated detector."""
    rng = np.random.default_rng(seed)
    sizes = 2 * (LARGEST / 2) ** ((np.arange(trials) + rng.random(trials)) / trials)
    p = special.expit(special.logit(0.9) + slope * np.log(sizes / a90))
    hits = (rng.random(trials) < ceiling * p).astype(int)
    return sizes, hits, np.ones(trials, int)


def penalised(b0, b1, sizes, hits, trials):
    """Firth's likelihood by its definition, the determinant by NumPy."""
    design = np.stack([np.ones_like(sizes), np.log(sizes)], axis=1)
    eta = design @ np.array([b0, b1])
    p = special.expit(eta)
    information = design.T @ (design * (trials * p * (1 - p))[:, None])
    return stats.binom.logpmf(hits, trials, p).sum() + 0.5 * np.linalg.slogdet(information)[1]


def test_many_trials_give_what_statsmodels_fits_without_the_penalty():
    sizes = np.geomspace(2, LARGEST, 20)
    trials = np.full(20, 2000)
    p = special.expit(special.logit(0.9) + 3 * np.log(sizes / 15))
    hits = np.random.default_rng(0).binomial(trials, p)
    ours = detection(sizes, hits, trials)
    design = sm.add_constant(np.log(sizes))
    theirs = sm.GLM(np.stack([hits, trials - hits], 1), design, family=sm.families.Binomial()).fit()
    # The penalty is of the order of one trial in 40,000.
    np.testing.assert_allclose((ours.intercept, ours.slope), theirs.params, rtol=2e-3)
    assert ours.rule == LOGISTIC and ours.fit_p > 0.01
    # a90's bound by the delta method, to which the profile's converges.
    a = (special.logit(0.9) - ours.intercept) / ours.slope
    gradient = np.array([-1 / ours.slope, -a / ours.slope])
    error = math.sqrt(gradient @ theirs.cov_params() @ gradient)
    assert math.isclose(math.log(ours.a90_95.px), a + 1.645 * error, abs_tol=0.1 * error)


def test_the_fit_is_the_maximum_of_firths_likelihood_and_the_bound_its_profile():
    sizes, hits, trials = study(3, a90=15.0, slope=3.0)
    fitted = detection(sizes, hits, trials)
    best = penalised(fitted.intercept, fitted.slope, sizes, hits, trials)
    for step0, step1 in ((1e-2, 0), (-1e-2, 0), (0, 1e-2), (0, -1e-2)):
        moved = penalised(fitted.intercept + step0, fitted.slope + step1, sizes, hits, trials)
        assert moved < best
    # On a fine grid of slopes, with a90 held at the bound.
    at = math.log(fitted.a90_95.px)
    slopes = np.linspace(0.1, 8, 2000)
    profile = max(penalised(special.logit(0.9) - s * at, s, sizes, hits, trials) for s in slopes)
    assert math.isclose(2 * (best - profile), stats.chi2.ppf(0.9, 1), abs_tol=5e-3)


def test_separated_hits_and_misses_have_a_finite_fit():
    sizes = np.geomspace(2, LARGEST, 64)
    found = detection(sizes, (sizes > 12).astype(int), np.ones(64, int))
    assert found.rule == LOGISTIC and 10 < found.a50.px < 14
    assert found.a50.px < found.a90.px < found.a90_95.px < 30


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_sizes_in_another_unit_give_the_same_in_that_unit(factor):
    sizes, hits, trials = study(1, a90=15.0, slope=3.0)
    one, other = detection(sizes, hits, trials), detection(factor * sizes, hits, trials)
    for name in ("a50", "a90", "a90_95"):
        assert math.isclose(getattr(other, name).px, factor * getattr(one, name).px, rel_tol=1e-3)


def test_trials_of_one_size_may_be_counted_together():
    sizes = np.geomspace(2, LARGEST, 8)
    trials = np.full(8, 8)
    hits = np.array([0, 0, 1, 3, 6, 7, 8, 8])
    single = detection(
        np.repeat(sizes, 8),
        np.concatenate([np.arange(8) < k for k in hits]).astype(int),
        np.ones(64, int),
    )
    together = detection(sizes, hits, trials)
    assert math.isclose(single.a90_95.px, together.a90_95.px, rel_tol=1e-3)


def test_all_found_and_none_found_are_beyond_the_tested_sizes():
    sizes, ones = np.geomspace(2, LARGEST, 64), np.ones(64, int)
    every = detection(sizes, ones, ones)
    assert every.rule == NO_MODEL and every.a90 == (2.0, BELOW)
    # 29 hits of 29 show nine in ten, for the largest of their sizes.
    assert every.a90_95.px == sizes[28] or every.a90_95.px < sizes[29]
    none = detection(sizes, 0 * ones, ones)
    assert {none.a50.where, none.a90.where, none.a90_95.where} == {ABOVE}


def test_a_detector_that_misses_one_in_six_at_any_size_has_no_size_that_is_certified():
    certified = 0
    for seed in range(40):
        sizes, hits, trials = study(seed, a90=5.0, slope=4.0, ceiling=0.83)
        certified += detection(sizes, hits, trials).a90_95.where != ABOVE
    assert certified <= 4  # 5 % are allowed, of which two standard deviations


def test_no_size_is_certified_above_which_fewer_than_nine_in_ten_were_found():
    certified = 0
    for seed in range(40):
        sizes, hits, trials = study(seed, a90=8.0, slope=4.0, ceiling=0.85)
        bound = detection(sizes, hits, trials).a90_95
        if bound.where != ABOVE:
            certified += 1
            assert hits[sizes >= bound.px].mean() >= 0.9
    assert certified > 0  # 64 trials cannot tell .85 from .9 each time


def test_without_a_model_the_bound_is_that_of_pooled_exact_bounds():
    # Found at small and large sizes and not between: no curve that grows.
    sizes, trials = np.geomspace(2, LARGEST, 80), np.ones(80, int)
    hits = np.ones(80, int)
    hits[20:40] = 0
    found = detection(sizes, hits, trials)
    assert found.rule == NO_MODEL and found.fit_p < 0.05
    # From the largest down, the last window of 29 without a miss ends at place 40 + 28.
    assert found.a90_95 == (float(sizes[68]), WITHIN)


def test_the_test_of_fit_rejects_what_fits_in_five_per_cent():
    rejected = tested = 0
    for seed in range(150):
        sizes, hits, trials = study(seed, a90=20.0, slope=2.0)
        fitted = detection(sizes, hits, trials)
        if fitted.fit_p is not None:
            tested += 1
            rejected += fitted.fit_p < 0.05
    assert tested > 120 and rejected / tested < 0.1
    assert goodness_of_fit(np.array([0.5]), np.array([1]), np.array([2])) is None


@pytest.mark.slow
@pytest.mark.parametrize(("a90", "slope"), [(12.0, 3.0), (20.0, 2.0)])
def test_bounds_hold_in_95_per_cent_of_studies(a90, slope):
    held = 0
    for seed in range(400):
        bound = detection(*study(seed, a90=a90, slope=slope)).a90_95
        held += bound.where == ABOVE or bound.px >= a90
    assert 0.93 <= held / 400 <= 0.99
