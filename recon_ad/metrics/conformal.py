"""Statistics of held-out good images: thresholds, dependence between scores, outliers.

Scores are those of good images only, any finite values, higher is more anomalous. A threshold stops
images that score strictly above it. α is the false-positive rate: the share of new good images that
the threshold stops.

A promised rate depends on the number of independent units, which are fewer than the images where
these come in series. With groups (one for each series) the units are the groups, and the threshold
is that of hierarchical conformal prediction. Without groups, the number of units is the number of
images divided by the design effect of the scores over blocks of neighbouring images.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

ROUNDING = 1e-9  # 1 − α is rounded in binary, which could raise a rank past a whole number
EQUAL = 0.75  # share of equal scores from which any higher score is an outlier
FALSE_DISCOVERIES = 0.05  # share of the named outliers that may be ordinary

Scores = Float[np.ndarray, " n"]


class Promise(NamedTuple):
    """Threshold and the false-positive rate that it promises.

    Attributes:
      threshold: Score above which images are stopped.
      fpr: False-positive rate promised on average over calibrations, in (0, 1).
      units: Number of independent units behind the promise.
      deciding: Indices of the scores that set the threshold, being equal to it.
    """

    threshold: float
    fpr: float
    units: float
    deciding: tuple[int, ...]


def conformal_threshold(
    scores: Scores,
    *,
    fpr: float,
    regions_per_image: float = 1.0,
    effect: float = 1.0,
    groups: Int[np.ndarray, " n"] | None = None,
) -> Promise:
    """Find the lowest threshold that stops at most `fpr` of new good images on average.

    For n independent images it is the ⌈(n+1)(1−α)⌉-th smallest score (split conformal prediction,
    Vovk et al. 2005). Where n is too small for that, it is the largest score, which promises
    1/(n+1).

    Where scores depend on each other, n/D replaces n, with the design effect D: the threshold is
    the quantile at (1−α)(n/D+1)/(n/D). With K groups each group weighs 1/(K+1), shared evenly by
    its images (hierarchical conformal prediction, Lee et al. 2023, eq. 5). The promise is then for
    a new image of a new group.

    Where the scores are those of regions, r of which make up an image, each image has r chances to
    exceed the threshold, so a region is held to α/r. This suits image scores that are the largest
    of their regions' scores ("max"). Means and sums vary less over an image than over a region, so
    the true rate is then below `fpr`.

    Args:
      scores: Scores of held-out good images, exchangeable with those of future good images.
      fpr: α, in (0, 1).
      regions_per_image: r, 1 for whole images.
      effect: D, from `design_effect`, 1 for independent images.
      groups: Number of each image's group. None means images without groups.

    Returns:
      The threshold with the rate that it promises: `fpr`, or r/(N+r) where N units cannot support
      less (the chance that the largest of N + r exchangeable scores is one of a new image's r).
    """
    n, r = len(scores), regions_per_image
    order = np.argsort(scores, kind="stable")
    if groups is None:
        units = n / effect
        weight = np.full(n, 1 / n)
    else:
        _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        units = float(len(sizes))
        weight = 1 / (units * sizes[place[order]])
    level = (1 - fpr / r) * (units + 1) / units
    if level > 1 + ROUNDING:
        threshold, promised = float(scores[order[-1]]), r / (units + r)
    else:
        rank = int(np.searchsorted(np.cumsum(weight), level - ROUNDING))
        threshold, promised = float(scores[order[min(rank, n - 1)]]), fpr
    return Promise(threshold, promised, units, tuple(np.flatnonzero(scores == threshold).tolist()))


def design_effect(scores: Scores, blocks: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """Estimate how strongly the scores within a block depend on each other.

    The intraclass correlation ρ is that of a one-way analysis of variance,
    (B − W) / (B + (m₀ − 1) W), with the mean squares B between and W within blocks and
    m₀ = (n − Σm²/n) / (k − 1) for k blocks of m images (Donner 1986). The design effect
    1 + (Σm²/n − 1) ρ (Kish 1965) is the number of images of such blocks that count as much as one
    independent image. Ranks replace the scores, whose tails are heavy: otherwise one odd image
    would hide any series.

    Args:
      scores: Scores of good images.
      blocks: Number of each image's block.

    Returns:
      ρ, in [0, 1], and the design effect, from 1 to Σm²/n. They are 0 and 1 where no block has two
      images, or there is only one block.
    """
    values = stats.rankdata(scores)
    _, place, sizes = np.unique(blocks, return_inverse=True, return_counts=True)
    n, k = len(values), len(sizes)
    if k < 2 or n == k:
        return 0.0, 1.0
    means = np.bincount(place, values) / sizes
    between = float(sizes @ (means - values.mean()) ** 2) / (k - 1)
    within = float(np.sum((values - means[place]) ** 2)) / (n - k)
    size = (n - float(sizes @ sizes) / n) / (k - 1)
    spread = between + (size - 1) * within
    correlation = (between - within) / spread if spread > 0 else 0.0
    correlation = min(max(correlation, 0.0), 1.0)
    return correlation, 1 + (float(sizes @ sizes) / n - 1) * correlation


def needed(fpr: float, *, regions_per_image: float = 1.0) -> int:
    """Return the least number N of independent units that can support a rate: r/(N+r) ≤ α."""
    r = regions_per_image
    return max(1, math.ceil(r * (1 - fpr) / fpr - ROUNDING))


def odd_ones(
    scores: Scores, *, known: Float[np.ndarray, " m"] | None = None
) -> Bool[np.ndarray, " n"]:
    """Return which good images score far above the others.

    A rank among n images is never rarer than 1/n, so ranks cannot find an outlier among a handful.
    Instead, the excess over the median is assumed to be exponential; the tails of normal, Gumbel
    and exponential scores are, or are lighter. The scale is that of the median excess, and the
    excess divided by it has the F distribution with 2 and 2k degrees of freedom for k scores above
    the median. If earlier scores are known, an image also has a conformal p-value,
    (1 + #{known ≥ score}) / (m + 1) (Bates et al. 2023). An image is an outlier if the rule of
    Benjamini and Hochberg (1995) finds it at 5 % of false discoveries by either p-value. Scores
    with heavier tails, such as lognormal ones that vary by more than half, give more outliers.

    Args:
      scores: Scores of good images, at least one.
      known: Scores of earlier good images.
    """
    reference = scores if known is None else np.concatenate([known, scores])
    centre = np.median(reference)
    excess = reference[reference > centre] - centre
    named = np.zeros(len(scores), bool)
    if len(reference) >= 4 and np.mean(reference == centre) >= EQUAL:
        named = scores > centre
    elif len(reference) >= 4 and len(excess):
        ratio = np.maximum(scores - centre, 0) / (np.median(excess) / math.log(2))
        p = np.where(scores > centre, 0.5 * stats.f.sf(ratio, 2, 2 * len(excess)), 1.0)
        named = _discoveries(p)
    if known is not None and len(known):
        above = len(known) - np.searchsorted(np.sort(known), scores, side="left")
        named |= _discoveries((1 + above) / (len(known) + 1))
    return named


def _discoveries(p: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Apply the rule of Benjamini and Hochberg at `FALSE_DISCOVERIES`."""
    limits = FALSE_DISCOVERIES * np.arange(1, len(p) + 1) / len(p)
    met = np.flatnonzero(np.sort(p) <= limits)
    return np.zeros(len(p), bool) if not len(met) else p <= np.sort(p)[met[-1]]


def surprising(stopped: int, images: int, *, promised: float, units: float) -> float:
    """Return the chance that at least `stopped` good images are stopped if the promise holds.

    The promise is an average over calibrations: the rate of one calibration with N independent
    units has the distribution Beta(A, N + 1 − A) with A = α (N + 1) (Vovk 2012), so the count is
    beta-binomial. A binomial test would assume the rate α for every calibration, and would call
    one kept promise in five broken.

    Args:
      stopped: Number of good images that score above the threshold.
      images: Number of good images.
      promised: α.
      units: N.
    """
    a = promised * (units + 1)
    return float(stats.betabinom.sf(stopped - 1, images, a, units + 1 - a))


def rate_interval(count: int, total: int, *, coverage: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a rate (Clopper and Pearson 1934); `total` is 1 or more."""
    found = stats.binomtest(count, total).proportion_ci(coverage, method="exact")
    return float(found.low), float(found.high)
