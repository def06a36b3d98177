"""Confidence interval of the image AUROC that holds its coverage even for a handful of images.

Intervals from resampling are far too narrow where images are few or nearly all pairs are ranked
correctly. With 8 good and 8 defective images and an AUROC of .96, their "95 %" cover 65 %, and
they are [1, 1] where no pair is ranked wrongly. The interval here is a score interval, as Wilson's
is for a rate: it holds all θ that the observed AUROC A does not contradict,

    (A − θ)² ≤ z² r V(θ).

V(θ) is the variance of A for m good and n defective images whose scores are normal with equal
variances, [θ(1−θ) + (m+n−2)(q−θ²)] / (mn). In it q = θ − 2 T(Φ⁻¹(θ), 1/√3) is the chance that a
defective image scores above two good ones, and T is Owen's function (the form of Newcombe 2006,
section 2.4, with that variance). r brings in the observed variance D of DeLong et al. (1988):
r = (D / V(A))^w with w = k / (k + 40) for k images in the smaller class, as D is itself uncertain
where images are few. The limit 40 was chosen by simulation of normal scores
(`benchmarks/studies/promises.py`). No interval covers what a sample does not show: if one defect
in fifty scores like a good image, a sample of fifty defects may not contain it.
"""

import math

import numpy as np
from jaxtyping import Bool, Float
from scipy import special, stats

from recon_ad.metrics.ranking import UndefinedMetric, wins

FEWEST = 5  # images of a class; with fewer the interval is nearly all of [0, 1]
TRUST = 40  # images in the smaller class at which the observed variance has half the weight
RATIOS = (0.5, 4.0)  # least and greatest ratio of observed to modelled variance
STEPS = 60  # of bisection
ONE_SIDED = 2.326  # 99 %, since several figures are tested, each in both directions


def auroc_interval(
    scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"], *, coverage: float = 0.95
) -> tuple[float, float]:
    """Return the lower and the upper end of the interval.

    Args:
      scores: One score for each image, any finite values, higher is more anomalous. The images
        must be independent of each other.
      labels: True where the image is defective.
      coverage: Share of samples whose interval holds the true value.

    Raises:
      UndefinedMetric: If a class has fewer than `FEWEST` images.
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
    """Return V(θ) of the module's docstring."""
    if not 0 < theta < 1:
        return 0.0
    both = theta - 2 * float(special.owens_t(special.ndtri(theta), 1 / math.sqrt(3)))
    return (theta * (1 - theta) + (m + n - 2) * (both - theta**2)) / (m * n)


def least_auroc(value: float, good: int, defective: int) -> float:
    """Return the lower end of a one-sided 99 % confidence interval of an AUROC in [0.5, 1].

    This is the θ for which value − θ equals z standard errors at θ. It stays meaningful for few
    images and for an AUROC of 1 (Newcombe 2006, Statistics in Medicine 25, p. 559, method 5).
    """
    extra = (good + defective) / 2 - 1
    low, high = 0.0, value
    for _ in range(50):
        theta = (low + high) / 2
        tied = 1 + extra * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        error = math.sqrt(theta * (1 - theta) * tied / (good * defective))
        low, high = (theta, high) if value - theta > ONE_SIDED * error else (low, theta)
    return low
