"""The report: one HTML file that needs no network and no other file.

Its only script adds sliders for the thresholds and makes the table of images sortable. The security
policy in the page's head names the script by its hash, so that nothing else runs, whatever a file
name contains. Without scripts the page shows everything but these controls.
"""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from recon_ad.metrics.figures import AVERAGED, figure_label
from recon_ad.report import wording
from recon_ad.report.baseline import baseline, warnings
from recon_ad.report.content import Report, Score
from recon_ad.report.distribution import distribution
from recon_ad.report.gallery import gallery
from recon_ad.report.key_figures import figure_table, key_figures
from recon_ad.report.markup import curve, paragraph, section, text
from recon_ad.report.plots import patch_histogram, pro_curve, roc_curve, training_curve
from recon_ad.report.protocol import protocol
from recon_ad.report.verdict import verdict
from recon_ad.runtime.files import write_text


def write_report(path: str | os.PathLike, report: Report) -> None:
    """Write the report to `path`, whole or not at all.

    Args:
      path: HTML file. An older one is replaced only when the new one is complete.
      report: Content to show.

    Raises:
      ValueError: If a panel's arrays do not fit each other.
      OSError: If the folder does not exist or cannot be written to.
    """
    write_text(Path(path), render_report(report))


def render_report(report: Report) -> str:
    """Return the page as text.

    Raises:
      ValueError: If a panel's arrays do not fit each other.
    """
    metrics = report.metrics
    scores = [Score(*row) for row in report.scores]
    trained = any(wording.is_number(row.get("train_loss")) for row in report.training)
    sections = [
        ("images", "Pictures", gallery(report.panels)),
        ("figures", "Key figures", key_figures(metrics, trained=trained)),
        ("baseline", "Comparison without a model", baseline(metrics)),
        ("categories", "By category", _per_category(metrics)),
        ("defects", "By defect type", _per_defect(metrics)),
        ("distribution", "Scores and threshold", distribution(scores, report.threshold)),
        ("curves", "Curves", _curves(report)),
        ("patches", "Residual of patches", _patches(report)),
        ("training", "Training", _training(report)),
        ("protocol", "How these figures were obtained", protocol(metrics.get("protocol", {}))),
    ]
    return page(
        "Anomaly detection report",
        report.title,
        lead=verdict(scores, metrics, report.threshold),
        messages=[*report.messages, *warnings(metrics)],
        sections=sections,
        script=_file("report.js"),
    )


