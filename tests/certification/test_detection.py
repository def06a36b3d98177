"""Probability of detection: fits against statsmodels and brute force, bounds, misfits."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize, special, stats

from recon_ad.certification.detection import (
    ABOVE,
    BELOW,
    LOGISTIC,
    NO_MODEL,
    WITHIN,
    detection,
    goodness_of_fit,
)
from recon_ad.certification.logistic import ceiling_p, fitted, signed_root

LARGEST = 85.0


def study(seed, *, a90, slope, trials=64, ceiling=1.0):
    """Sizes and hits of a simulated detector."""
    rng = np.random.default_rng(seed)
    sizes = 2 * (LARGEST / 2) ** ((np.arange(trials) + rng.random(trials)) / trials)
    p = special.expit(special.logit(0.9) + slope * np.log(sizes / a90))
    hits = (rng.random(trials) < ceiling * p).astype(int)
    return sizes, hits


def penalised(b0, b1, sizes, hits):
    """Firth's likelihood by its definition, the determinant by NumPy."""
    design = np.stack([np.ones_like(sizes), np.log(sizes)], axis=1)
    p = special.expit(design @ np.array([b0, b1]))
    information = design.T @ (design * (p * (1 - p))[:, None])
    return stats.bernoulli.logpmf(hits, p).sum() + 0.5 * np.linalg.slogdet(information)[1]


def root(a90, sizes, hits):
    """Return the signed root of the likelihood ratio of an a90, by SciPy's optimisers."""
    best = optimize.minimize(
        lambda b: -penalised(*b, sizes, hits), (-6.0, 3.0), method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-10, "maxiter": 5000},
    )  # fmt: skip
    logit, at = special.logit(0.9), math.log(a90)
    bound = optimize.minimize_scalar(
        lambda s: -penalised(logit - s * at, s, sizes, hits), bounds=(-3, 40), method="bounded",
        options={"xatol": 1e-7},
    )  # fmt: skip
    sign = 1 if best.x[0] + best.x[1] * at < logit else -1
    return sign * math.sqrt(max(0.0, 2 * (bound.fun - best.fun))), best.x, float(bound.x)


def test_many_trials_give_what_statsmodels_fits_without_the_penalty():
    sizes, hits = study(0, a90=15.0, slope=3.0, trials=1000)
    ours = detection(sizes, hits)
    theirs = sm.GLM(hits, sm.add_constant(np.log(sizes)), family=sm.families.Binomial()).fit()
    # The penalty is of the order of one trial in 1,000.
    np.testing.assert_allclose((ours.intercept, ours.slope), theirs.params, rtol=1e-2)
    assert ours.rule == LOGISTIC and ours.fit_p > 0.01
    # a90's bound by the delta method, to which the profile's converges.
    a = (special.logit(0.9) - ours.intercept) / ours.slope
    gradient = np.array([-1 / ours.slope, -a / ours.slope])
    error = math.sqrt(gradient @ theirs.cov_params() @ gradient)
    assert math.isclose(math.log(ours.a90_95.px), a + 1.645 * error, abs_tol=0.2 * error)


@pytest.mark.parametrize(("a90", "slope"), [(15.0, 3.0), (8.0, 8.0)])
def test_the_fit_is_the_maximum_of_firths_likelihood_and_the_root_its_profile(a90, slope):
    for seed in range(5):
        sizes, hits = study(seed, a90=a90, slope=slope)
        x = np.log(sizes)
        places, outcome = (x - x.mean()) / x.std(), hits[None].astype(float)
        for size in (0.7 * a90, a90, 1.6 * a90):
            theirs, (b0, b1), _ = root(size, sizes, hits)
            at = (math.log(size) - x.mean()) / x.std()
            ours = signed_root(places, outcome, place=at, level=special.logit(0.9))
            assert ours[0] == pytest.approx(theirs, abs=1e-3)
        line = fitted(places, outcome)
        assert line.slope[0] / x.std() == pytest.approx(b1, rel=1e-3)
        middle = line.intercept[0] - line.slope[0] * x.mean() / x.std()
        assert middle == pytest.approx(b0, rel=1e-3)


