"""What held-out good images promise: thresholds, how far scores depend on each other, outliers.

Scores are of good images only, any finite values, higher is more anomalous. A threshold stops what
scores strictly above it. α is the false-positive rate: the share of new good images that it stops.

A promise rests on independent units, which are fewer than the images where these come in series.
With groups (one for each series) the units are the groups, and the threshold is that of
hierarchical conformal prediction. Without, they are the images divided by the design effect of the
scores over blocks of neighbouring images.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

ROUNDING = 1e-9  # 1 − α is rounded in binary, so that 0.99 · 100 would round up past 99
EQUAL = 0.75  # share of equal scores from which any above them is odd
FALSE_DISCOVERIES = 0.05  # share of those named as odd that may be ordinary

Scores = Float[np.ndarray, " n"]


class Promise(NamedTuple):
    """A threshold and what it stands for.

    Attributes:
      threshold: images that score above it are stopped.
      fpr: false-positive rate that it promises on average over calibrations, in (0, 1).
      units: independent units that the promise rests on.
      deciding: places of the scores that set it: those equal to the threshold.
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
    """Finds the lowest threshold that stops at most `fpr` of new good images on average.

    Of n independent images it is the ⌈(n+1)(1−α)⌉-th smallest score (split conformal prediction,
    Vovk et al. 2005); where n is too small for that, the largest, which promises 1/(n+1).

    Where scores depend on each other, n/D takes the place of n, with the design effect D: the
    threshold is the quantile at (1−α)(n/D+1)/(n/D). With groups, K of them, each weighs
    1/(K+1), shared evenly by its images (hierarchical conformal prediction, Lee et al. 2023,
    eq. 5), for a new image of a new group.

    Where the scores are of regions, r of which make up an image, an image is r chances to exceed
    the threshold: α/r is asked of a region. That is for scores that are the largest of their
    regions' ("max"); means and sums vary less over an image than over a region, so the true rate
    is lower than the one asked for.

    Args:
      scores: of held-out good images, exchangeable with those to come.
      fpr: α, in (0, 1).
      regions_per_image: r, 1 for whole images.
      effect: D, from `design_effect`, 1 for independent images.
      groups: the number of each image's group; None where images are in none.

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
    """Estimates how far the scores of one block resemble each other.

    The intraclass correlation ρ is that of a one-way analysis of variance, (B − W) / (B + (m₀ −
    1) W) with the mean squares B between and W within blocks and m₀ = (n − Σm²/n) / (k − 1) for k
    blocks of m images (Donner 1986). The design effect 1 + (Σm²/n − 1) ρ (Kish 1965) is how many
    images of such blocks count as much as one independent image. Ranks take the place of the
    scores, which have heavy tails: one odd image hides any series else.

    Args:
      scores: of good images.
      blocks: the number of each image's block.

    Returns:
      ρ, in [0, 1], and the design effect, from 1 to Σm²/n; 0 and 1 where no block has two images,
      or there is only one.
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
    """Returns the least number of independent units that can support a rate: N with
    r/(N+r) ≤ α."""
    r = regions_per_image
    return max(1, math.ceil(r * (1 - fpr) / fpr - ROUNDING))


def odd_ones(
    scores: Scores, *, known: Float[np.ndarray, " m"] | None = None
) -> Bool[np.ndarray, " n"]:
    """Tells which good images score far above the others.

    A rank among n images is never rarer than 1/n, so that ranks name none of a handful. Instead
    scores above the median are taken for exponential in their excess, which the tails of normal,
    Gumbel and exponential scores are or stay below. The scale is that of the median excess, and the
    excess over it has the F distribution with 2 and 2k degrees of freedom for k scores above the
    median. Where there are earlier scores, an image also has a conformal p-value,
    (1 + #{known ≥ score}) / (m + 1) (Bates et al. 2023). What the rule of Benjamini and Hochberg
    (1995) finds at 5 % of false discoveries by either is named. Scores of heavier tails, as
    lognormal ones that vary by more than half, name more.

    Args:
      scores: of good images, at least one.
      known: of earlier good images.
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
    """The rule of Benjamini and Hochberg at `FALSE_DISCOVERIES`."""
    limits = FALSE_DISCOVERIES * np.arange(1, len(p) + 1) / len(p)
    met = np.flatnonzero(np.sort(p) <= limits)
    return np.zeros(len(p), bool) if not len(met) else p <= np.sort(p)[met[-1]]


def surprising(stopped: int, images: int, *, promised: float, units: float) -> float:
    """Returns the chance that at least so many good images are stopped though the promise holds.

    The promise is an average over calibrations: the rate of one calibration with N independent
    units has the distribution Beta(A, N + 1 − A) with A = α (N + 1) (Vovk 2012), so that the count
    is beta-binomial. A binomial test would take α for the rate of each calibration, and find one
    promise in five broken that is kept.

    Args:
      stopped: good images that score above the threshold.
      images: good images.
      promised: α.
      units: N.
    """
    a = promised * (units + 1)
    return float(stats.betabinom.sf(stopped - 1, images, a, units + 1 - a))


def rate_interval(count: int, total: int, *, coverage: float = 0.95) -> tuple[float, float]:
    """Returns the exact interval of a rate (Clopper and Pearson 1934); `total` is 1 or more."""
    found = stats.binomtest(count, total).proportion_ci(coverage, method="exact")
    return float(found.low), float(found.high)