def page(
    kind: str,
    title: str,
    *,
    lead: str,
    messages: Sequence[str],
    sections: Sequence[tuple[str, str, str]],
    script: str = "",
) -> str:
    """Return a whole page in the report's style.

    Args:
      kind: Plain text above the title.
      title: Plain text.
      lead: Markup below the title.
      messages: Plain sentences to be read first.
      sections: Anchor, plain title and markup of each section. Those without markup are left out.
      script: The only script that the page allows to run.
    """
    present = [entry for entry in sections if entry[2]]
    return Template(_file("report.html")).substitute(
        kind=text(kind),
        title=text(title),
        style=_file("report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        lead=lead,
        messages=_messages(messages),
        contents="".join(f'<li><a href="#{a}">{text(t)}</a></li>' for a, t, _ in present),
        sections="\n".join(section(*entry) for entry in present),
    )


def _file(name: str) -> str:
    return resources.files("recon_ad.report").joinpath(name).read_text(encoding="utf-8")


def _messages(messages: Sequence[str]) -> str:
    if not messages:
        return ""
    items = "".join(f"<li>{text(message)}</li>" for message in messages)
    # The list takes the focus, because only then can it be scrolled with the keyboard.
    return (
        '<aside class="messages" aria-labelledby="messages-title">'
        f'<h2 id="messages-title">Read this first</h2><ul tabindex="0">{items}</ul></aside>'
    )


def _per_category(metrics: Mapping[str, Any]) -> str:
    per_category = metrics.get("per_category")
    if not per_category:
        return ""
    words = (
        "One model inspects all categories. The table ranks each category separately, as papers "
        "do. The key figures cover all images together, each compared with the threshold of its "
        "category."
    )
    means = ", ".join(
        f"{figure_label(key)} {wording.shown(metrics, key, value)}"
        for key, value in metrics.get("category_mean", {}).items()
        if key in AVERAGED and value is not None
    )
    mean = paragraph(f"Mean over the categories: {text(means)}.") if means else ""
    ranked = {  # without the nested no-model row
        name: {key: value for key, value in figures.items() if key != "no_model"}
        for name, figures in per_category.items()
    }
    rows = figure_table(metrics, "per_category", ranked, "Figures by category")
    return paragraph(words, kind="note") + rows + mean


def _per_defect(metrics: Mapping[str, Any]) -> str:
    parts = []
    per_defect = metrics.get("per_defect")
    if per_defect:
        parts.append(figure_table(metrics, "per_defect", per_defect, "Figures by defect type"))
    truths = metrics.get("truths")
    if truths:
        words = (
            "The data set has further sets of masks of the true defects, such as those of a second "
            "person. The table gives the figures of each set."
        )
        parts.append(paragraph(words, kind="note"))
        parts.append(figure_table(metrics, "truths", truths, "Figures by set of defect masks"))
    return "".join(parts)


def _curves(report: Report) -> str:
    metrics = report.metrics

    def worth(key: str) -> str:
        return wording.shown(metrics, key, metrics.get(key))

    parts = []
    if "roc" in report.curves:
        point = [metrics.get("image_fpr_calibrated"), metrics.get("image_tpr_calibrated")]
        at = tuple(point) if all(map(wording.is_number, point)) else None
        svg = roc_curve(*report.curves["roc"], operating_point=at)
        caption = f"ROC over images: AUROC {worth('image_auroc')}."
        parts.append(curve(svg, alt=f"Curve. {caption}", caption=caption))
    if "pixel_roc" in report.curves:
        svg = roc_curve(*report.curves["pixel_roc"], unit="pixels")
        caption = f"ROC over pixels: AUROC {worth('pixel_auroc')}."
        parts.append(curve(svg, alt=f"Curve. {caption}", caption=caption))
    if "pro" in report.curves:
        svg = pro_curve(*report.curves["pro"])
        caption = f"Overlap per defect region (PRO): area up to the limit {worth('aupro_30')}."
        parts.append(curve(svg, alt=f"Curve. {caption}", caption=caption))
    if not parts:
        return ""
    words = (
        "The curves show the results at all other thresholds. AUROC is the area under a ROC curve: "
        "the chance that a defective image, or pixel, scores higher than a good one."
    )
    return paragraph(words, kind="note") + f'<div class="plots">{"".join(parts)}</div>'


def _patches(report: Report) -> str:
    given = report.patches or {}
    if not any(np.isfinite(values).any() for values in given.values()):
        return ""
    parts = []
    for name in ("normal", "defective"):
        values = given[name]
        left_out = int((~np.isfinite(values)).sum())
        beside = f" ({left_out:,} more without a finite residual are left out)" * bool(left_out)
        parts.append(f"{values.size - left_out:,} {name}{beside}")
    metrics, key = report.metrics, "patch_auroc"
    worth = wording.shown(metrics, key, metrics.get(key))
    if not wording.is_number(metrics.get(key)):
        worth += f", {wording.reason(metrics, key)}"
    caption = f"{' and '.join(parts)} patches of the test images: AUROC {worth}."
    intro = paragraph(text(wording.PATCHES), kind="note")
    svg = patch_histogram(given)
    return intro + curve(svg, alt=f"Two histograms. {caption}", caption=caption, wide=True)


def _training(report: Report) -> str:
    keys = ("train_loss", "heldout_loss")
    measured = [[row for row in report.training if wording.is_number(row.get(k))] for k in keys]
    if max(map(len, measured)) < 2:  # no curve
        return ""
    last = report.training[-1]
    caption = f"{len(report.training):,} measurements, the last at step {int(last['step']):,}."
    for key, label in (("train_loss", "training loss"), ("heldout_loss", "held-out loss")):
        if wording.is_number(last.get(key)):
            caption += f" Last {label} {wording.significant(last[key])}."
    alt = f"Curve of the losses over the training steps. {caption}"
    return curve(training_curve(report.training), alt=alt, caption=caption, wide=True)
