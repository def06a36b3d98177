"""Figures of `metrics.json` on the page: a few as cards, all of them in tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from recon_ad.metrics.figures import FIGURES, Figure, figure_label
from recon_ad.report import markup, wording
from recon_ad.report.markup import paragraph, table, text

# The figures that most readers need first. The decisions are shown above them, by the verdict.
CARDS = (
    *("image_auroc", "pixel_auroc", "aupro_30"),
    *("iou_calibrated", "images_per_second", "train_seconds"),
)
SEEN = 5e-4  # least bound of a figure that shows in three decimals
# Keys of metrics.json that are not single figures and have their own place on the page.
STRUCTURED = (
    *("missing", "intervals", "bounds", "per_category", "category_mean", "per_defect"),
    *("no_model", "truths", "protocol", "decisions"),
)


def key_figures(metrics: Mapping[str, Any], *, trained: bool = True) -> str:
    """Return the markup of the section.

    Args:
      metrics: Content of `metrics.json`.
      trained: True if the training had a loss. Without one, its speed means nothing.
    """
    known = [FIGURES[key] for key in CARDS if wording.is_number(metrics.get(key))]
    cards = "".join(_card(metrics, figure) for figure in known)
    columns = max(4, len(known))
    shown = f'<div class="cards" style="--n:{columns}">{cards}</div>' * bool(cards)
    further = [
        Figure(key, key, "", "further", unit="number")
        for key in metrics
        if key not in FIGURES and key not in STRUCTURED
    ]
    reasons: dict[str, str] = {}
    tables = []
    for name, group in wording.GROUPS.items():
        figures = [one for one in (*FIGURES.values(), *further) if one.group == name]
        figures = [one for one in figures if trained or one.key != "patches_per_second"]
        tables.append(_table(metrics, group, figures, reasons))
    tables.append(reasons_list(reasons))
    return shown + markup.folded("All figures and their meaning", "".join(tables))


def _card(metrics: Mapping[str, Any], figure: Figure) -> str:
    value = wording.FORMS[figure.unit](metrics[figure.key])
    details = "".join(paragraph(text(line)) for line in _details(metrics, figure))
    return (
        f'<div class="card"><h4>{text(figure.label)}</h4><p class="value">{text(value)}</p>'
        f'<div class="details">{details}</div><p class="meaning">{text(figure.meaning)}</p></div>'
    )


def _details(metrics: Mapping[str, Any], figure: Figure) -> list[str]:
    """Return notes on a figure's uncertainty, and on what it would be by chance."""
    key, value = figure.key, metrics[figure.key]
    details = []
    interval = metrics.get("intervals", {}).get(key)
    if interval is not None and all(map(wording.is_number, interval)):
        if interval[0] < interval[1]:
            low, high = wording.apart(wording.FORMS[figure.unit], *interval)
            details.append(f"95 % interval {low} to {high}")
        else:
            details.append("the same in every resample of the test images, as they are few or easy")
    images = _images(metrics)
    if key == "image_auroc" and value == 1 and images:
        details.append(f"no overlap among these {images} images; other images may overlap")
    if key == "image_f1_max" and wording.calls_all_defective(metrics):
        details.append("no better than calling every image defective")
    bound = metrics.get("bounds", {}).get(key)
    if wording.is_number(bound) and bound >= SEEN:
        details.append(f"± {bound:.1g}, as scores are counted in bins")
    return details


def _images(metrics: Mapping[str, Any]) -> int:
    decided = metrics.get("decisions", {})
    return sum(decided.get(key, 0) for key in ("good", "defective"))


def _table(
    metrics: Mapping[str, Any],
    group: wording.Group,
    figures: Iterable[Figure],
    reasons: dict[str, str],
) -> str:
    rows = []
    for figure in figures:
        value = metrics.get(figure.key)
        if not wording.is_number(value):
            reasons[figure.key] = wording.reason(metrics, figure.key)
            continue
        details = "; ".join(_details(metrics, figure))
        rows.append(
            [
                f"{text(figure.label)}<br><code>{markup.broken(figure.key)}</code>",
                text(wording.FORMS[figure.unit](value)),
                text(details),
                text(figure.meaning),
            ]
        )
    if not rows:
        return ""
    intro = paragraph(text(group.intro), kind="note") if group.intro else ""
    shown = table(group.title, ["figure", "value", "uncertainty", "meaning"], rows, kind="figures")
    return f'<div class="group"><h3>{text(group.title)}</h3>{intro}{shown}</div>'


def figure_table(
    metrics: Mapping[str, Any], root: str, rows: Mapping[str, Mapping[str, Any]], caption: str
) -> str:
    """Return a table of the figures of each row under `root`, with the missing ones' reasons.

    Figures that no row has are left out.
    """
    present = {k for row in rows.values() for k, value in row.items() if wording.is_number(value)}
    known = [key for key in ("n", *FIGURES) if key in present]
    keys = known + sorted(present - set(known))
    heads = [{"n": "images"}.get(key) or figure_label(key) for key in keys]
    reasons: dict[str, str] = {}
    cells = [
        [markup.name(name)]
        + [cell(metrics, f"{root}.{name}.{key}", figures.get(key), reasons) for key in keys]
        for name, figures in rows.items()
    ]
    return table(caption, ["name", *heads], cells) + reasons_list(reasons)


def cell(metrics: Mapping[str, Any], path: str, value: Any, reasons: dict[str, str]) -> str:
    """Return a table cell; if the figure is missing, add its reason to `reasons`."""
    key = path.rsplit(".", 1)[-1]
    if not wording.is_number(value):
        reasons[path] = wording.reason(metrics, path)
        return wording.NOTHING
    return text(wording.shown(metrics, key, value))


def reasons_list(reasons: Mapping[str, str]) -> str:
    """Return the list of reasons under a table, each once with its figures."""
    by_reason: dict[str, list[str]] = {}
    for path, why in reasons.items():
        by_reason.setdefault(why, []).append(path)
    items = "".join(
        f"<li>{text(why)}: {', '.join(f'<code>{markup.broken(path)}</code>' for path in paths)}"
        "</li>"
        for why, paths in by_reason.items()
    )
    words = f'<p class="note">{wording.NOTHING} marks a figure that could not be computed:</p>'
    return f'{words}<ul class="note">{items}</ul>' * bool(items)
