"""How well scores rank anomalous items above normal ones: AUROC, average precision, best F1.

Every figure is a function of `Levels`, the counts of normal and anomalous items at each distinct
score. Image scores give levels of exactly equal scores (`levels`); pixels give levels that are
bins of a histogram (`PixelHistogram.levels`). The second kind takes different scores for equal
ones, and the `*_bound` functions say by how much a figure can be off for it. Ties that are real,
as in a map of 8-bit differences, count towards a bound all the same: it is then too careful.

Notation of the comments: at level b, n and p normal and anomalous items; F and T those at b or
above; F' = F - n and T' = T - p those above; N and P all of them.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class UndefinedMetric(ValueError):
    """The data cannot give this figure; the text is the reason, as a short phrase."""


class Levels(NamedTuple):
    """Counts of items by score, highest score first; no level is without items.

    Attributes:
      score: the level's score; for a bin its lowest, so that `score >= level` picks whole bins.
      normal: how many normal items have it.
      anomalous: how many anomalous items have it.
      tied: of bins, whether all items of each have one score; None where scores are exact.
    """

    score: Float[np.ndarray, " n"]
    normal: Int[np.ndarray, " n"]
    anomalous: Int[np.ndarray, " n"]
    tied: Bool[np.ndarray, " n"] | None = None


def unsure(counts: Levels) -> Bool[np.ndarray, " n"]:
    """Returns which levels are bins that a threshold may split: none whose scores all tie."""
    return np.ones(len(counts.score), bool) if counts.tied is None else ~counts.tied


def levels(scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]) -> Levels:
    """Groups items of exactly equal score.

    Args:
      scores: any finite values, higher is more anomalous.
      labels: True where the item is anomalous.

    Raises:
      ValueError: if the lengths differ or a score is NaN or infinite.
    """
    if scores.shape != labels.shape:
        raise ValueError(f"{len(scores)} scores but {len(labels)} labels: give one label a score.")
    if not np.isfinite(scores).all():
        bad = np.count_nonzero(~np.isfinite(scores))
        raise ValueError(f"{bad} of {len(scores)} scores are NaN or infinite; they have no rank.")
    distinct, place = np.unique(scores, return_inverse=True)
    count = len(distinct)
    return Levels(
        distinct[::-1],
        np.bincount(place[~labels], minlength=count)[::-1],
        np.bincount(place[labels], minlength=count)[::-1],
    )


def cumulative(
    counts: Levels,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """False and true positives at the threshold of each level, as float64.

    Counts of pixels stay far below 2^53, so the floats are exact and products cannot overflow.

    Raises:
      UndefinedMetric: if either class, or both, has no item.
    """
    false = np.cumsum(counts.normal, dtype=np.float64)
    true = np.cumsum(counts.anomalous, dtype=np.float64)
    if not len(false):
        raise UndefinedMetric("no items")
    if not false[-1]:
        raise UndefinedMetric("no normal items")
    if not true[-1]:
        raise UndefinedMetric("no anomalous items")
    return false, true


def auroc(counts: Levels) -> float:
    """Area under the ROC curve, in [0, 1]; 0.5 is chance.

    The probability that an anomalous item scores above a normal one, a tie counting half
    (Mann-Whitney U over N P), which is the trapezoidal area.

    Raises:
      UndefinedMetric: if either class has no item.
    """
    false, true = cumulative(counts)
    beaten = false[-1] - false + counts.normal / 2
    return float(counts.anomalous @ beaten / (false[-1] * true[-1]))


def wins(
    scores: Float[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Returns twice the number of items of the other class that each is on the right side of.

    A tie counts half (the placements of DeLong et al. 1988, as whole numbers).
    """
    won = np.empty(len(scores), np.int64)
    for kind in (True, False):
        mine, others = scores[anomalous == kind], np.sort(scores[anomalous != kind])
        below = sum(np.searchsorted(others, mine, side) for side in ("left", "right"))
        won[anomalous == kind] = below if kind else 2 * len(others) - below
    return won


def auroc_bound(counts: Levels) -> float:
    """The most by which `auroc` of binned scores differs from that of the scores themselves.

    A bin's n p pairs count as ties, n p / 2; in truth they give between 0 and n p, but where all
    scores of the bin tie. Hence sum(n p) / (2 N P) over the others, which is reached.

    Raises:
      UndefinedMetric: if either class has no item.
    """
    false, true = cumulative(counts)
    pairs = counts.anomalous @ (counts.normal * unsure(counts)).astype(np.float64)
    return float(pairs / (2 * false[-1] * true[-1]))


def average_precision(counts: Levels) -> float:
    """Average precision, in (0, 1]: precision at each level, weighted by the recall it adds.

    The step sum that scikit-learn's `average_precision_score` computes; no interpolation.

    Raises:
      UndefinedMetric: if either class has no item.
    """
    false, true = cumulative(counts)
    return float(counts.anomalous @ (true / (true + false)) / true[-1])


