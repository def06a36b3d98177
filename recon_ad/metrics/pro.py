"""Per-region overlap from a histogram of pixels: the curve, the area under it, the area's bound.

PRO at a threshold is the mean, over the truth's regions in all images, of the share of the region's
pixels that score at or above the threshold (Bergmann et al., IJCV 2021).
"""

import numpy as np
from jaxtyping import Float

from recon_ad.metrics.figures import FPR_LIMIT
from recon_ad.metrics.ranking import UndefinedMetric, thin
from recon_ad.metrics.segmentation import PixelHistogram


def _pro_points(
    histogram: PixelHistogram,
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Return false-positive rate and PRO above all scores, then of each bin downwards."""
    if not histogram.normal.any():
        raise UndefinedMetric("no normal pixels")
    if not histogram.anomalous.any():
        raise UndefinedMetric("no anomalous pixels")
    false = np.append(0.0, np.cumsum(histogram.normal[::-1], dtype=np.float64))
    overlap = np.append(0.0, np.cumsum(histogram.overlap[::-1]))
    return false / false[-1], overlap / overlap[-1]


def _pro_at_limit(
    fpr: Float[np.ndarray, " m"], pro: Float[np.ndarray, " m"], limit: float
) -> tuple[int, float, float]:
    """Return the number of points up to the limit, the PRO at it, and the PRO of the next point."""
    if not 0 < limit <= 1:
        raise ValueError(f"fpr_limit must be a rate above 0 and up to 1, not {limit}.")
    inside = int(np.searchsorted(fpr, limit, side="right"))
    after = float(pro[min(inside, len(pro) - 1)])
    return inside, float(np.interp(limit, fpr[inside - 1 :], pro[inside - 1 :])), after


def aupro(histogram: PixelHistogram, *, fpr_limit: float = FPR_LIMIT) -> float:
    """Compute the area under the PRO curve up to a false-positive rate, divided by that rate.

    The area is in [0, 1]. PRO at a threshold is the mean, over the truth's regions in all images,
    of the share of the region's pixels at or above it. The false-positive rate is over all normal
    pixels of all images. Points are joined by straight lines, starting at (0, 0), and the line
    that crosses the limit is cut there. Bergmann et al., IJCV 2021, use the limit 0.3; MVTec AD 2
    (Heckler-Kram et al. 2025) uses 0.05.

    Raises:
      UndefinedMetric: If there are no normal or no anomalous pixels.
      ValueError: If `fpr_limit` is not in (0, 1].
    """
    fpr, pro = _pro_points(histogram)
    inside, at_limit, _ = _pro_at_limit(fpr, pro, fpr_limit)
    x, y = np.append(fpr[:inside], fpr_limit), np.append(pro[:inside], at_limit)
    return float(np.trapezoid(y, x) / fpr_limit)


def aupro_bound(histogram: PixelHistogram, *, fpr_limit: float = FPR_LIMIT) -> float:
    """Bound how far `aupro` of the bins can be from that of the exact scores.

    Across a bin the exact curve rises, in some way, from one corner of a rectangle to the other,
    and the straight line through it is off by at most half the rectangle. In the bin that the
    limit cuts at width w, the curve's area may be anything from 0 to w times the bin's rise. The
    line's area is w times half the rise of the line up to the limit. The larger of the two
    differences counts.

    Raises:
      UndefinedMetric: If there are no normal or no anomalous pixels.
      ValueError: If `fpr_limit` is not in (0, 1].
    """
    fpr, pro = _pro_points(histogram)
    inside, at_limit, after = _pro_at_limit(fpr, pro, fpr_limit)
    before = pro[inside - 1]
    unsure = ~histogram.tied[::-1]  # where all scores tie, the line is the exact curve
    whole = (np.diff(fpr) * np.diff(pro) * unsure)[: inside - 1].sum() / 2
    cut = (
        unsure[min(inside, len(unsure)) - 1]
        * (fpr_limit - fpr[inside - 1])
        * (after - before - (at_limit - before) / 2)
    )
    return float((whole + cut) / fpr_limit)


def pro_curve(
    histogram: PixelHistogram, *, max_points: int = 1000
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Return points of the PRO curve for plotting: (false-positive rate, PRO).

    Both rise from 0 to 1. This curve may be thinned, so compute areas with `aupro`.

    Raises:
      UndefinedMetric: If there are no normal or no anomalous pixels.
      ValueError: If `max_points` is below 2.
    """
    fpr, pro = _pro_points(histogram)
    keep = thin(fpr, pro, max_points)
    return fpr[keep], pro[keep]
