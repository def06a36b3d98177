"""Thresholds from held-out good images: never from training patches, never from test images."""

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from recon_ad.data import Record
from recon_ad.data.holdout import HoldOut
from recon_ad.data.source import KNOWN, digest
from recon_ad.detector.heldout import Judged, joined, judge_heldout, kept, merged
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import Detector
from recon_ad.errors import UserError
from recon_ad.metrics import upper_quantile
from recon_ad.metrics.conformal import (
    Promise,
    conformal_threshold,
    design_effect,
    needed,
    odd_ones,
)
from recon_ad.runtime.progress import progress

NAMED = 3  # images that a sentence names, at most

logger = logging.getLogger("recon_ad")


def check_fpr(fpr: float) -> None:
    """Raises UserError where this is no false-positive rate."""
    if not 0 < fpr < 1:
        raise UserError(f"a false-positive rate lies between 0 and 1, not at {fpr}.")


def calibrate(
    detector: Detector,
    holdout: HoldOut,
    *,
    fpr: float,
    of_regions: bool = False,
    earlier: Judged | None = None,
) -> Detector:
    """Sets the thresholds of a detector from good images.

    Args:
      detector: its present thresholds are not looked at; without a part.
      holdout: its held-out images, aligned if they are to be, count. The detector was not trained
        on them, or they are crossed and its method can leave images out.
      fpr: false-positive rate per image that the image threshold aims at.
      of_regions: whether the user gave regions of interest.
      earlier: images that the detector's thresholds already rest on, which count as well.

    Raises:
      UserError: an impossible rate, no image, or a score that is not finite.
    """
    check_fpr(fpr)
    if not holdout.heldout:
        raise UserError("there is no normal image to calibrate with.")
    judged = judge_heldout(detector, holdout, known=earlier.digests if earlier else ())
    odd = _odd(judged, earlier)
    if earlier:
        judged = joined(earlier, judged)
    settings = detector.config.calibration
    share = settings.pixel_percentile / 100
    given = settings.thresholds
    all_together = _set_for(judged, holdout, "", fpr=fpr, share=share)
    names = sorted(set(judged.categories))
    each = {
        name: _set_for(judged, holdout, name, fpr=fpr, share=share)
        for name in (names if len(names) > 1 else [])
    }
    promise = all_together.promise
    supported, message = promise.fpr, ""
    image_rule = "conformal quantile of held-out image scores"
    if holdout.grouped:
        image_rule = "hierarchical conformal quantile of the scores of held-out groups"
    pixel_rule = f"{settings.pixel_percentile}th percentile of held-out pixels"
    if given.image is not None:
        supported, image_rule = None, "given in the config"
    elif supported > fpr:
        message = too_few(promise, len(judged.scores), holdout, fpr=fpr)
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
        "rule": "cross" if holdout.crossed else "split",
        "images": len(judged.scores),
        "regions_per_image": holdout.regions_per_image,
        "regions_of_interest": of_regions,
        "pixels": sum(int(h.normal.sum()) for h in judged.pixels.values()),
        "fpr_wanted": fpr,
        "fpr_supported": supported,
        "grouped": holdout.grouped,
        "correlation": all_together.correlation,
        "independent_units": promise.units,
        "image_rule": image_rule,
        "pixel_rule": pixel_rule,
        "image_threshold": thresholds.image,
        "pixel_threshold": thresholds.pixel,
        "decided_by": [judged.names[i] for i in promise.deciding][:NAMED],
        "odd": odd,
        "fpr_supported_by_category": {
            name: None if given.image is not None else found.promise.fpr
            for name, found in each.items()
        },
        "message": message,
        **kept(judged, percentile=settings.pixel_percentile),
    }
    return detector.with_thresholds(
        thresholds, detector.record | {"calibration": entry}, categories=categories
    )


class _Set(NamedTuple):
    """Thresholds of some images, what they promise, and the correlation within blocks."""

    promise: Promise
    correlation: float
    pixel: float


