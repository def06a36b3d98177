"""Curves, losses and scores as the report and scores.csv show them."""

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


def draw_curves(
    judged: Sequence[ImageResult], pooled: Pooled
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The curves that the data can give."""
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
        except UndefinedMetric:  # its figure is null, with the reason, in the same report
            continue
    return curves


def training_rows(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Losses by step, train and held-out."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in log:
        row = rows.setdefault(
            entry["step"], {"step": entry["step"], "train_loss": None, "heldout_loss": None}
        )
        row |= {k: entry[k] for k in ("train_loss", "heldout_loss") if k in entry}
    return list(rows.values())


def scores_csv(scores: Sequence[Score], thresholds: Mapping[str, float]) -> str:
    """Returns a line for each test image, with the threshold that it is held against."""
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
