"""Comparison with rankings that need no model, which shows whether the figures prove anything."""

from collections.abc import Mapping
from typing import Any

from recon_ad.metrics.figures import FIGURES
from recon_ad.report import wording
from recon_ad.report.key_figures import cell, reasons_list
from recon_ad.report.markup import paragraph, table, text

MARGIN = 0.05  # AUROC; a smaller gap to the ranking without a model proves nothing
EASY = 0.75  # AUROC from which a ranking without a model counts as separating the classes
CHANCE = 0.5
NAMES = {
    "mean_brightness": "mean brightness",
    "distance_to_mean_image": "difference from the average good image",
}
KEYS = ("image_auroc", "pixel_auroc")


def warnings(metrics: Mapping[str, Any]) -> list[str]:
    """Return a warning for each figure that is about as good without a model as with it.

    Several categories each have their own warnings. The test set is blamed only if the figure
    without a model is high, and not by chance.
    """
    if "per_category" in metrics:
        return [
            f"{category}: {sentence}"
            for category, figures in metrics["per_category"].items()
            for sentence in warnings(figures | {"protocol": metrics.get("protocol", {})})
        ]
    found = []
    for key in KEYS:
        model = metrics.get(key)
        rows = metrics.get("no_model", {})
        known = {name: rows.get(name, {}).get(key) for name in NAMES}
        known = {name: value for name, value in known.items() if wording.is_number(value)}
        if not wording.is_number(model) or not known:
            continue
        name = max(known, key=known.__getitem__)
        base = known[name]
        if base < model - MARGIN:
            continue
        least = rows[name].get(f"{key}_least")
        found.append(
            _sentences(
                f"ranking by {NAMES[name]} alone, without any model, reaches {FIGURES[key].label} "
                f"{wording.ratio(base)}, and the model reaches {wording.ratio(model)}",
                worse=base > model + MARGIN,
                easy=base >= EASY and wording.is_number(least) and least > CHANCE,
                advice=_advice(metrics),
            )
        )
    return found


def _sentences(beside: str, *, worse: bool, easy: bool, advice: str) -> str:
    if easy:
        words = (
            f"The test images can be separated without a model: {beside}. Good and defective "
            "images differ in something besides the defects, such as lighting (the test set is "
            "confounded), or the defects are too easy. So these figures are no evidence that the "
            "model finds defects."
        )
        return words + f" The model is also worse than no model: {advice}." * worse
    if worse:
        return f"The model is worse than no model: {beside}. {advice.capitalize()}."
    return f"The model adds almost nothing: {beside}."


def _advice(metrics: Mapping[str, Any]) -> str:
    method = metrics.get("protocol", {}).get("method")
    if method == "knn":
        return "use larger images (side=), another encoder or more good images"
    return "train longer, or use method=knn"


def baseline(metrics: Mapping[str, Any]) -> str:
    """Return the markup of the section, or "" if these figures are missing."""
    no_model = metrics.get("no_model")
    if not no_model:
        return ""
    reasons: dict[str, str] = {}
    # With several categories, both figures are means over them.
    path, model = "", metrics
    if "category_mean" in metrics:
        path, model = "category_mean.", metrics["category_mean"]
    rows = [["this model", *(cell(metrics, path + key, model.get(key), reasons) for key in KEYS)]]
    for name, label in NAMES.items():
        if name in no_model:
            figures = no_model[name]
            cells = [
                cell(metrics, f"no_model.{name}.{key}", figures[key], reasons)
                if key in figures
                else wording.NOTHING
                for key in KEYS
            ]
            rows.append([f"without a model: {label}", *cells])
    if not any(wording.is_number(no_model.get(n, {}).get(key)) for n in NAMES for key in KEYS):
        return ""
    found = warnings(metrics)
    verdict = "".join(paragraph(text(sentence), kind="warning") for sentence in found)
    if not found and not reasons:
        verdict = paragraph("The model is clearly ahead of the rankings without a model.")
    intro = paragraph(
        "This section ranks the images without a model: by their brightness alone, and by how much "
        "they differ from the average good image. If that separates good from defective as well as "
        "the model does, a high figure says little about the model. AUROC is the chance that a "
        "defective image, or pixel, scores higher than a good one: 0.5 is guessing, 1 is perfect.",
        kind="note",
    )
    heads = ["ranked by", *(FIGURES[key].label for key in KEYS)]
    shown = table("AUROC with and without a model", heads, rows)
    return intro + shown + verdict + reasons_list(reasons)
