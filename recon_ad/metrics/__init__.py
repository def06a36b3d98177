"""Figures of merit of raw anomaly scores: image ranking, pixel segmentation, their intervals.

Functions from scores and truths to figures belong here. They run on the host, in NumPy and SciPy.
Models, calibrated or normalised scores (normalisation must not reach a metric), thresholds that a
detector uses, plots, and JAX do not belong here. A threshold that these functions return was
chosen with knowledge of the truth, so a figure reported at it must be named `oracle`.

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
