"""Figures of merit: the one list of what metrics.json holds and how each figure is read.

A new figure is a row here and the function that computes it in `recon_ad.metrics.summary`; the
report, comparisons, the papers' tables and `results/` take it from here.
"""

from collections.abc import Mapping
from typing import NamedTuple

FPR_LIMIT = 0.3  # up to which AUPRO counts (Bergmann et al., IJCV 2021)
STRICT_FPR_LIMIT = 0.05  # the same of MVTec AD 2 (Heckler-Kram et al. 2025)
PRESORTED = (1, 2, 5)  # per cent of errors of one kind, at which those of the other are told


class Figure(NamedTuple):
    """A figure of merit.

    Attributes:
      key: its name in metrics.json.
      label: its name on a page.
      meaning: one or two sentences for whoever reads it.
      group: how it is to be read, a name in `recon_ad.report.wording.GROUPS`.
      unit: "ratio" in [0, 1], "percent", a share in [0, 1] that is shown as per cent, "seconds" or
        "per second".
      higher_is_better: whether more of it is better by itself. False for what is bought with
        another figure, and for times, which are a machine's.
      interval: whether it has a 95 % interval.
      main: whether it is in short tables.
      averaged: whether papers average it over categories.
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
            "Share of new good images that the threshold stops at most, on average, by the "
            "held-out good images that it rests on.",
            "calibrated",
            unit="percent",
            main=True,
        ),
        Figure(
            "iou_calibrated",
            "Mask overlap, pooled",
            "Intersection over union of marked and truly defective pixels, all test images taken "
            "together: large defects count most.",
            "calibrated",
            higher_is_better=True,
            main=True,
        ),
        Figure(
            "iou_mean_calibrated",
            "Mask overlap, per image",
            "The same overlap for each defective image, then averaged: every image counts alike.",
            "calibrated",
            higher_is_better=True,
        ),
        Figure(
            "seg_f1_calibrated",
            "Pixel F1, pooled",
            "Balance of precision and recall of the marked pixels, all test images taken together "
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
            "Share of true defects among the flagged images, averaged while the threshold falls. "
            "Guessing gives the share of defective images in the test set.",
            "ranking",
            higher_is_better=True,
            interval=True,
        ),
        Figure(
            "patch_auroc",
            "Patch AUROC",
            "Chance that a patch with defective pixels has a higher mean residual than a patch "
            "without.",
            "ranking",
            higher_is_better=True,
        ),
        Figure(
            "pixel_auroc",
            "Pixel AUROC",
            "Chance that a defective pixel gets a higher residual than a good one. Flatters where "
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
            "Share of truly defective pixels among the marked ones, averaged while the threshold "
            "falls. Stricter than AUROC for small defects.",
            "ranking",
            higher_is_better=True,
            interval=True,
        ),
        Figure(
            "aupro_30",
            "AUPRO up to 30\u00a0%",
            "Share of each defect region that is marked, averaged up to 30 % falsely marked "
            "pixels. Small regions count as much as large ones.",
            "ranking",
            higher_is_better=True,
            interval=True,
            main=True,
            averaged=True,
        ),
        Figure(
            "aupro_05",
            "AUPRO up to 5\u00a0%",
            "The same up to 5 % falsely marked pixels, where masks begin to be of use.",
            "ranking",
            higher_is_better=True,
            interval=True,
            averaged=True,
        ),
        Figure(
            "aupimo",
            "AUPIMO",
            "Share of each defective image's defective pixels that is marked where as good as no "
            "good pixel is: 1 to 10 of 100,000 in the good images. Every image counts alike.",
            "ranking",
            higher_is_better=True,
            averaged=True,
        ),
        Figure(
            "image_f1_max",
            "Best image F1 (oracle)",
            "Balance of precision and recall at the image threshold that suits these test images "
            "best.",
            "oracle",
            higher_is_better=True,
            interval=True,
        ),
        Figure(
            "iou_max_oracle",
            "Best mask overlap",
            "Intersection over union at the pixel threshold that suits these test images best.",
            "oracle",
            higher_is_better=True,
            interval=True,
            main=True,
        ),
        Figure(
            "recall_at_iou_max_oracle",
            "Recall at best overlap",
            "Share of the defective pixels that are marked at that same threshold.",
            "oracle",
        ),
        Figure(
            "seg_f1_max_oracle",
            "Best pixel F1",
            "Balance of precision and recall of the marked pixels at the pixel threshold that "
            "suits these test images best.",
            "oracle",
            higher_is_better=True,
            interval=True,
        ),
        *(
            Figure(
                f"pg_{percent}_oracle",
                f"Good images kept (PG{percent})",
                f"Share of the good images that pass at the threshold that lets {percent} % of "
                "these defective ones escape; the rest is scrapped.",
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
                "Share of the defective images that are stopped at the threshold that scraps "
                f"{percent} % of these good ones; the rest escapes.",
                "oracle",
                unit="percent",
                higher_is_better=True,
            )
            for percent in PRESORTED
        ),
        Figure(
            "train_seconds",
            "Training time",
            "Wall time of the training.",
            "speed",
            unit="seconds",
            main=True,
        ),
        Figure(
            "patches_per_second",
            "Training speed",
            "Patches per second in training.",
            "speed",
            unit="per second",
        ),
        Figure(
            "images_per_second",
            "Inspection speed",
            "Whole images per second through the detector.",
            "speed",
            unit="per second",
        ),
    )
}
AVERAGED = tuple(key for key, figure in FIGURES.items() if figure.averaged)
MAIN = tuple(key for key, figure in FIGURES.items() if figure.main)
RANKED = tuple(key for key, figure in FIGURES.items() if figure.higher_is_better)


def figure_label(key: str) -> str:
    """Returns a figure's name as the head of a column; the key where it has none."""
    if key not in FIGURES:
        return key
    figure = FIGURES[key]
    return figure.label + " (oracle)" * (figure.key.endswith("oracle"))
