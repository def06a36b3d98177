"""Figures of runs that differ in nothing but the seed: their mean and how sure it is.

The interval is Student's: mean ± t · s / √n, with s the standard deviation over n seeds (n − 1 in
its denominator) and t the 97.5 % point at n − 1 degrees of freedom. It tells of seeds only, not of
the test images, which are the same for all.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import NamedTuple

from scipy.special import stdtrit

CONFIDENCE = 0.95


class Mean(NamedTuple):
    """A figure over seeds.

    Attributes:
      value: the mean.
      half: half the width of the 95 % interval; None of a single seed, which tells of no spread.
      n: seeds that have the figure.
    """

    value: float
    half: float | None
    n: int


def mean_over_seeds(values: Sequence[Real]) -> Mean:
    """The mean of one or more values, and its interval where there are two or more."""
    n = len(values)
    mean = statistics.fmean(values)
    if n < 2:
        return Mean(mean, None, n)
    t = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return Mean(mean, t * statistics.stdev(values) / math.sqrt(n), n)


def clearly_best(means: Mapping[int, Mean]) -> int | None:
    """Whose mean is greatest, if its interval lies above all others'; else None.

    None, too, where there is nothing to compare with, or any of them has no interval.
    """
    if len(means) < 2 or any(mean.half is None for mean in means.values()):
        return None
    best = max(means, key=lambda row: means[row].value)
    low = means[best].value - means[best].half
    others = (mean for row, mean in means.items() if row != best)
    return best if all(mean.value + mean.half < low for mean in others) else None
