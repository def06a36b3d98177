"""The report: one HTML file that needs no network and no other file.

Its one script adds sliders for the thresholds and makes the table of images sortable. The policy in
the page's head names the script by its hash, so that nothing else runs, whatever a file is called;
without scripts the page reads as it is written here.
"""

import base64
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from recon_ad.metrics.figures import AVERAGED, FIGURES, Figure, figure_label
from recon_ad.report import markup, wording
from recon_ad.report.content import GOOD, Report, Score
from recon_ad.report.distribution import distribution, threshold_text
from recon_ad.report.gallery import gallery
from recon_ad.report.markup import curve, paragraph, section, table, text
from recon_ad.report.plots import patch_histogram, pro_curve, roc_curve, training_curve
from recon_ad.runtime.files import write_text

# Keys of metrics.json that are not single figures and have their own place on the page.
STRUCTURED = (
    *("missing", "intervals", "bounds", "per_category", "category_mean", "per_defect"),
    *("no_model", "truths", "protocol", "decisions"),
)


def write_report(path: str | os.PathLike, report: Report) -> None:
    """Writes the report to `path`, whole or not at all.

    Args:
      path: the HTML file. An older one is replaced only when the new one is complete.
      report: what to show.

    Raises:
      ValueError: a panel's arrays do not fit each other.
      OSError: the folder does not exist or cannot be written to.
    """
    write_text(Path(path), render_report(report))


