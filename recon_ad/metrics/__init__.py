"""Figures of merit of raw anomaly scores: image ranking, pixel segmentation, their intervals.

Here belong functions from scores and truths to figures, on the host, in NumPy and SciPy. What does
not: models, calibrated or normalised scores (normalisation must not reach a metric), thresholds
that a detector uses, plots, and JAX. A threshold that these functions return was chosen with the
truth in hand; whoever reports a figure at it says `oracle`.

An item counts as called anomalous when its score is at or above the threshold.
"""

from recon_ad.metrics.bootstrap import image_intervals, pixel_intervals
from recon_ad.metrics.paired import delong, mcnemar
from recon_ad.metrics.pimo import aupimo, aupimo_bound
from recon_ad.metrics.pro import aupro, aupro_bound, pro_curve
from recon_ad.metrics.ranking import (
    Levels,
    UndefinedMetric,
    auroc,
    auroc_bound,
    average_precision,
    average_precision_bound,
    f1_max,
    f1_max_bound,
    levels,
    pr_curve,
    presorted_bad,
    presorted_good,
    roc_curve,
)
from recon_ad.metrics.segmentation import (
    PixelHistogram,
    compact,
    empty_histogram,
    image_histogram,
    iou_max,
    iou_max_bound,
    merge,
    recall_bound,
    upper_quantile,
)

__all__ = [
    "Levels",
    "PixelHistogram",
    "UndefinedMetric",
    "aupimo",
    "aupimo_bound",
    "aupro",
    "aupro_bound",
    "auroc",
    "auroc_bound",
    "average_precision",
    "average_precision_bound",
    "compact",
    "delong",
    "empty_histogram",
    "f1_max",
    "f1_max_bound",
    "image_histogram",
    "image_intervals",
    "iou_max",
    "iou_max_bound",
    "levels",
    "mcnemar",
    "merge",
    "pixel_intervals",
    "pr_curve",
    "presorted_bad",
    "presorted_good",
    "pro_curve",
    "recall_bound",
    "roc_curve",
    "upper_quantile",
]
