"""Ranking of anomalous items above normal ones by score: AUROC, average precision, best F1.

Every figure is a function of `Levels`, the counts of normal and anomalous items at each distinct
score. Image scores give levels of exactly equal scores (`levels`); pixels give levels that are
bins of a histogram (`PixelHistogram.levels`). Bins treat different scores as equal, and the
`*_bound` functions say how far a figure can be off because of it.

Notation of the comments: at level b, n and p are the normal and anomalous items; F and T those at
b or above; F' = F - n and T' = T - p those above; N and P all of them.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class UndefinedMetric(ValueError):
    """Error of a figure that the data cannot give; its text is the reason, as a short phrase."""


class Levels(NamedTuple):
    """Counts of items by score, highest score first; no level is empty.

    Attributes:
      score: Score of the level. For a bin its lowest, so that `score >= level` picks whole bins.
      normal: Number of normal items at the level.
      anomalous: Number of anomalous items at the level.
      tied: True where all items of a bin have one score. None where scores are exact.
    """

    score: Float[np.ndarray, " n"]
    normal: Int[np.ndarray, " n"]
    anomalous: Int[np.ndarray, " n"]
    tied: Bool[np.ndarray, " n"] | None = None


def unsure(counts: Levels) -> Bool[np.ndarray, " n"]:
    """Return which levels a threshold may split: bins, except those whose scores all tie."""
    return np.ones(len(counts.score), bool) if counts.tied is None else ~counts.tied


def levels(scores: Float[np.ndarray, " n"], labels: Bool[np.ndarray, " n"]) -> Levels:
    """Group items of exactly equal score.

    Args:
      scores: Any finite values, higher is more anomalous.
      labels: True where the item is anomalous.

    Raises:
      ValueError: If the lengths differ or a score is NaN or infinite.
    """
    if scores.shape != labels.shape:
        raise ValueError(
            f"{len(scores)} scores but {len(labels)} labels; give one label for each score."
        )
    if not np.isfinite(scores).all():
        bad = np.count_nonzero(~np.isfinite(scores))
        raise ValueError(f"{bad} of {len(scores)} scores are NaN or infinite and cannot be ranked.")
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
    """Return the false and the true positives at the threshold of each level, as float64.

    Counts of pixels stay far below 2^53, so the floats are exact and products cannot overflow.

    Raises:
      UndefinedMetric: If either class, or both, has no item.
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
    """Compute the area under the ROC curve, in [0, 1]; 0.5 is chance.

    It is the probability that an anomalous item scores above a normal one, with ties counting half
    (Mann-Whitney U over N P), which equals the trapezoidal area.

    Raises:
      UndefinedMetric: If either class has no item.
    """
    false, true = cumulative(counts)
    beaten = false[-1] - false + counts.normal / 2
    return float(counts.anomalous @ beaten / (false[-1] * true[-1]))


