"""Rates of errors with exact bounds, and how many images a bound needs.

All bounds are those of Clopper and Pearson (1934, Biometrika 26, p. 404), which hold for every
number of images. They count images as independent.
"""

from typing import NamedTuple

from scipy import stats

from recon_ad.metrics.conformal import rate_interval

CONFIDENCE = 0.95
MOST = 10**7  # images; nobody takes more


class Rate(NamedTuple):
    """A rate with its bounds.

    Attributes:
      count: Images that were stopped, missed, or found.
      total: Images.
      rate: Share of the images.
      low: Lower end of the two-sided 95 % interval.
      high: Upper end of it.
      at_most: One-sided upper bound: with 95 % confidence the rate is not higher.
    """

    count: int
    total: int
    rate: float
    low: float
    high: float
    at_most: float


def rate_of(count: int, total: int) -> Rate:
    """Return a rate with its exact bounds; `total` is 1 or more."""
    low, high = rate_interval(count, total, coverage=CONFIDENCE)
    return Rate(count, total, count / total, low, high, upper_bound(count, total))


def upper_bound(count: int, total: int) -> float:
    """Return the rate that is not exceeded with 95 % confidence."""
    if count >= total:
        return 1.0
    return float(stats.beta.ppf(CONFIDENCE, count + 1, total - count))


def lower_bound(count: int, total: int) -> float:
    """Return the rate that is exceeded with 95 % confidence."""
    return 1 - upper_bound(total - count, total)


def images_for(bound: float, *, count: int = 0) -> int:
    """Return how many images in all give an upper bound of at most `bound`.

    Args:
      bound: Rate in (0, 1).
      count: Images stopped so far; no further one is assumed to be stopped.
    """
    low, high = count, count + 1
    while upper_bound(count, high) > bound and high < MOST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if upper_bound(count, middle) <= bound else (middle, high)
    return high
