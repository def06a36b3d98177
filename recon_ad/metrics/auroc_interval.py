"""An interval of the image AUROC that covers from a handful of images on.

Resampling is far too narrow where images are few or nearly all pairs are ranked right: at an AUROC
of .96 its "95 %" cover 65 % at 8 good and 8 defective images, and [1, 1] where no pair is ranked
wrong. The interval here is one of scores, as Wilson's is for a rate: all θ that the observed AUROC
A does not contradict,

    (A − θ)² ≤ z² r V(θ),

where V(θ) is the variance of A for m good and n defective images whose scores are normal with one
variance, [θ(1−θ) + (m+n−2)(q−θ²)] / (mn) with q = θ − 2 T(Φ⁻¹(θ), 1/√3), the chance that a
defective image scores above two good ones, and T Owen's function (the form of Newcombe 2006,
section 2.4, with that variance). r brings in the variance that is observed, D of DeLong et al.
(1988): r = (D / V(A))^w with w = k / (k + 40) for k images in the smaller class, as D is itself
uncertain where images are few. The limit 40 was chosen by simulation of normal scores
(`benchmarks/studies/promises.py`). No interval covers what a sample does not show: where one
defect in fifty scores as good images do, fifty defects may lack it.
"""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy import special, stats

from recon_ad.metrics.ranking import UndefinedMetric, wins

FEWEST = 5  # images of a class; with fewer the interval is nearly all of [0, 1]
TRUST = 40  # images in the smaller class at which the observed variance counts by half
RATIOS = (0.5, 4.0)  # the least and the most, of observed over modelled variance
STEPS = 60  # of bisection


def auroc_interval(
    scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"], *, coverage: float = 0.95
) -> tuple[float, float]:
    """Returns the ends of the interval.

    Args:
      scores: one for each image, any finite values, higher is more anomalous; of images that do
        not depend on each other.
      labels: True where the image is defective.
      coverage: share of samples whose interval holds the true value.

    Raises:
      UndefinedMetric: a class has fewer than `FEWEST` images.
    """
    n = int(labels.sum())
    m = len(labels) - n
    if min(m, n) < FEWEST:
        raise UndefinedMetric(
            f"{min(m, n)} {'good' if m <= n else 'defective'} test images are too few for an "
            "interval"
        )
    won = wins(scores, labels)
    good, defective = won[~labels] / (2 * n), won[labels] / (2 * m)
    auroc = float(defective.mean())
    z = float(stats.norm.isf((1 - coverage) / 2))
    inside = (auroc * m * n + 0.5) / (m * n + 1)  # where V is not 0
    observed = float(good.var(ddof=1)) / m + float(defective.var(ddof=1)) / n
    ratio = min(max(observed / _variance(inside, m, n), RATIOS[0]), RATIOS[1])
    ratio **= min(m, n) / (min(m, n) + TRUST)

    def end(limit: float) -> float:
        inner, outer = auroc, limit
        for _ in range(STEPS):
            middle = (inner + outer) / 2
            if (auroc - middle) ** 2 <= z * z * ratio * _variance(middle, m, n):
                inner = middle
            else:
                outer = middle
        return inner

    return end(0.0), end(1.0)


def _variance(theta: float, m: int, n: int) -> float:
    """V(θ) of the module's docstring."""
    if not 0 < theta < 1:
        return 0.0
    both = theta - 2 * float(special.owens_t(special.ndtri(theta), 1 / math.sqrt(3)))
    return (theta * (1 - theta) + (m + n - 2) * (both - theta**2)) / (m * n)