def wins(
    scores: Float[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Return, for each item, twice the number of items of the other class that it wins against.

    An anomalous item wins by scoring higher, a normal one by scoring lower. A tie counts half
    (the placements of DeLong et al. 1988, as whole numbers).
    """
    won = np.empty(len(scores), np.int64)
    for kind in (True, False):
        mine, others = scores[anomalous == kind], np.sort(scores[anomalous != kind])
        below = sum(np.searchsorted(others, mine, side) for side in ("left", "right"))
        won[anomalous == kind] = below if kind else 2 * len(others) - below
    return won


def auroc_bound(counts: Levels) -> float:
    """Bound how far `auroc` of binned scores can be from that of the exact scores.

    A bin's n p pairs count as ties, n p / 2. Exactly, they give between 0 and n p, unless all
    scores of the bin tie. The bound is therefore sum(n p) / (2 N P) over the bins without such a
    tie, and it can be reached.

    Raises:
      UndefinedMetric: If either class has no item.
    """
    false, true = cumulative(counts)
    pairs = counts.anomalous @ (counts.normal * unsure(counts)).astype(np.float64)
    return float(pairs / (2 * false[-1] * true[-1]))


def average_precision(counts: Levels) -> float:
    """Compute average precision, in (0, 1]: each level's precision, weighted by its added recall.

    It is the step sum of scikit-learn's `average_precision_score`, without interpolation.

    Raises:
      UndefinedMetric: If either class has no item.
    """
    false, true = cumulative(counts)
    return float(counts.anomalous @ (true / (true + false)) / true[-1])


def average_precision_bound(counts: Levels) -> float:
    """Bound how far `average_precision` of binned scores can be from the exact one.

    A bin contributes p T / (T + F), over P. Exactly, it contributes at most p T / (T + F'),
    reached when its anomalous items tie above its normal ones, and at least the sum over
    r = 1..p of (T' + r) / (T' + r + F), reached when they follow them one by one. That sum is
    p - F sum(1 / (T' + F + r)), and as 1/x is convex, each term is at most its mean over
    r - 1/2 .. r + 1/2: sum <= log(1 + p / (T' + F + 1/2)). A bin whose scores tie is exact.

    Raises:
      UndefinedMetric: If either class has no item.
    """
    false, true = cumulative(counts)
    p = counts.anomalous
    binned = p * true / (true + false)
    # If the first bin has normal items only, T + F' is 0, and so is p.
    most = p * true / np.maximum(true + false - counts.normal, 1)
    least = p - false * np.log1p(p / (true - p + false + 0.5))
    above, below = (most - binned)[unsure(counts)], (binned - least)[unsure(counts)]
    return float(max(np.sum(above), np.sum(below)) / true[-1])


def f1_max(counts: Levels) -> tuple[float, float]:
    """Find the highest F1 = 2 T / (P + T + F) over all thresholds, in (0, 1], and the threshold.

    Of several equally good thresholds it returns the highest. Reports call the figure an oracle:
    the threshold is chosen on the same items on which it is evaluated.

    Raises:
      UndefinedMetric: If either class has no item.
    """
    false, true = cumulative(counts)
    f1 = 2 * true / (true[-1] + true + false)
    best = np.argmax(f1)
    return float(f1[best]), float(counts.score[best])


def f1_max_bound(counts: Levels) -> float:
    """Bound how far the exact highest F1 can exceed that of binned scores; it is never below.

    The binned value is reached by its threshold. A threshold inside a bin has between T' and T
    true and between F' and F false positives, so its F1 is at most 2 T / (P + T + F').

    Raises:
      UndefinedMetric: If either class has no item.
    """
    false, true = cumulative(counts)
    most = np.max(2 * true / (true[-1] + true + false - counts.normal * unsure(counts)))
    return float(most - f1_max(counts)[0])


def presorted_good(counts: Levels, *, percent: int) -> float:
    """Compute PGn, the share of normal items kept if at most `percent` % of anomalous ones escape.

    The threshold is the highest at which no more escape. The figure is that of Baitieva et al.
    2025, "Beyond Academic Benchmarks", who present it as the share that a line without people
    would keep: 1 - PGn is scrapped. Their threshold is an interpolated quantile of the anomalous
    scores, at which one more item than the share allows may escape. Here the share is never
    exceeded. Like `f1_max`, the figure is an oracle.

    Raises:
      UndefinedMetric: If either class has no item, or the share is less than one anomalous item,
        in which case the figure would be that of no escapes at all.
      ValueError: If `percent` is not in 1 to 99.
    """
    false, true = cumulative(counts)
    escaped = _resolved(percent, int(true[-1]), "defective")
    at = np.searchsorted(true, true[-1] - escaped)
    return float(1 - false[at] / false[-1])


def presorted_bad(counts: Levels, *, percent: int) -> float:
    """Compute PBn, the share of anomalous items caught if at most `percent` % of normal ones are.

    The threshold is the lowest that scraps no more normal items. This is the counterpart of
    `presorted_good`.

    Raises:
      UndefinedMetric: If either class has no item, or the share is less than one normal item.
      ValueError: If `percent` is not in 1 to 99.
    """
    false, true = cumulative(counts)
    scrapped = _resolved(percent, int(false[-1]), "good")
    above = np.searchsorted(false, scrapped, side="right")
    return float(np.append(0.0, true)[above] / true[-1])


def _resolved(percent: int, items: int, of: str) -> int:
    """Return how many of the items the share is, rounded down."""
    if not 0 < percent < 100:
        raise ValueError(f"percent must be a whole number from 1 to 99, not {percent}.")
    if items * percent < 100:
        raise UndefinedMetric(
            f"{percent} % of {items} {of} images is less than one image, as "
            f"{-(-100 // percent)} or more are needed"
        )
    return items * percent // 100


def thin(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"], max_points: int
) -> Int[np.ndarray, " k"]:
    """Return the indices of at most `max_points` points of a rising curve, including both ends.

    Points are evenly spaced in x + y, so that steep and flat stretches are equally well drawn.

    Raises:
      ValueError: If `max_points` is below 2.
    """
    if max_points < 2:
        raise ValueError(f"max_points must be 2 or more to draw a curve, not {max_points}.")
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
    """Return points of the ROC curve for plotting: (false-positive rate, true-positive rate).

    Both rise from 0 to 1. This curve may be thinned, so compute areas with `auroc`.

    Raises:
      UndefinedMetric: If either class has no item.
      ValueError: If `max_points` is below 2.
    """
    false, true = cumulative(counts)
    fpr = np.append(0.0, false / false[-1])
    tpr = np.append(0.0, true / true[-1])
    keep = thin(fpr, tpr, max_points)
    return fpr[keep], tpr[keep]


def pr_curve(
    counts: Levels, *, max_points: int = 1000
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return points of the precision-recall curve for plotting: (recall, precision).

    Recall rises from point to point.

    Raises:
      UndefinedMetric: If either class has no item.
      ValueError: If `max_points` is below 2.
    """
    false, true = cumulative(counts)
    keep = thin(false / false[-1], true / true[-1], max_points)
    return true[keep] / true[-1], true[keep] / (true[keep] + false[keep])
