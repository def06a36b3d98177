"""The model card of a detector: what it learnt from, what it promises, how well it does.

Written in Markdown into every detector directory, for whoever finds that directory later (after
Mitchell et al. 2019, "Model Cards for Model Reporting").
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from recon_ad.detector.inference import Thresholds
from recon_ad.metrics.promise import percent
from recon_ad.ops.tiles import Geometry
from recon_ad.runtime import provenance
from recon_ad.runtime.terminal import escaped

SHOWN = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro_30": "AUPRO, false-positive rate up to 0.3",
    "seg_f1_calibrated": "F1 score of the pixels at the pixel threshold",
}
NOT_EVALUATED = (
    "Not evaluated with these thresholds yet: run `python -m recon_ad.evaluate --workdir …`."
)
INTENDED = (
    "It is meant for images of the same part, taken by the same camera, lens, light and pose as "
    "the normal images that it was trained on. After any change of these, calibrate it again "
    "(`python -m recon_ad.calibrate`) or retrain it.",
    "A high score says that an image differs from the normal ones. It names neither the kind of "
    "defect nor its cause, and the mask does not measure its size.",
    "An image that it accepts may still have a defect: check the share of defects found on "
    "defective images of your own before you rely on it, and do not make it the only safeguard "
    "where people may come to harm.",
    "Watch its scores in use (`python -m recon_ad.monitor`): a drift of the camera or of the part "
    "voids the promise.",
)


def model_card(
    *,
    config: ConfigDict,
    geometry: Geometry,
    channels: int,
    thresholds: Mapping[str, Thresholds],
    record: Mapping[str, Any],
    classified: bool,
    metrics: Mapping[str, Any] | None,
) -> str:
    """Return the card in Markdown.

    Args:
      config: Config of the run that made the detector.
      geometry: Geometry of its method.
      channels: Number of channels of its images.
      thresholds: Thresholds by category; under "" for a detector of one.
      record: Record of training and calibration.
      classified: True if a classifier decides which anomalies are defects.
      metrics: The content of metrics.json; None says that the detector is not evaluated yet.
    """
    sections = {
        "Method": _table(_method(config, geometry, record, classified=classified)),
        "Data": _table(_data(config, record, channels=channels)),
        "Thresholds and their promise": _thresholds(thresholds, record.get("calibration")),
        "Figures": NOT_EVALUATED if metrics is None else _figures(metrics),
        "Intended use": "\n".join(f"- {sentence}" for sentence in INTENDED),
    }
    head = (
        f"# Model card: {config.method.name}\n\n"
        "A detector of visual defects. It was trained on normal images only, and scores how far a "
        "new image departs from them."
    )
    return "\n\n".join([head, *(f"## {name}\n\n{text}" for name, text in sections.items())]) + "\n"


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value != ""]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: Any) -> str:
    """Return the value as it can stand in a cell, whatever characters a name has."""
    return escaped(str(value)).replace("\\", "\\\\").replace("|", "\\|").replace("`", "\\`")


def _method(
    config: ConfigDict, geometry: Geometry, record: Mapping[str, Any], *, classified: bool
) -> dict[str, Any]:
    pretrained = record.get("pretrained", {})
    return {
        "method": config.method.name,
        "pretrained encoder": pretrained.get("encoder", ""),
        "SHA-256 of the encoder's weights": pretrained.get("sha256", ""),
        "licence of the encoder's weights": pretrained.get("licence", ""),
        "resolution": geometry.resolution,
        "tiles": f"{' × '.join(map(str, geometry.tile))} px",
        "alignment": "to a template" if config.part.align else "none",
        "background": "excluded from the score" if config.part.background else "part of the score",
        "image score": f"{config.inference.score} of the anomaly map",
        "classifier of the anomaly map": "yes" if classified else "none",
        "training steps": record.get("training", {}).get("selected_step", ""),
        "seed": config.seed,
        "versions": ", ".join(f"{k} {v}" for k, v in provenance.versions().items()),
    }


def _data(config: ConfigDict, record: Mapping[str, Any], *, channels: int) -> dict[str, Any]:
    low, high = config.data.input_range
    return {
        "folder": Path(config.data.path).name or config.data.name,
        "category": config.data.category,
        "channels": channels,
        "values for black and white": f"{low:g} and {high:g}" if (low, high) != (0, 0) else "",
        "training images": record.get("training", {}).get("training_images", ""),
        "calibration images": record.get("calibration", {}).get("heldout", ""),
        "digests of these images": "in detector.json" if record.get("learnt_from") else "",
    }


def _thresholds(thresholds: Mapping[str, Thresholds], calibration: Mapping[str, Any] | None) -> str:
    if not calibration:
        return "Not calibrated."
    rows: dict[str, Any] = {}
    for name, each in thresholds.items():
        of = f" of {name}" if name else ""
        rows |= {f"image threshold{of}": f"{each.image:.6g}"}
        rows |= {f"pixel threshold{of}": f"{each.pixel:.6g}"}
    rows["image rule"] = calibration.get("image_rule", "")
    rows["pixel rule"] = calibration.get("pixel_rule", "")
    sentences = []
    if calibration.get("fpr_supported") is not None:
        sentences.append(
            f"On average at most {percent(calibration['fpr_supported'])} of new normal images will "
            "be rejected, as long as they come from the process that the held-out images "
            "came from."
        )
    sentences.append(calibration.get("message", ""))
    return "\n\n".join([_table(rows), *(_cell(text) for text in sentences if text)])


def _figures(metrics: Mapping[str, Any]) -> str:
    rows: dict[str, Any] = {"test images": metrics["protocol"]["test_images"]}
    for key, name in SHOWN.items():
        if metrics.get(key) is None:
            continue
        interval = metrics["intervals"].get(key)
        bounds = "" if interval is None else f" (95 %: {interval[0]:.3f} to {interval[1]:.3f})"
        rows[name] = f"{metrics[key]:.3f}{bounds}"
    sentence = metrics.get("decisions", {}).get("sentence", "No test images: no figures.")
    name = _cell(metrics["protocol"]["evaluated_on"])
    return f"Evaluated on {name}: {_cell(sentence)}.\n\n{_table(rows)}"
