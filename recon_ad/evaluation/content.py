"""Curves, losses, scores and messages for the report and scores.csv."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recon_ad.metrics import levels, merge, pro_curve, roc_curve
from recon_ad.metrics.ranking import UndefinedMetric
from recon_ad.metrics.summary import ImageResult, Pooled
from recon_ad.report import Score
from recon_ad.runtime.files import plain_cell

FINE = 0.9  # image AUROC from which a detector is called good


def draw_curves(
    judged: Sequence[ImageResult], pooled: Pooled
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return those curves that the data can give."""
    everything = merge(pooled.good, *pooled.defects.values())
    counts = levels(
        np.array([j.score for j in judged]), np.array([j.anomalous for j in judged], bool)
    )
    curves = {}
    for name, draw in {
        "roc": lambda: roc_curve(counts),
        "pixel_roc": lambda: roc_curve(everything.levels()),
        "pro": lambda: pro_curve(everything),
    }.items():
        try:
            curves[name] = draw()
        except UndefinedMetric:  # the report shows the reason beside the missing figure
            continue
    return curves


def training_rows(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the training and held-out losses by step."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in log:
        row = rows.setdefault(
            entry["step"], {"step": entry["step"], "train_loss": None, "heldout_loss": None}
        )
        row |= {k: entry[k] for k in ("train_loss", "heldout_loss") if k in entry}
    return list(rows.values())


def training_message(message: str, metrics: Mapping[str, Any]) -> tuple[bool, str]:
    """Return whether the detector is fine despite its training message, and the message to show.

    A model that learnt little can be a good detector if its residual still shows defects.
    """
    auroc = metrics.get("image_auroc")
    if not message or (auroc is not None and auroc < FINE):
        return False, message
    if auroc is None:
        return True, (
            f"{message} The detector may still be good: evaluate it on defective images to find "
            "out."
        )
    return True, (
        f"The detector's figures are good (image AUROC {auroc:.3f}), so the following may need no "
        f"action. {message}"
    )


def scores_csv(scores: Sequence[Score], thresholds: Mapping[str, float]) -> str:
    """Return the content of scores.csv, a line for each test image with score and threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "defect", "score", "threshold", "anomalous"])
    for row in scores:
        name, defect, score, anomalous = row
        writer.writerow(
            [
                plain_cell(name),
                plain_cell(defect),
                repr(score),
                repr(thresholds[name]),
                int(anomalous),
            ]
        )
    return text.getvalue()