def test_the_bound_is_where_five_per_cent_of_simulated_outcomes_are_as_far_below():
    sizes, hits = study(3, a90=15.0, slope=3.0)
    bound = detection(sizes, hits).a90_95.px
    seen, _, slope = root(bound, sizes, hits)
    p = special.expit(special.logit(0.9) + slope * np.log(sizes / bound))
    outcomes = (np.random.default_rng(5).random((5000, 64)) < p).astype(float)
    x = np.log(sizes)
    places, at = (x - x.mean()) / x.std(), (math.log(bound) - x.mean()) / x.std()
    roots = signed_root(places, outcomes, place=at, level=special.logit(0.9))
    # Of 1,000 and of 5,000 outcomes: three standard deviations.
    assert (roots < seen).mean() == pytest.approx(0.05, abs=0.023)


def test_separated_hits_and_misses_have_a_finite_fit():
    sizes = np.geomspace(2, LARGEST, 64)
    found = detection(sizes, (sizes > 12).astype(int))
    assert found.rule == LOGISTIC and 10 < found.a50.px < 14
    assert found.a50.px < found.a90.px < found.a90_95.px < 30


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_sizes_in_another_unit_give_the_same_in_that_unit(factor):
    sizes, hits = study(1, a90=15.0, slope=3.0)
    one, other = detection(sizes, hits), detection(factor * sizes, hits)
    for name in ("a50", "a90", "a90_95"):
        assert math.isclose(getattr(other, name).px, factor * getattr(one, name).px, rel_tol=1e-3)


def test_all_found_and_none_found_are_beyond_the_tested_sizes():
    sizes, ones = np.geomspace(2, LARGEST, 64), np.ones(64, int)
    every = detection(sizes, ones)
    assert every.rule == NO_MODEL and every.a90 == (2.0, BELOW)
    # 29 hits of 29 show nine in ten, for the largest of their sizes.
    assert every.a90_95.px == sizes[28] or every.a90_95.px < sizes[29]
    none = detection(sizes, 0 * ones)
    assert {none.a50.where, none.a90.where, none.a90_95.where} == {ABOVE}


def test_a_detector_that_misses_one_in_six_at_any_size_has_no_size_that_is_certified():
    certified = 0
    for seed in range(40):
        sizes, hits = study(seed, a90=5.0, slope=4.0, ceiling=0.83)
        certified += detection(sizes, hits).a90_95.where != ABOVE
    assert certified <= 4  # 5 % are allowed, of which two standard deviations


def test_no_size_is_certified_above_which_fewer_than_nine_in_ten_were_found():
    certified = 0
    for seed in range(40):
        sizes, hits = study(seed, a90=8.0, slope=4.0, ceiling=0.85)
        bound = detection(sizes, hits).a90_95
        if bound.where != ABOVE:
            certified += 1
            assert hits[sizes >= bound.px].mean() >= 0.9
    assert certified > 0  # 64 trials cannot tell .85 from .9 each time


def test_without_a_model_the_bound_is_that_of_pooled_exact_bounds():
    # Found at small and large sizes and not between: no curve that grows.
    sizes = np.geomspace(2, LARGEST, 80)
    hits = np.ones(80, int)
    hits[20:40] = 0
    found = detection(sizes, hits)
    assert found.rule == NO_MODEL and found.fit_p < 0.05
    # From the largest down, the last window of 29 without a miss ends at place 40 + 28.
    assert found.a90_95 == (float(sizes[68]), WITHIN)


def test_a_curve_that_ends_below_one_is_noticed():
    caught = wrong = 0
    for seed in range(60):
        for ceiling in (0.85, 1.0):
            sizes, hits = study(seed, a90=8.0, slope=4.0, ceiling=ceiling)
            x = np.log(sizes)
            rejected = ceiling_p((x - x.mean()) / x.std(), hits.astype(float)) < 0.1
            caught, wrong = caught + (rejected and ceiling < 1), wrong + (rejected and ceiling == 1)
    assert caught >= 42 and wrong <= 12  # 87 % and 10 %, of which three standard deviations


@pytest.mark.slow
def test_the_test_of_fit_rejects_what_fits_in_five_per_cent():
    rejected = tested = 0
    for seed in range(150):
        sizes, hits = study(seed, a90=20.0, slope=2.0)
        fitted = detection(sizes, hits)
        if fitted.fit_p is not None:
            tested += 1
            rejected += fitted.fit_p < 0.05
    assert tested > 120 and rejected / tested < 0.1
    assert goodness_of_fit(np.array([0.5]), np.array([1])) is None


@pytest.mark.slow
def test_bounds_hold_in_95_per_cent_of_studies():
    held = 0
    for seed in range(100):
        bound = detection(*study(seed, a90=12.0, slope=3.0)).a90_95
        held += bound.where == ABOVE or bound.px >= 12
    assert 90 <= held <= 98  # two standard deviations and a half, and one and a half
