"""Thresholds from held-out good images: never from training patches, never from test images."""

import logging
import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from recon_ad.data import Record
from recon_ad.data.holdout import HoldOut
from recon_ad.data.source import KNOWN, digest
from recon_ad.detector.heldout import Judged, joined, judge_heldout, kept
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import Detector
from recon_ad.errors import UserError
from recon_ad.metrics import merge, upper_quantile
from recon_ad.metrics.conformal import (
    Promise,
    conformal_threshold,
    design_effect,
    needed,
    odd_ones,
)
from recon_ad.metrics.promise import percent
from recon_ad.metrics.segmentation import at_common_bits
from recon_ad.runtime.progress import progress

NAMED = 3  # most images that a sentence names

logger = logging.getLogger("recon_ad")


def check_fpr(fpr: float) -> None:
    """Raise UserError unless this is a false-positive rate between 0 and 1."""
    if not 0 < fpr < 1:
        raise UserError(
            f"a false-positive rate is a share between 0 and 1, not {fpr:g}: for 1 %, give 0.01."
        )


def calibrate(
    detector: Detector,
    holdout: HoldOut,
    *,
    fpr: float,
    of_regions: bool = False,
    earlier: Judged | None = None,
    trained_on: Collection[str] = (),
) -> Detector:
    """Set the thresholds of a detector from good images.

    Args:
      detector: Detector without a part; its present thresholds are ignored.
      holdout: Division whose held-out images count, aligned if the detector aligns. The detector
        was not trained on them, or they are crossed and its method can leave images out.
      fpr: False-positive rate per image that the image threshold aims at.
      of_regions: Whether the user gave regions of interest.
      earlier: Images that the detector's thresholds already rest on, which count as well.
      trained_on: Digests of images of the training, whose copies do not count.

    Raises:
      UserError: If the rate is impossible, there is no image, or a score is not finite.
    """
    check_fpr(fpr)
    if not holdout.heldout:
        raise UserError("no normal image to calibrate with: give at least one.")
    known = {*trained_on, *(earlier.digests if earlier else ())}
    judged = judge_heldout(detector, holdout, known=known)
    if not judged.scores and earlier is None:
        raise UserError(
            "every held-out image is a copy of one that the detector was trained on: give others."
        )
    if earlier:
        judged = joined(earlier, judged, group=detector.config.holdout.group)
    odd = _odd(judged, earlier=len(earlier.scores) if earlier else 0)
    settings, before = detector.config.calibration, detector.record.get("calibration", {})
    share = settings.pixel_percentile / 100
    given = settings.thresholds
    regions = holdout.regions_per_image
    all_together = _set_for(judged, "", fpr=fpr, share=share, regions=regions)
    names = sorted(set(judged.categories))
    each = {
        name: _set_for(judged, name, fpr=fpr, share=share, regions=regions)
        for name in (names if len(names) > 1 else [])
    }
    promise = all_together.promise
    supported, message = promise.fpr, ""
    image_rule = "conformal quantile of held-out image scores"
    if judged.grouped:
        image_rule = "hierarchical conformal quantile of the scores of held-out groups"
    pixel_rule = f"{settings.pixel_percentile}th percentile of held-out pixels"
    if given.image is not None:
        supported, image_rule = None, "given in the config"
    else:
        # With several categories, images are judged by the threshold of theirs.
        sentences = [
            too_few(found, judged, name, fpr=fpr, regions=regions)
            for name, found in (each or {"": all_together}).items()
            if found.promise.fpr > fpr
        ]
        message = " ".join(sentences)
        if message:
            logger.warning("%s", message)
    if given.pixel is not None:
        pixel_rule = "given in the config"
    thresholds, *of_each = (
        Thresholds(
            found.promise.threshold if given.image is None else given.image,
            found.pixel if given.pixel is None else given.pixel,
        )
        for found in (all_together, *each.values())
    )
    categories = dict(zip(each, of_each, strict=True))
    entry = {
        "heldout": holdout.how,
        "rule": "cross" if holdout.crossed else before.get("rule", "split") if earlier else "split",
        "images": len(judged.scores),
        "regions_per_image": holdout.regions_per_image,
        "regions_of_interest": of_regions,
        "pixels": sum(int(h.normal.sum()) for h in judged.pixels.values()),
        "fpr_wanted": fpr,
        "fpr_supported": supported,
        "grouped": judged.grouped,
        "correlation": all_together.correlation,
        "independent_units": promise.units / regions,
        "image_rule": image_rule,
        "pixel_rule": pixel_rule,
        "image_threshold": thresholds.image,
        "pixel_threshold": thresholds.pixel,
        "decided_by": []
        if given.image is not None
        else [judged.names[i] for i in promise.deciding][:NAMED],
        "odd": odd,
        "by_category": {
            name: (None if given.image is not None else found.promise.fpr, found.promise.units)
            for name, found in each.items()
        },
        "message": message,
        **kept(judged, percentile=settings.pixel_percentile),
    }
    return detector.with_thresholds(
        thresholds, detector.record | {"calibration": entry}, categories=categories
    )


class _Set(NamedTuple):
    """Thresholds of a set of images, their promise, and the correlation within blocks."""

    promise: Promise
    correlation: float
    pixel: float
    images: int


