"""Protocol of an evaluation in metrics.json: the settings and versions behind its figures."""

import json
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from recon_ad.data import Source
from recon_ad.detector.heldout import FIELDS
from recon_ad.detector.jax_detector import Detector
from recon_ad.methods import ON_FEATURES
from recon_ad.metrics.figures import FPR_LIMIT
from recon_ad.runtime import provenance


def protocol(detector: Detector, source: Source) -> dict[str, Any]:
    """Return how the figures were obtained: everything needed to compare them with others."""
    config = detector.config
    geometry = detector.method.geometry
    return {
        "method": config.method.name,
        "method_settings": dict(detector.method.protocol),
        **residual_or_weights(detector),
        "part": part_rule(config),
        "resolution": geometry.resolution,
        "crop": list(geometry.tile),
        "stride": list(geometry.stride),
        "tile_weights": geometry.weights,
        "border": border_rule(config),
        "smoothing_sigma_px": config.inference.sigma,
        "score_rule": f"{config.inference.score} of the smoothed map",
        "aupro_fpr_limit": FPR_LIMIT,
        "pixel_metrics": "raw scores, streamed histogram; see bounds",
        "checkpoint": f"{config.train.select} (best: by held-out loss), never by test images",
        "good_images_not_for_testing": len(source.train),
        "test_images": len(source.test),
        "seed": config.seed,
        "bootstrap": f"{config.evaluation.bootstrap} resamples over images, stratified",
        "notes": list(source.notes),
        "training": detector.record["training"],
        "classifier": detector.classifier.record if detector.classifier else None,
        "calibration": {k: v for k, v in detector.record["calibration"].items() if k not in FIELDS},
        "config": json.loads(config.to_json()),
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
    }


def already_used(names: Sequence[str], *, of: int) -> str:
    """Return a sentence on test images that training or calibration used; "" for none."""
    if not names:
        return ""
    return (
        f"{len(names)} of {of} test images were used for training or calibration, too, so that the "
        f"figures are too good: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}. Evaluate "
        "on other images."
    )


def residual_or_weights(detector: Detector) -> dict[str, Any]:
    """Return what the map is computed from: pixel residuals or a pretrained encoder's features."""
    config = detector.config
    found: dict[str, Any] = {}
    if config.method.name not in ON_FEATURES:
        found["residual"] = {name: weight for name, weight in config.residual.items() if weight}
    if detector.record["pretrained"]:  # with its checksum and licence
        found["pretrained"] = detector.record["pretrained"]
    return found


def part_rule(config: ConfigDict) -> str:
    """Return a description of the alignment and of the pixels that count."""
    c = config.part
    background = "" if not c.background else "; background pixels are excluded from the score"
    if not c.align:
        return f"images are not aligned{background}"
    template = "given" if c.template else "chosen among the good images, including held-out ones"
    return (
        f"images are aligned to a template (up to {c.angle:g}°, ±{c.scale:.0%}), and maps are "
        f"transformed back; an image has no score where the template is found with a confidence "
        f"below {c.confidence:g} or less than {c.overlap:.0%} of it is visible; the template is "
        f"{template}{background}"
    )


def border_rule(config: ConfigDict) -> str:
    """Return a description of the treatment of the image's border."""
    rule = "tiles do not extend past the image; smoothing is normalised over the image's pixels"
    if config.inference.border:
        rule += (
            f"; residuals within {config.inference.border} px of the border are multiplied by "
            f"{config.inference.border_weight}"
        )
    return rule
