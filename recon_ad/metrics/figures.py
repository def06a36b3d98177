"""Figures of merit: the single list of the figures in metrics.json and how to read each.

A new figure needs a row here and a function that computes it in `recon_ad.metrics.summary`. The
report, comparisons, the papers' tables and `results/` read this list.
"""

from collections.abc import Mapping
from typing import NamedTuple

FPR_LIMIT = 0.3  # upper end of AUPRO's range (Bergmann et al., IJCV 2021)
STRICT_FPR_LIMIT = 0.05  # the same for MVTec AD 2 (Heckler-Kram et al. 2025)
PRESORTED = (1, 2, 5)  # per cent of errors of one kind, at which the other kind is reported


class Figure(NamedTuple):
    """Figure of merit.

    Attributes:
      key: Name in metrics.json.
      label: Name on a page.
      meaning: One or two sentences of explanation for the reader.
      group: How to read the figure, a name in `recon_ad.report.wording.GROUPS`.
      unit: "ratio" in [0, 1]; "percent", a share in [0, 1] shown as per cent; "seconds"; or
        "per second".
      higher_is_better: True if a higher value is better by itself. False for figures that trade
        off against another, and for times, which depend on the machine.
      interval: True if the figure has a 95 % interval.
      main: True if the figure is in short tables.
      averaged: True if papers average the figure over categories.
    """

    key: str
    label: str
    meaning: str
    group: str
    unit: str = "ratio"
    higher_is_better: bool = False
    interval: bool = False
    main: bool = False
    averaged: bool = False


