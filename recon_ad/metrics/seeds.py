"""Figures of runs that differ only in the seed: their mean and its confidence interval.

The interval is Student's: mean ± t · s / √n, with s the standard deviation over n seeds (n − 1 in
its denominator) and t the 97.5 % point at n − 1 degrees of freedom. It covers the choice of seeds
only, not that of the test images, which are the same for all.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import NamedTuple

from scipy.special import stdtrit

CONFIDENCE = 0.95


class Mean(NamedTuple):
    """Mean of a figure over seeds.

    Attributes:
      value: The mean.
      half: Half the width of the 95 % interval. None for a single seed, which shows no spread.
      n: Number of seeds that have the figure.
    """

    value: float
    half: float | None
    n: int


def mean_over_seeds(values: Sequence[Real]) -> Mean:
    """Return the mean of one or more values, with its interval if there are two or more."""
    n = len(values)
    mean = statistics.fmean(values)
    if n < 2:
        return Mean(mean, None, n)
    t = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
    return Mean(mean, t * statistics.stdev(values) / math.sqrt(n), n)


def clearly_best(means: Mapping[int, Mean]) -> int | None:
    """Return the row with the greatest mean if its interval lies above all others, else None.

    The answer is also None where there is only one row, or any row has no interval.
    """
    if len(means) < 2 or any(mean.half is None for mean in means.values()):
        return None
    best = max(means, key=lambda row: means[row].value)
    low = means[best].value - means[best].half
    others = (mean for row, mean in means.items() if row != best)
    return best if all(mean.value + mean.half < low for mean in others) else None