def _set_for(judged: Judged, holdout: HoldOut, category: str, *, fpr: float, share: float) -> _Set:
    """The thresholds of a category, "" for all of them together."""
    chosen = [i for i, other in enumerate(judged.categories) if category in ("", other)]
    scores = np.array([judged.scores[i] for i in chosen])
    blocks = np.array([judged.blocks[i] for i in chosen])
    correlation, effect = design_effect(scores, blocks)
    promise = conformal_threshold(
        scores,
        fpr=fpr,
        regions_per_image=holdout.regions_per_image,
        effect=1.0 if holdout.grouped else effect,
        groups=blocks if holdout.grouped else None,
    )
    deciding = tuple(chosen[i] for i in promise.deciding)
    pixels = [h for name, h in judged.pixels.items() if category in ("", name)]
    pixel = upper_quantile(merged(pixels), share)
    return _Set(promise._replace(deciding=deciding), correlation, pixel)


def too_few(promise: Promise, images: int, holdout: HoldOut, *, fpr: float) -> str:
    """Says what the images support, and how many more the wanted rate takes.

    Args:
      promise: of them.
      images: or regions that there are.
      holdout: that they are of.
      fpr: that is wanted.
    """
    regions = holdout.regions_per_image
    units = needed(fpr, regions_per_image=regions)
    if holdout.grouped:
        what, there, wanted = "groups", round(promise.units), units
        rests = f"{there} groups of {images} held-out normal images"
    else:
        what, there = "regions" if regions > 1 else "images", images
        wanted = math.ceil(units * images / promise.units)
        rests = f"{images} held-out normal {what}"
        if promise.units < images:
            rests += (
                f", which count as {promise.units:.3g} independent ones, as the scores of "
                "neighbours are alike"
            )
    digits = 1 - math.floor(math.log10(promise.fpr))
    possible = math.ceil(promise.fpr * 10**digits - 1e-9) / 10**digits
    return (
        f"The image threshold rests on {rests}. They support a false-positive rate of "
        f"{promise.fpr:.2g} and not the {fpr:g} asked for, which needs {wanted} {what}: give "
        f"{wanted - there} more, or ask for {possible:g}."
    )


def _odd(judged: Judged, earlier: Judged | None) -> list[str]:
    """Names the images that score far above the others, also in the log."""
    if not judged.scores:  # all of them are known
        return []
    known = np.array(earlier.scores) if earlier else None
    odd = odd_ones(np.array(judged.scores), known=known)
    names = [judged.names[i] for i in np.flatnonzero(odd)]
    if names:
        logger.warning(
            "%d of the %d good images score far above the others: %s%s. Look at them: a defective "
            "image among the good ones raises the threshold, so that defects are missed.",
            len(names), len(odd), ", ".join(names[:NAMED]), ", …" * (len(names) > NAMED),
        )  # fmt: skip
    return names


def without_training_images(detector: Detector, normals: Sequence[Record]) -> tuple[Record, ...]:
    """Leaves out the images that the detector was trained on, as far as it knows them, and says so.

    Raises:
      UserError: no other image is left.
    """
    digests = detector.record.get("learnt_from", ())
    known = set(digests)
    if not known:
        return tuple(normals)
    looked_at = progress(normals, "comparison with the images of the training")
    learnt = [record.name for record in looked_at if digest(record.load()) in known]
    rest = tuple(record for record in normals if record.name not in set(learnt))
    if learnt:
        logger.warning(
            "%s%d of the %d images are some that the detector was trained on (%s%s), and do not "
            "count: its residuals are smaller on them than on new images.",
            "at least " * (len(digests) == KNOWN), len(learnt), len(normals),
            ", ".join(learnt[:NAMED]), ", …" * (len(learnt) > NAMED),
        )  # fmt: skip
    if not rest:
        raise UserError(
            "the detector was trained on all of these images, so that they say nothing of new "
            "ones: give normal images that it has not seen."
        )
    return rest


def summary(record: dict[str, Any]) -> str:
    """Returns one sentence on thresholds and what they rest on, from a detector's record."""
    entry = record["calibration"]
    promised = entry["fpr_supported"]
    if promised is None:
        return f"image threshold {entry['image_threshold']:.6g}, {entry['image_rule']}"
    return (
        f"image threshold {entry['image_threshold']:.6g}, set by "
        f"{', '.join(entry['decided_by'])}; it rests on {entry['images']} good images and promises "
        f"to stop at most {promised:.2g} of new ones by mistake"
    )