def _set_for(judged: Judged, category: str, *, fpr: float, share: float, regions: float) -> _Set:
    """Return the thresholds of a category, "" for all of them together."""
    chosen = [i for i, other in enumerate(judged.categories) if category in ("", other)]
    scores = np.array([judged.scores[i] for i in chosen])
    blocks = np.array([judged.blocks[i] for i in chosen])
    correlation, effect = design_effect(scores, blocks)
    promise = conformal_threshold(
        scores,
        fpr=fpr,
        regions_per_image=regions,
        effect=1.0 if judged.grouped else effect,
        groups=blocks if judged.grouped else None,
    )
    deciding = tuple(chosen[i] for i in promise.deciding)
    pixels = [h for name, h in judged.pixels.items() if category in ("", name)]
    pixel = upper_quantile(merge(*at_common_bits(pixels)), share)
    return _Set(promise._replace(deciding=deciding), correlation, pixel, len(chosen))


def too_few(found: _Set, judged: Judged, category: str, *, fpr: float, regions: float) -> str:
    """Describe the rate that a category's images support, and how many more are needed."""
    promise, units = found.promise, needed(fpr, regions_per_image=regions)
    there = round(promise.units) if judged.grouped else found.images
    what = "groups" if judged.grouped else "regions" if regions > 1 else "images"
    of = f" of {category}" if category else ""
    rests = f"{there} held-out normal {what if there > 1 else what[:-1]}{of}"
    wanted = f"{units} {what}: give {units - there} more"
    if regions > 1:
        wanted = f"{units} {what}: give more images"
    if judged.grouped:
        rests = f"{there} groups of {found.images} held-out normal images{of}"
    elif promise.units < found.images:
        rests += (
            f", which count as {promise.units:.3g} independent ones, as the scores of neighbours "
            "are alike"
        )
        wanted = f"{units} independent ones: give images of other series"
    digits = 1 - math.floor(math.log10(promise.fpr))
    possible = math.ceil(promise.fpr * 10**digits - 1e-9) / 10**digits
    return (
        f"The image threshold rests on {rests}. That supports a false-positive rate of "
        f"{promise.fpr:.2g} and not the requested {fpr:g}, which needs {wanted}, or request "
        f"{possible:g}."
    )


def _odd(judged: Judged, *, earlier: int) -> list[str]:
    """Return the names of images that score far above the others of their category, and warn.

    The first `earlier` of them are known ones, against which the others are compared, too.
    """
    names: list[str] = []
    for category in sorted(set(judged.categories)):
        mine = [i for i, other in enumerate(judged.categories) if other == category]
        scores = np.array([judged.scores[i] for i in mine])
        odd = odd_ones(scores)
        before = sum(i < earlier for i in mine)
        if 0 < before < len(mine):
            odd[before:] |= odd_ones(scores[before:], known=scores[:before])
        names += [judged.names[mine[k]] for k in np.flatnonzero(odd)]
    if names:
        logger.warning(
            "%d of the %d good images score far above the others: %s%s. Check them: a defective "
            "image among the good ones raises the threshold, so that defects are missed.",
            len(names), len(judged.scores), ", ".join(names[:NAMED]), ", …" * (len(names) > NAMED),
        )  # fmt: skip
    return names


def images_that_count(
    detector: Detector, normals: Sequence[Record], *, known: Collection[str] = ()
) -> tuple[Record, ...]:
    """Return the images that add information, and log the others.

    Args:
      detector: Detector whose training images are left out, as far as it recognises them.
      normals: Good images.
      known: Digests of images that count already.

    Raises:
      UserError: If no image is left.
    """
    digests = detector.record.get("learnt_from", ())
    kinds = {"trained on": set(digests), "calibrated with": set(known)}
    found: dict[str, list[str]] = {kind: [] for kind in kinds}
    rest = []
    for record in progress(normals, "comparison with the images of before"):
        content = digest(record.load())
        kind = next((kind for kind, those in kinds.items() if content in those), None)
        if kind is None:
            rest.append(record)
        else:
            found[kind].append(record.name)
    for kind, names in found.items():
        if names:
            logger.warning(
                "%s%d of the %d images do not count, as the detector was already %s them (%s%s)",
                "at least " * (kind == "trained on" and len(digests) == KNOWN), len(names),
                len(normals), kind, ", ".join(names[:NAMED]), ", …" * (len(names) > NAMED),
            )  # fmt: skip
    if not rest:
        raise UserError(
            "the detector was already trained on, or calibrated with, all of these images, so they "
            "add no information: give others."
        )
    return tuple(rest)


def summary(record: dict[str, Any]) -> str:
    """Return one sentence on thresholds and their basis, from a detector's record."""
    entry = record["calibration"]
    promised = entry["fpr_supported"]
    if promised is None:
        return f"image threshold {entry['image_threshold']:.6g}, {entry['image_rule']}"
    rates = ", ".join(
        f"{percent(rate)} of {name}" for name, (rate, _) in entry["by_category"].items()
    )
    images = "good image" if entry["images"] == 1 else "good images"
    what = images if entry["regions_per_image"] == 1 else "regions of good images"
    units = entry.get("independent_units", entry["images"])
    alike = entry["regions_per_image"] == 1 and units < entry["images"]
    counted = f", which count as {units:.3g} independent ones" if alike else ""
    return (
        f"image threshold {entry['image_threshold']:.6g}, set by "
        f"{', '.join(entry['decided_by'])}; it rests on {entry['images']} {what}{counted}; on "
        f"average at most {percent(promised)} of new good images will be rejected"
        + (f"; by category: {rates}" if rates else "")
    )