def average_precision_bound(counts: Levels) -> float:
    """The most by which `average_precision` of binned scores differs from the exact one.

    A bin contributes p T / (T + F), over P. In truth it contributes at most p T / (T + F'),
    reached when its anomalous items tie above its normal ones, and at least the sum over
    r = 1..p of (T' + r) / (T' + r + F), reached when they follow them one by one. That sum is
    p - F sum(1 / (T' + F + r)), and as 1/x is convex, each term is at most its mean over
    r - 1/2 .. r + 1/2: sum <= log(1 + p / (T' + F + 1/2)). A bin whose scores tie is exact.

    Raises:
      UndefinedMetric: if either class has no item.
    """
    false, true = cumulative(counts)
    p = counts.anomalous
    binned = p * true / (true + false)
    # A bin of normal items only can be the first one, where T + F' is 0 as p is.
    most = p * true / np.maximum(true + false - counts.normal, 1)
    least = p - false * np.log1p(p / (true - p + false + 0.5))
    above, below = (most - binned)[unsure(counts)], (binned - least)[unsure(counts)]
    return float(max(np.sum(above), np.sum(below)) / true[-1])


def f1_max(counts: Levels) -> tuple[float, float]:
    """Highest F1 = 2 T / (P + T + F) over all thresholds, in (0, 1], and the threshold.

    Of several thresholds as good as each other, the highest. Called an oracle where it is
    reported: the threshold is chosen on the items that it is judged on.

    Raises:
      UndefinedMetric: if either class has no item.
    """
    false, true = cumulative(counts)
    f1 = 2 * true / (true[-1] + true + false)
    best = np.argmax(f1)
    return float(f1[best]), float(counts.score[best])


def f1_max_bound(counts: Levels) -> float:
    """The most by which the exact highest F1 exceeds that of binned scores; it is never below.

    The binned value is reached by its threshold. A threshold inside a bin has between T' and T
    true and between F' and F false positives, so its F1 is at most 2 T / (P + T + F').

    Raises:
      UndefinedMetric: if either class has no item.
    """
    false, true = cumulative(counts)
    most = np.max(2 * true / (true[-1] + true + false - counts.normal * unsure(counts)))
    return float(most - f1_max(counts)[0])


def presorted_good(counts: Levels, *, percent: int) -> float:
    """PGn: the share of normal items kept where at most `percent` % of the anomalous ones escape.

    Of the thresholds that let no more escape, the highest. Baitieva et al. 2025, "Beyond Academic
    Benchmarks", who present it as what a line without people would keep: 1 - PGn is scrapped.
    Their threshold is an interpolated quantile of the anomalous scores, which may let one item
    more escape than the share allows; here the share is kept. An oracle, as `f1_max`.

    Raises:
      UndefinedMetric: if either class has no item, or the share is less than one anomalous item:
        the figure would be that of no escapes at all.
      ValueError: if `percent` is not in 1 to 99.
    """
    false, true = cumulative(counts)
    escaped = _resolved(percent, int(true[-1]), "defective")
    at = np.searchsorted(true, true[-1] - escaped)
    return float(1 - false[at] / false[-1])


def presorted_bad(counts: Levels, *, percent: int) -> float:
    """PBn: the share of anomalous items caught where at most `percent` % of the normal ones are.

    Of the thresholds that scrap no more, the lowest: the other half of `presorted_good`.

    Raises:
      UndefinedMetric: if either class has no item, or the share is less than one normal item.
      ValueError: if `percent` is not in 1 to 99.
    """
    false, true = cumulative(counts)
    scrapped = _resolved(percent, int(false[-1]), "good")
    above = np.searchsorted(false, scrapped, side="right")
    return float(np.append(0.0, true)[above] / true[-1])


def _resolved(percent: int, items: int, of: str) -> int:
    """How many of the items the share is, rounded down."""
    if not 0 < percent < 100:
        raise ValueError(f"percent is a whole number from 1 to 99, not {percent}.")
    if items * percent < 100:
        raise UndefinedMetric(
            f"{percent} % of {items} {of} images is less than one of them: it takes "
            f"{-(-100 // percent)} or more"
        )
    return items * percent // 100


def thin(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], max_points: int
) -> Int[np.ndarray, " k"]:
    """Indices of at most `max_points` points that draw a rising curve, both ends among them.

    Points are evenly spaced in x + y, so that steep and flat stretches keep theirs alike.

    Raises:
      ValueError: if `max_points` is below 2.
    """
    if max_points < 2:
        raise ValueError(f"a curve needs 2 points or more, not max_points={max_points}.")
    if len(x) <= max_points:
        return np.arange(len(x))
    along = x + y
    marks = np.linspace(along[0], along[-1], max_points)
    picked = np.minimum(np.searchsorted(along, marks), len(x) - 1)
    picked[-1] = len(x) - 1
    return np.unique(picked)


def roc_curve(
    counts: Levels, *, max_points: int = 1000
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Points of the ROC curve for plotting: (false-positive rate, true-positive rate).

    Both rise from 0 to 1. Compute areas with `auroc`: this curve may be thinned.

    Raises:
      UndefinedMetric: if either class has no item.
      ValueError: if `max_points` is below 2.
    """
    false, true = cumulative(counts)
    fpr = np.append(0.0, false / false[-1])
    tpr = np.append(0.0, true / true[-1])
    keep = thin(fpr, tpr, max_points)
    return fpr[keep], tpr[keep]


def pr_curve(
    counts: Levels, *, max_points: int = 1000
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Points of the precision-recall curve for plotting: (recall, precision), recall rising.

    Raises:
      UndefinedMetric: if either class has no item.
      ValueError: if `max_points` is below 2.
    """
    false, true = cumulative(counts)
    keep = thin(false / false[-1], true / true[-1], max_points)
    return true[keep] / true[-1], true[keep] / (true[keep] + false[keep])
