"""Exact bounds of rates, and how many images they need."""

import math

import numpy as np
import pytest
from scipy import stats

from recon_ad.certification.rejects import images_for, lower_bound, rate_of, upper_bound


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 29), (3, 24), (24, 24), (7, 500)])
def test_the_upper_bound_leaves_five_per_cent_to_counts_as_low(count, total):
    bound = upper_bound(count, total)
    if count == total:
        assert bound == 1
    else:
        assert math.isclose(stats.binom.cdf(count, total, bound), 0.05, rel_tol=1e-9)
    assert math.isclose(lower_bound(total - count, total), 1 - bound)


def test_no_reject_in_29_images_shows_a_rate_below_a_tenth_and_none_in_28_does_not():
    # The rule of the field: 0.9^29 < 0.05 < 0.9^28.
    assert upper_bound(0, 29) < 0.1 < upper_bound(0, 28)
    assert images_for(0.1) == 29 and images_for(0.1, count=1) == 46


@pytest.mark.parametrize("bound", [0.3, 0.05, 0.0217, 0.001])
@pytest.mark.parametrize("count", [0, 1, 6])
def test_images_for_is_the_least_number_that_gives_the_bound(bound, count):
    needed = images_for(bound, count=count)
    assert upper_bound(count, needed) <= bound < upper_bound(count, needed - 1)


def test_bounds_hold_in_95_per_cent_of_studies_or_more():
    # Exactly: the chance of all counts whose bound holds, over true rates and numbers of images.
    for total in (24, 50, 200):
        counts = np.arange(total + 1)
        bounds = np.array([upper_bound(int(k), total) for k in counts])
        for true in (0.001, 0.01, 0.0217, 0.1, 0.5):
            held = stats.binom.pmf(counts, total, true)[bounds >= true].sum()
            assert held >= 0.95


def test_a_rate_has_its_interval_around_it():
    rate = rate_of(3, 24)
    assert rate.low < rate.rate == 0.125 < rate.at_most < rate.high
