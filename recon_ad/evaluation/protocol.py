"""What metrics.json says of an evaluation beside its figures, and what makes two runs differ."""

import json
from typing import Any

from ml_collections import ConfigDict

from recon_ad.data import Source
from recon_ad.detector.heldout import FIELDS
from recon_ad.detector.jax_detector import Detector
from recon_ad.methods import ON_FEATURES
from recon_ad.metrics.figures import FPR_LIMIT
from recon_ad.runtime import provenance


def protocol(detector: Detector, source: Source) -> dict[str, Any]:
    """How the figures came about: all that one needs to compare them with others."""
    config = detector.config
    geometry = detector.method.geometry
    return {
        "method": config.method.name,
        "method_settings": dict(detector.method.protocol),
        **residual_or_weights(detector),
        "part": part_rule(config),
        "resolution": _resolution(geometry.resize),
        "crop": list(geometry.tile),
        "stride": list(geometry.stride),
        "tile_weights": geometry.weights,
        "border": border_rule(config),
        "smoothing_sigma_px": config.inference.sigma,
        "score_rule": f"{config.inference.score} of the smoothed map",
        "aupro_fpr_limit": FPR_LIMIT,
        "pixel_metrics": "raw scores, streamed histogram; see bounds",
        "checkpoint": f"{config.train.select} (by held-out loss where best), never by test",
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


def _resolution(resize: tuple[int, int] | None) -> str:
    if resize is None:
        return "native"
    height, width = resize
    if not width:
        return f"shorter side {height} px, aspect ratio kept"
    return f"{height} × {width} px, aspect ratio not kept"


def residual_or_weights(detector: Detector) -> dict[str, Any]:
    """What the map is made of: weighted residuals of pixels, or a pretrained encoder's features."""
    config = detector.config
    found: dict[str, Any] = {}
    if config.method.name not in ON_FEATURES:
        found["residual"] = {name: weight for name, weight in config.residual.items() if weight}
    if detector.record["pretrained"]:  # with its checksum and licence
        found["pretrained"] = detector.record["pretrained"]
    return found


def part_rule(config: ConfigDict) -> str:
    """Whether images are aligned, and which of their pixels count."""
    c = config.part
    ground = "" if not c.background else "; pixels of the ground never score"
    if not c.align:
        return f"images are judged as they are{ground}"
    return (
        f"images are aligned to a template (up to {c.angle:g}°, ±{c.scale:.0%}), and maps go back "
        f"to them; where it is found with a confidence below {c.confidence:g}, or less than "
        f"{c.overlap:.0%} of it is seen, there is no score; the template is "
        f"{'given' if c.template else 'a good image, held-out ones among those it is chosen from'}"
        f"{ground}"
    )


def border_rule(config: ConfigDict) -> str:
    """How the image's border is treated."""
    rule = "tiles end with the image; smoothing is normalised over the image's pixels"
    if config.inference.border:
        rule += (
            f"; residuals within {config.inference.border} px of it are multiplied by "
            f"{config.inference.border_weight}"
        )
    return rule
