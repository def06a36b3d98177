"""Per-image recall at almost no false alarms: AUPIMO and the bound of its bins.

The figure is that of Bertoldo et al. 2024, "AUPIMO: Redefining Visual Anomaly Detection Benchmarks
with High Speed and Low Tolerance". Truth is needed on defective images only: false positives are
counted on good images, so neither a rough mask nor a large defect improves the figure.
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
    """Compute the mean, over defective images, of the area under the image's own recall curve.

    The figure is in [0, 1]. Recall is a function of the false-positive rate at the same threshold.
    That rate is the mean over good images of each image's share of pixels at or above the
    threshold (the paper's shared FPR). The area is over the rate's logarithm, between the ends of
    the range, and is divided by the area of a recall of 1. Points are joined by straight lines
    over the rate, starting at 0. This matters only where a good and a defective pixel have the
    same score.

    Areas are linear in recall, so the mean of the areas is the area under the mean recall.

    Args:
      good: Histogram of each good image. For an image with a region of interest, it holds the
        pixels inside. Images without a pixel do not count.
      defective: Histogram of each defective image. Those without an anomalous pixel do not count.
      fpr_range: Lowest and highest rate.

    Raises:
      UndefinedMetric: If there are no good images, no defective ones with an anomalous pixel, or
        so few good pixels that the lowest rate is less than one of them.
      ValueError: If the rates are not ascending between 0 and 1.
    """
    return _area(*_points(good, defective, fpr_range), fpr_range)[0]


def aupimo_bound(
    good: Sequence[PixelHistogram],
    defective: Sequence[PixelHistogram],
    *,
    fpr_range: tuple[float, float] = FPR_RANGE,
) -> float:
    """Bound how far `aupimo` of the bins can be from that of the exact scores.

    Across a bin the exact curve rises, in some way, from one corner of a rectangle to the other.
    Its area lies between those under the lower and the upper side, and the bound is the larger
    distance to either, summed over the bins. Where all scores of a bin tie, the line is the curve.

    Raises:
      UndefinedMetric: As for `aupimo`.
      ValueError: As for `aupimo`.
    """
    return _area(*_points(good, defective, fpr_range), fpr_range)[1]


def _points(
    good: Sequence[PixelHistogram],
    defective: Sequence[PixelHistogram],
    fpr_range: tuple[float, float],
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], Bool[np.ndarray, " n"]]:
    """Return rate and mean recall above all scores, then of each bin; and which bins may be split.

    Bins run from the highest score downwards. All images are brought to the bits of the coarsest,
    as one threshold applies to all of them.
    """
    low, high = fpr_range
    if not 0 < low < high <= 1:
        raise ValueError(
            f"fpr_range must be two ascending rates above 0 and up to 1, not {fpr_range}."
        )
    good = [histogram for histogram in good if histogram.normal.any()]
    defective = [histogram for histogram in defective if histogram.anomalous.any()]
    if not good:
        raise UndefinedMetric("no good images with a pixel that counts")
    if not defective:
        raise UndefinedMetric("no defective images with a truth mask")
    pixels = sum(int(histogram.normal.sum()) for histogram in good)
    if pixels * low < 1:
        raise UndefinedMetric(
            f"the good images have only {pixels:,} pixels, fewer than the {round(1 / low):,} that "
            f"a false-positive rate of {low:g} needs"
        )
    alike = at_common_bits([*good, *defective])
    # Here `overlap` holds shares of whole images instead of shares of regions.
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
    """Return the bins with pixels of a kind, each with its share of these pixels as `overlap`."""
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
    """Return the area, and the most by which the exact area differs."""
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
    area = min(float(areas.sum() / whole), 1.0)  # rounding may exceed 1
    return area, float(max(short.sum(), over.sum()) / whole)