FIGURES: Mapping[str, Figure] = {
    figure.key: figure
    for figure in (
        Figure(
            "image_tpr_calibrated",
            "Defective images found",
            "Share of the defective test images that score above the threshold.",
            "calibrated",
            unit="percent",
            interval=True,
            main=True,
        ),
        Figure(
            "image_fpr_calibrated",
            "False alarms",
            "Share of the good test images that score above the threshold.",
            "calibrated",
            unit="percent",
            interval=True,
            main=True,
        ),
        Figure(
            "image_fpr_promised",
            "False alarms promised",
            "Largest share of new good images that the threshold should stop on average, derived "
            "from good images held out from training.",
            "calibrated",
            unit="percent",
            main=True,
        ),
        Figure(
            "iou_calibrated",
            "Mask overlap, pooled",
            "Intersection over union of the marked and the truly defective pixels, over all test "
            "images together. Large defects count most.",
            "calibrated",
            higher_is_better=True,
            main=True,
        ),
        Figure(
            "iou_mean_calibrated",
            "Mask overlap, per image",
            "The same overlap computed for each defective image, then averaged. Every image counts "
            "equally.",
            "calibrated",
            higher_is_better=True,
        ),
        Figure(
            "seg_f1_calibrated",
            "Pixel F1, pooled",
            "Balance of precision and recall of the marked pixels, over all test images together "
            "(SegF1).",
            "calibrated",
            higher_is_better=True,
            averaged=True,
        ),
        Figure(
            "image_auroc",
            "Image AUROC",
            "Chance that a defective image scores higher than a good one. 0.5 is guessing, 1 is "
            "perfect.",
            "ranking",
            higher_is_better=True,
            interval=True,
            main=True,
            averaged=True,
        ),
        Figure(
            "image_ap",
            "Image average precision",
            "Share of truly defective images among those above the threshold, averaged over "
            "falling thresholds. Guessing gives the share of defective images in the test set.",
            "ranking",
            higher_is_better=True,
            interval=True,
        ),
        Figure(
            "patch_auroc",
            "Patch AUROC",
            "Chance that a patch with defective pixels has a higher mean residual (the anomaly map "
            "before smoothing) than a patch without.",
            "ranking",
            higher_is_better=True,
        ),
        Figure(
            "pixel_auroc",
            "Pixel AUROC",
            "Chance that a defective pixel scores higher than a good one. Looks too good where "
            "defects are small, since most good pixels are easy.",
            "ranking",
            higher_is_better=True,
            interval=True,
            main=True,
            averaged=True,
        ),
        Figure(
            "pixel_ap",
            "Pixel average precision",
            "Share of truly defective pixels among the marked ones, averaged over falling "
            "thresholds. Stricter than AUROC for small defects.",
            "ranking",
            higher_is_better=True,
            interval=True,
        ),
        Figure(
            "aupro_30",
            "AUPRO up to 30\u00a0%",
            "Marked share of each defect region, averaged over all thresholds at which up to 30 % "
            "of the good pixels are falsely marked. Small regions count as much as large ones.",
            "ranking",
            higher_is_better=True,
            interval=True,
            main=True,
            averaged=True,
        ),
        Figure(
            "aupro_05",
            "AUPRO up to 5\u00a0%",
            "The same for up to 5 % falsely marked pixels, where masks begin to be useful.",
            "ranking",
            higher_is_better=True,
            interval=True,
            averaged=True,
        ),
        Figure(
            "aupimo",
            "AUPIMO",
            "Marked share of each image's defective pixels where almost no good pixel is marked: "
            "1 to 10 of 100,000 in the good images. Every image counts equally.",
            "ranking",
            higher_is_better=True,
            averaged=True,
        ),
        Figure(
            "image_f1_max",
            "Best image F1 (oracle)",
            "Balance of precision and recall at the image threshold that is best for these test "
            "images.",
            "oracle",
            higher_is_better=True,
            interval=True,
        ),
        Figure(
            "iou_max_oracle",
            "Best mask overlap",
            "Intersection over union at the pixel threshold that is best for these test images.",
            "oracle",
            higher_is_better=True,
            interval=True,
            main=True,
        ),
        Figure(
            "recall_at_iou_max_oracle",
            "Recall at best overlap",
            "Share of the defective pixels that are marked at the threshold of the best overlap.",
            "oracle",
        ),
        Figure(
            "seg_f1_max_oracle",
            "Best pixel F1",
            "Balance of precision and recall of the marked pixels at the pixel threshold that is "
            "best for these test images.",
            "oracle",
            higher_is_better=True,
            interval=True,
        ),
        *(
            Figure(
                f"pg_{percent}_oracle",
                f"Good images kept (PG{percent})",
                "Share of the good images that pass at the threshold at which at most "
                f"{percent} % of these defective images escape. The other good images are "
                "scrapped.",
                "oracle",
                unit="percent",
                higher_is_better=True,
            )
            for percent in PRESORTED
        ),
        *(
            Figure(
                f"pb_{percent}_oracle",
                f"Defects caught (PB{percent})",
                "Share of the defective images that are stopped at the threshold that scraps at "
                f"most {percent} % of these good images. The other defective images escape.",
                "oracle",
                unit="percent",
                higher_is_better=True,
            )
            for percent in PRESORTED
        ),
        Figure(
            "train_seconds",
            "Training time",
            "Elapsed time of the training.",
            "speed",
            unit="seconds",
            main=True,
        ),
        Figure(
            "patches_per_second",
            "Training speed",
            "Patches per second during training.",
            "speed",
            unit="per second",
        ),
        Figure(
            "images_per_second",
            "Inspection speed",
            "Whole images per second that the detector inspects.",
            "speed",
            unit="per second",
        ),
    )
}
AVERAGED = tuple(key for key, figure in FIGURES.items() if figure.averaged)
MAIN = tuple(key for key, figure in FIGURES.items() if figure.main)
RANKED = tuple(key for key, figure in FIGURES.items() if figure.higher_is_better)


def figure_label(key: str) -> str:
    """Return a figure's name as a column head, or the key if the figure is unknown."""
    if key not in FIGURES:
        return key
    figure = FIGURES[key]
    return figure.label + " (oracle)" * (figure.key.endswith("oracle"))