def render_report(report: Report) -> str:
    """The page as text. Raises `ValueError` where a panel's arrays do not fit each other."""
    scores = [Score(*row) for row in report.scores]
    sections = [
        ("summary", "Key figures", _summary(report, scores)),
        ("baseline", "Model against no model", _baseline(report.metrics)),
        ("categories", "By category", _per_category(report.metrics)),
        ("defects", "By defect type", _per_defect(report.metrics)),
        ("curves", "Curves", _curves(report)),
        ("distribution", "Scores and threshold", distribution(scores, report.threshold)),
        ("patches", "Residual of patches", _patches(report)),
        ("images", "Single images", gallery(report.panels)),
        ("training", "Training", _training(report)),
        ("protocol", "Protocol and versions", _protocol(report.metrics)),
    ]
    return page(
        "Anomaly detection report",
        report.title,
        lead=_lead(report, scores),
        messages=[*report.messages, *wording.no_model_warnings(report.metrics)],
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
    """A whole page in the report's style.

    Args:
      kind: plain text over the title.
      title: plain text.
      lead: markup of the sentence under it.
      messages: plain sentences that are to be read first.
      sections: anchor, plain title and markup of each; those without markup are left out.
      script: the only one that the page lets run.
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


def _lead(report: Report, scores: list[Score]) -> str:
    """What happened at the threshold, in one sentence of counts."""
    if not scores:
        return "There are no test images, so nothing below tells how well defects are found."
    good = [row for row in scores if row.defect == GOOD]
    bad = [row for row in scores if row.defect != GOOD]
    at = ""
    if report.threshold is not None:
        at = f" At the threshold {threshold_text(scores, report.threshold)}"
    parts = []
    if bad:
        found = sum(row.anomalous for row in bad)
        parts.append(f"<b>{found:,} of {len(bad):,}</b> defective images are found")
    if good:
        stopped = sum(row.anomalous for row in good)
        parts.append(f"<b>{stopped:,} of {len(good):,}</b> good images are stopped by mistake")
    decided = " and ".join(parts)
    if not at:
        return f"{len(scores):,} test images: {decided}."
    return f"{len(scores):,} test images.{at}, {decided}."


def _messages(messages: Sequence[str]) -> str:
    if not messages:
        return ""
    items = "".join(f"<li>{text(message)}</li>" for message in messages)
    return (
        '<aside class="messages" aria-labelledby="messages-title">'
        f'<h2 id="messages-title">Read this first</h2><ul>{items}</ul></aside>'
    )


def _card(metrics: Mapping[str, Any], figure: Figure) -> str:
    key, form = figure.key, wording.FORMS[figure.unit]
    value = metrics.get(key)
    details = []
    if wording.is_number(value):
        shown = f'<p class="value">{text(form(value))}</p>'
        interval = metrics.get("intervals", {}).get(key)
        if interval is not None and all(wording.is_number(end) for end in interval):
            low, high = (form(end) for end in interval)
            details.append(f"95 % interval {low} to {high}")
        bound = metrics.get("bounds", {}).get(key)
        if wording.is_number(bound) and bound > 0:
            details.append(f"± {bound:.1g} (histogram)")
    else:
        shown = '<p class="value none">not available</p>'
        details.append(wording.reason(metrics, key))
    lines = "".join(paragraph(text(line)) for line in details)
    return (
        f'<div class="card"><h4>{text(figure.label)}</h4>{shown}<div class="details">{lines}</div>'
        f'<p class="meaning">{text(figure.meaning)}</p><code>{text(key)}</code></div>'
    )


def _summary(report: Report, scores: list[Score]) -> str:
    metrics = report.metrics
    parts = []
    if "decisions" in metrics:
        sentence = str(metrics["decisions"]["sentence"])
        parts.append(paragraph(text(sentence[:1].upper() + sentence[1:] + ".")))
    if any(value is not None for value in metrics.get("intervals", {}).values()):
        words = (
            "Intervals cover the figure on all images of the kind in 95 % of cases: exact for "
            "rates, a score interval for the image AUROC, by redrawing the test images (bootstrap) "
            "for the rest."
        )
        parts.append(paragraph(words, kind="note"))
    further = [key for key in metrics if key not in FIGURES and key not in STRUCTURED]
    others = [Figure(key, key, "", "further", unit="number") for key in further]
    for name, group in wording.GROUPS.items():
        figures = [one for one in (*FIGURES.values(), *others) if one.group == name]
        if not figures:
            continue
        cards = "".join(_card(metrics, figure) for figure in figures)
        kind = "group oracle" if group.oracle else "group"
        parts.append(
            f'<div class="{kind}"><h3>{text(group.title)}</h3>'
            f'<p class="note">{text(group.intro)}</p><div class="cards">{cards}</div></div>'
        )
    return "".join(parts)


def _cell(metrics: Mapping[str, Any], path: str, value: Any, reasons: dict[str, str]) -> str:
    """A table cell; where there is no figure, its reason is added to `reasons`."""
    key = path.rsplit(".", 1)[-1]
    if not wording.is_number(value):
        reasons[path] = wording.reason(metrics, path)
        return '<span class="none">not available</span>'
    return text(wording.shown(metrics, key, value))


def _reasons(reasons: Mapping[str, str]) -> str:
    """The reasons under a table, each once, with what it holds for."""
    by_reason: dict[str, list[str]] = {}
    for path, why in reasons.items():
        by_reason.setdefault(why, []).append(path)
    items = "".join(
        f"<li>{text(why)}: {', '.join(f'<code>{text(path)}</code>' for path in paths)}</li>"
        for why, paths in by_reason.items()
    )
    return f'<p class="note">Not available, and why:</p><ul class="note">{items}</ul>' * bool(items)


def _baseline(metrics: Mapping[str, Any]) -> str:
    no_model = metrics.get("no_model")
    if not no_model:
        return ""
    keys = ("image_auroc", "pixel_auroc")
    reasons: dict[str, str] = {}
    # Of several categories, either is the mean.
    path, model = "", metrics
    if "category_mean" in metrics:
        path, model = "category_mean.", metrics["category_mean"]
    own = [_cell(metrics, path + key, model.get(key), reasons) for key in keys]
    rows = [["this model", *own]]
    for name, label in wording.NO_MODEL.items():
        if name in no_model:
            figures = no_model[name]
            rows.append(
                [f"no model: {label}"]
                + [
                    _cell(metrics, f"no_model.{name}.{key}", figures[key], reasons)
                    if key in figures
                    else '<span class="none">does not apply</span>'
                    for key in keys
                ]
            )
    heads = ["scored by", *(FIGURES[key].label for key in keys)]
    warnings = wording.no_model_warnings(metrics)
    verdict = "".join(paragraph(text(sentence), kind="warning") for sentence in warnings)
    if not warnings and len(reasons) < len(rows):
        verdict = paragraph("The model is clearly ahead of what takes no model at all.")
    intro = paragraph(
        "If brightness alone, or the plain difference from the average good image, tells good "
        "from defective, a high figure says little about the model.",
        kind="note",
    )
    return (
        intro + table("AUROC with and without a model", heads, rows) + verdict + _reasons(reasons)
    )


def _per_category(metrics: Mapping[str, Any]) -> str:
    per_category = metrics.get("per_category")
    if not per_category:
        return ""
    words = (
        "One model for all categories. Each is ranked by itself, as papers do; the key figures are "
        "of all images together, each decided by the threshold of its category."
    )
    means = ", ".join(
        f"{figure_label(key)} {wording.shown(metrics, key, value)}"
        for key, value in metrics.get("category_mean", {}).items()
        if key in AVERAGED and value is not None
    )
    mean = paragraph(f"Mean over the categories: {text(means)}.") if means else ""
    ranked = {  # without a row of its own
        name: {key: value for key, value in figures.items() if key != "no_model"}
        for name, figures in per_category.items()
    }
    rows = _figure_table(metrics, "per_category", ranked, "Figures by category")
    return paragraph(words, kind="note") + rows + mean


def _per_defect(metrics: Mapping[str, Any]) -> str:
    parts = []
    per_defect = metrics.get("per_defect")
    if per_defect:
        parts.append(_figure_table(metrics, "per_defect", per_defect, "Figures by defect type"))
    truths = metrics.get("truths")
    if truths:
        words = "The set has more than one truth; the figures of each, by its name."
        parts.append(paragraph(words, kind="note"))
        parts.append(_figure_table(metrics, "truths", truths, "Figures by truth"))
    return "".join(parts)


def _figure_table(
    metrics: Mapping[str, Any], root: str, rows: Mapping[str, Mapping[str, Any]], caption: str
) -> str:
    present = {key for figures in rows.values() for key in figures}
    known = [key for key in ("n", *FIGURES) if key in present]
    keys = known + sorted(present - set(known))
    heads = [{"n": "images"}.get(key) or figure_label(key) for key in keys]
    reasons: dict[str, str] = {}
    cells = [
        [markup.name(name)]
        + [_cell(metrics, f"{root}.{name}.{key}", figures.get(key), reasons) for key in keys]
        for name, figures in rows.items()
    ]
    return table(caption, ["name", *heads], cells) + _reasons(reasons)


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
        caption = f"Overlap per region: area up to the limit {worth('aupro_30')} of what it can be."
        parts.append(curve(svg, alt=f"Curve. {caption}", caption=caption))
    return f'<div class="plots">{"".join(parts)}</div>' if parts else ""


def _patches(report: Report) -> str:
    if report.patches is None:
        return ""
    parts = []
    for name in ("normal", "defective"):
        values = report.patches[name]
        left_out = int((~np.isfinite(values)).sum())
        beside = f" ({left_out:,} more without a finite residual are left out)" * bool(left_out)
        parts.append(f"{values.size - left_out:,} {name}{beside}")
    metrics, key = report.metrics, "patch_auroc"
    worth = wording.shown(metrics, key, metrics.get(key))
    if not wording.is_number(metrics.get(key)):
        worth += f", {wording.reason(metrics, key)}"
    caption = f"{' and '.join(parts)} patches of the test images: AUROC {worth}."
    intro = paragraph(text(wording.PATCHES), kind="note")
    svg = patch_histogram(report.patches)
    return intro + curve(svg, alt=f"Two histograms. {caption}", caption=caption, wide=True)


def _training(report: Report) -> str:
    if not report.training:
        return ""
    last = report.training[-1]
    caption = f"{len(report.training):,} measurements, the last at step {int(last['step']):,}."
    for key, label in (("train_loss", "training loss"), ("heldout_loss", "held-out loss")):
        if wording.is_number(last.get(key)):
            caption += f" Last {label} {wording.significant(last[key])}."
    alt = f"Curve of the losses over the training steps. {caption}"
    return curve(training_curve(report.training), alt=alt, caption=caption, wide=True)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, plain text) of everything in nested mappings; lists in one line."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        yield path, ", ".join(words for item in value for _, words in _leaves(item)) or "none"
    else:
        yield path, _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.6g}" if np.isfinite(value) else "not a number"
    return str(value)


def _protocol(metrics: Mapping[str, Any]) -> str:
    rows = [[text(path), text(words)] for path, words in _leaves(metrics.get("protocol", {}))]
    return table("How these figures were made", ["setting", "value"], rows) if rows else ""
