"""Per-image recall at next to no false alarms: AUPIMO and the bound of its bins.

Bertoldo et al. 2024, "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and
Low Tolerance". Truth is only needed on defective images: false positives are those of good ones,
so that neither a rough mask nor a large defect helps.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from recon_ad.metrics.ranking import UndefinedMetric
from recon_ad.metrics.segmentation import PixelHistogram, at_common_bits, merge

FPR_RANGE = (1e-5, 1e-4)  # section 3 of the paper


def aupimo(
    good: Sequence[PixelHistogram],
    defective: Sequence[PixelHistogram],
    *,
    fpr_range: tuple[float, float] = FPR_RANGE,
) -> float:
    """The mean, over defective images, of the area under the recall of the image's own pixels.

    In [0, 1]. Recall is a function of the false-positive rate at the same threshold, which is the
    mean over good images of each one's share of pixels at or above it (the paper's shared FPR).
    The area is over the rate's logarithm, between the ends of the range, and is divided by that
    of a recall of 1. Points are joined by straight lines over the rate, from 0 on; this matters
    only where a good and a defective pixel have the same score.

    Areas are linear in recall, so the mean of the areas is the area under the mean recall.

    Args:
      good: one of each image that is good; of an image with a region of interest, of the pixels
        in it. Images without a pixel do not count.
      defective: one of each image that is not; those without an anomalous pixel do not count.
      fpr_range: lowest and highest rate.

    Raises:
      UndefinedMetric: if there are no good images, no defective ones with an anomalous pixel, or
        so few good pixels that the lowest rate is less than one of them.
      ValueError: if the rates are not ascending between 0 and 1.
    """
    return _area(*_points(good, defective, fpr_range), fpr_range)[0]


def aupimo_bound(
    good: Sequence[PixelHistogram],
    defective: Sequence[PixelHistogram],
    *,
    fpr_range: tuple[float, float] = FPR_RANGE,
) -> float:
    """The most by which `aupimo` of the bins differs from that of the scores themselves.

    Across a bin the exact curve rises, in some way, from one corner of a rectangle to the other:
    its area is between those under the lower and the upper side, of which the figure's own part
    is told. Where all scores of a bin tie, the line is the curve.

    Raises:
      UndefinedMetric: as `aupimo`.
      ValueError: as `aupimo`.
    """
    return _area(*_points(good, defective, fpr_range), fpr_range)[1]


def _points(
    good: Sequence[PixelHistogram],
    defective: Sequence[PixelHistogram],
    fpr_range: tuple[float, float],
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], Bool[np.ndarray, " n"]]:
    """Rate and mean recall above all scores, then of each bin downwards; which bins may be split.

    All images are brought to the bits of the coarsest, as thresholds go through all of them.
    """
    low, high = fpr_range
    if not 0 < low < high <= 1:
        raise ValueError(f"fpr_range is two ascending rates above 0 and up to 1, not {fpr_range}.")
    good = [histogram for histogram in good if histogram.normal.any()]
    defective = [histogram for histogram in defective if histogram.anomalous.any()]
    if not good:
        raise UndefinedMetric("no good images with a pixel that counts")
    if not defective:
        raise UndefinedMetric("no defective images with a truth mask")
    pixels = sum(int(histogram.normal.sum()) for histogram in good)
    if pixels * low < 1:
        raise UndefinedMetric(
            f"the good images have {pixels:,} pixels, so that a false-positive rate of {low:g} is "
            f"less than one of them: it takes {round(1 / low):,} or more"
        )
    alike = at_common_bits([*good, *defective])
    # What `overlap` is to regions, it is to whole images here.
    falsely = merge(*(_weighted(h, "normal") for h in alike[: len(good)]))
    found = merge(*(_weighted(h, "anomalous") for h in alike[len(good) :]))
    both = merge(falsely, found)
    curves = []
    for part, images in ((falsely, good), (found, defective)):
        added = np.zeros(len(both.key))
        added[np.searchsorted(both.key, part.key)] = part.overlap
        curves.append(np.append(0.0, np.cumsum(added[::-1])) / len(images))
    return *curves, ~both.tied[::-1]


def _weighted(histogram: PixelHistogram, kind: str) -> PixelHistogram:
    """The bins that have pixels of a kind, each with its share of them as `overlap`."""
    count = getattr(histogram, kind)
    kept = count > 0
    bins = PixelHistogram(histogram.bits, *(values[kept] for values in histogram[1:]))
    return bins._replace(overlap=count[kept] / count.sum())


def _area(
    rate: Float[np.ndarray, " m"],
    recall: Float[np.ndarray, " m"],
    unsure: Bool[np.ndarray, " n"],
    fpr_range: tuple[float, float],
) -> tuple[float, float]:
    """The area, and the most by which the exact one differs."""
    low, high = fpr_range
    left, right = np.clip(rate[:-1], low, high), np.clip(rate[1:], low, high)
    crossed = right > left
    left, right, unsure = left[crossed], right[crossed], unsure[crossed]
    before, after = recall[:-1][crossed], recall[1:][crossed]
    start = rate[:-1][crossed]
    slope = (after - before) / (rate[1:][crossed] - start)
    width = np.log(right / left)
    # The integral over log x of the line before + slope (x - start).
    areas = (before - slope * start) * width + slope * (right - left)
    short, over = (areas - before * width)[unsure], (after * width - areas)[unsure]
    whole = np.log(high / low)
    area = min(float(areas.sum() / whole), 1.0)  # which rounding may exceed
    return area, float(max(short.sum(), over.sum()) / whole)
