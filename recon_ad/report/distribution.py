"""Scores of all test images: their histogram, the image threshold's slider, their table."""

import math
from collections.abc import Sequence
from numbers import Real

import numpy as np

from recon_ad.report import markup, wording
from recon_ad.report.content import GOOD, Score
from recon_ad.report.plots import score_histogram
from recon_ad.report.sliders import image_scale, slider

HEADS = ("image", "true class", "score", "decision")
# The script's counts at each position of the slider: identifier, name, whether of good images.
COUNTS = (
    ("false-alarms", "False alarms", True),
    ("fpr", "Share of good images stopped", True),
    ("true-alarms", "Defective images found", False),
    ("misses", "Misses", False),
    ("tpr", "Share of defective images found", False),
)


def threshold_text(scores: Sequence[Score], threshold: Real) -> str:
    """Format the threshold with enough digits to distinguish it from the nearest scores."""
    values = np.unique([row.score for row in scores if wording.is_number(row.score)])
    place = int(np.searchsorted(values, threshold))
    # Up to three, as the threshold itself may be one of the scores.
    near = values[max(0, place - 1) : place + 2].tolist()
    return wording.score(threshold, wording.digits_apart(threshold, *near))


def _called(row: Score) -> str:
    called = "defective" if row.anomalous else "good"
    if row.anomalous and row.defect == GOOD:
        return f'{called} <strong class="wrong">false alarm</strong>'
    if not row.anomalous and row.defect != GOOD:
        return f'{called} <strong class="wrong">missed</strong>'
    return called


def distribution(scores: Sequence[Score], threshold: Real | None) -> str:
    """Return the markup of the whole section, or "" without test images."""
    if not scores:
        return ""
    values = np.array([row.score for row in scores], float)
    svg = score_histogram(values, [row.defect for row in scores], threshold=threshold)
    left_out = int((~np.isfinite(values)).sum())
    caption = "Top: number of images. Bottom: every test image as a marker."
    if left_out:
        caption += f" {left_out:,} without a finite score not shown."
    at = "none" if threshold is None else threshold_text(scores, threshold)
    alt = f"Histogram of {len(scores):,} image scores by defect type, threshold {at}."
    figure = markup.curve(svg, alt=alt, caption=caption, wide=True)
    return figure + _slider(scores, threshold) + _filters() + _table(scores, threshold)


def _slider(scores: Sequence[Score], threshold: Real | None) -> str:
    scale = image_scale([row.score for row in scores], threshold)
    if scale is None:
        return ""
    kinds = {row.defect == GOOD for row in scores}
    counts = "".join(
        f'<div><dt>{name}</dt><dd id="count-{key}"></dd></div>'
        for key, name, good in COUNTS
        if good in kinds
    )
    return slider(
        "image-threshold",
        "Image threshold",
        scale,
        looser="more images are called defective",
        stricter="fewer images are called defective",
        note="Each step of the slider passes one score. The slider changes the counts here and the "
        "table; all other figures on this page stay at the calibrated threshold. A threshold that "
        "is chosen by these counts is fitted to the test images, which then no longer test it.",
        body=f'<dl class="counts" role="status">{counts}</dl>',
    )


def _filters() -> str:
    """Return the controls above the table, which the script fills and shows."""
    return (
        '<div class="filters" id="filters" role="group" aria-label="Filters of the table" hidden>'
        '<label>True class <select id="filter-truth"><option value="">all</option></select>'
        '</label><label>Decision <select id="filter-called"><option value="">all</option>'
        '<option value="wrong">wrong</option><option value="false alarm">false alarm</option>'
        '<option value="missed">missed</option><option value="defective">defective</option>'
        '<option value="good">good</option></select></label>'
        '<label>Name contains <input type="search" id="filter-name" autocomplete="off"></label>'
        '<p id="filter-count" role="status"></p>'
        '<button type="button" id="page-back">Previous</button>'
        '<button type="button" id="page-on">Next</button></div>'
    )


def _number(value: Real) -> str:
    """Write a number as JavaScript reads it."""
    if math.isnan(value):
        return "NaN"
    return repr(float(value)).replace("inf", "Infinity")


def _table(scores: Sequence[Score], threshold: Real | None) -> str:
    # Scores that are not finite come first, as they need attention.
    ordered = sorted(scores, key=lambda row: -row.score if np.isfinite(row.score) else -np.inf)
    against = () if threshold is None else (threshold,)
    rows, data = [], []
    for row in ordered:
        shown = wording.score(row.score, wording.digits_apart(row.score, *against))
        rows.append([markup.name(row.name), markup.name(row.defect), shown, _called(row)])
        data.append(
            {
                "score": _number(row.score),
                "called": int(row.anomalous),
                "defective": int(row.defect != GOOD),
            }
        )
    caption = f"All {len(rows):,} test images, the highest score first"
    return markup.table(caption, HEADS, rows, kind="tall images", row_data=data)
