"""Section on how the figures were obtained: sentences, and a folded table of all settings."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from recon_ad.report import markup, wording
from recon_ad.report.markup import paragraph, table, text
from recon_ad.report.wording import value_of

SCORES = {
    "max": "highest value of its map",
    "top_1%": "mean of the highest 1 % of its map",
    "max+mean/2": "maximum of its map plus half its mean",
}


def protocol(content: Mapping[str, Any]) -> str:
    """Return the markup of the section, from the entry `protocol` of `metrics.json`."""
    rows = [[markup.broken(path), text(words)] for path, words in leaves(content)]
    if not rows:
        return ""
    spoken = "".join(paragraph(text(sentence)) for sentence in sentences(content))
    raw = table("Settings as recorded in metrics.json", ["setting", "value"], rows)
    return f'<div class="words">{spoken}</div>' + markup.folded("Every setting", raw)


def sentences(content: Mapping[str, Any]) -> list[str]:
    """Return the sentences that a reader needs, as far as the facts are recorded."""

    def known(path: str) -> Any:
        return value_of(content, path)

    found = []
    if method := known("method"):
        weights = str(known("pretrained.weights") or "")
        on = f", on features of a pretrained network ({weights.rsplit('/', 1)[-1]})" * bool(weights)
        found.append(f"The method is {method}{on}.")
    if known("good_images_not_for_testing") and known("calibration.heldout"):
        found.append(
            f"{known('good_images_not_for_testing'):,} good images were available for training; "
            f"the thresholds were set by {known('calibration.heldout')}."
        )
    if tested := known("test_images"):
        found.append(f"The {tested:,} test images were used only for the figures on this page.")
    found += _judged(content)
    wanted = known("calibration.fpr_supported")
    if wording.is_number(wanted):
        found.append(
            f"The image threshold is {wording.score(known('calibration.image_threshold'))}: good "
            "images like those that set it exceed it in at most "
            f"{wording.percent(wanted)} of cases on average. This follows from the ranks of the "
            "scores (conformal prediction), so it holds for any distribution of scores as long as "
            "new good images are like those that set the threshold."
        )
    if rule := known("calibration.pixel_rule"):
        pixel = wording.score(known("calibration.pixel_threshold"))
        found.append(f"A pixel is marked if its anomaly value is above {pixel} ({rule}).")
    if hardware := known("hardware"):
        found.append(f"Times were measured with {hardware}.")
    return found


def _judged(content: Mapping[str, Any]) -> list[str]:
    """Return the sentences on how images are divided and scored."""
    found = []
    crop, resolution = content.get("crop"), content.get("resolution")
    if crop and resolution:
        how = "at their original resolution" if resolution == "native" else f"at {resolution}"
        sides = " × ".join(map(str, crop))
        found.append(f"Images are inspected {how}, in tiles of {sides} pixels.")
    if rule := content.get("score_rule"):
        name, sigma = rule.partition(" of the")[0], content.get("smoothing_sigma_px")
        blur = f", smoothed by {sigma:g} pixels," * bool(sigma)
        how = SCORES.get(name, f"{name} of its map")
        found.append(
            f"The score of an image is the {how}. The map{blur} shows how unusual each pixel is "
            "(the anomaly map)."
        )
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path, plain text) of every entry in nested mappings; lists in one line."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        yield path, ", ".join(words for item in value for _, words in leaves(item)) or "none"
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
