"""Thresholds from held-out normal images: never from training patches, never from test images."""

import logging
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from recon_ad.data import Record
from recon_ad.data.source import KNOWN, digest, roi_of
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import Detector
from recon_ad.errors import UserError
from recon_ad.metrics import empty_histogram, image_histogram, merge, upper_quantile
from recon_ad.ops.scores import ADDITIVE
from recon_ad.runtime.progress import progress

logger = logging.getLogger("recon_ad")


def conformal_threshold(
    scores: Float[np.ndarray, " n"], *, fpr: float, regions_per_image: float = 1.0
) -> tuple[float, float]:
    """Image threshold whose false-positive rate on new normal images is at most `fpr` on average.

    The ⌈(n+1)(1−α)⌉-th smallest of n held-out scores (split conformal prediction, Vovk et al.
    2005); where n is too small for that, the largest. Where the scores are of regions, r of which
    make up an image, an image is r chances to exceed the threshold: α/r is asked of a region. That
    is for scores that are the largest of their regions' ("max"); for means and sums, which vary
    less over an image than over a region, the true rate is lower than the one asked for.

    Args:
      scores: of held-out normal images, exchangeable with those to come.
      fpr: α, in (0, 1).
      regions_per_image: r, 1 for whole images.

    Returns:
      The threshold, and the false-positive rate that it stands for: `fpr`, or r/(n+r) where n
      cannot support less (the chance that the largest of n + r exchangeable scores is one of a new
      image's r; 1/(n+1) for whole images).
    """
    n, r = len(scores), regions_per_image
    # 1 − α is rounded in binary; without this 0.99 · 100 would round up past 99.
    rank = math.ceil((n + 1) * (1 - fpr / r) - 1e-9)
    if rank > n:
        return float(np.max(scores)), r / (n + r)
    return float(np.sort(scores)[rank - 1]), fpr


def check_fpr(fpr: float) -> None:
    """Raises UserError where this is no false-positive rate."""
    if not 0 < fpr < 1:
        raise UserError(f"a false-positive rate lies between 0 and 1, not at {fpr}.")


def calibrate(
    detector: Detector,
    heldout: Sequence[Record],
    *,
    fpr: float,
    how: str,
    regions_per_image: float = 1.0,
    of_regions: bool = False,
) -> Detector:
    """The detector with thresholds from these images.

    Args:
      detector: its present thresholds are not looked at; without a part.
      heldout: normal images, aligned if they are to be, or regions of them, that it was not trained
        on.
      fpr: false-positive rate per image that the image threshold aims at.
      how: one sentence on where the images come from, for the protocol.
      regions_per_image: how many of them make up an image, where they are regions.
      of_regions: whether the user gave regions of interest.
    """
    check_fpr(fpr)
    if not heldout:
        raise UserError("there is no normal image to calibrate with.")
    percentile = detector.config.calibration.pixel_percentile
    pixels = empty_histogram()
    scores: list[float] = []
    seen: set[str] = set()
    for record in progress(heldout, "calibration"):
        roi, image = roi_of(record), record.load()
        if regions_per_image == 1:
            if (known := digest(image)) in seen:  # a copy says nothing new of what scores may be
                continue
            seen.add(known)
        prediction = detector.predict(image, roi=roi, reconstruct=False)
        if not np.isfinite(prediction.score):
            raise UserError(
                f"{record.name} has the score {prediction.score}: the detector is damaged; train "
                "it anew."
            )
        scores.append(float(prediction.score))
        nothing = np.zeros(prediction.anomaly_map.shape, bool)
        pixels = merge(pixels, image_histogram(prediction.anomaly_map, nothing, valid=roi))
    if len(scores) < len(heldout):
        logger.warning(
            "%d of the %d images are copies of others and count once",
            len(heldout) - len(scores), len(heldout),
        )  # fmt: skip
    if detector.config.inference.score in ADDITIVE:
        # The sum over an image is about that of a region times the number of regions.
        scores = [score * regions_per_image for score in scores]
    image_threshold, supported = conformal_threshold(
        np.array(scores), fpr=fpr, regions_per_image=regions_per_image
    )
    image_rule = "conformal quantile of held-out image scores"
    pixel_rule = f"{percentile}th percentile of held-out pixels"
    pixel_threshold = upper_quantile(pixels, percentile / 100)
    given = detector.config.calibration.thresholds
    if given.image is not None:
        image_threshold, supported, image_rule = given.image, None, "given in the config"
    if given.pixel is not None:
        pixel_threshold, pixel_rule = given.pixel, "given in the config"
    message = ""
    if supported is not None and supported > fpr:
        what = "regions" if regions_per_image > 1 else "images"
        message = (
            f"The image threshold rests on {len(scores)} held-out normal {what}, which support a "
            f"false-positive rate of {supported:.2g} and not the {fpr:g} asked for: give more good "
            "images."
        )
        logger.warning("%s", message)
    record = detector.record | {
        "calibration": {
            "heldout": how,
            "images": len(scores),
            "regions_per_image": regions_per_image,
            "regions_of_interest": of_regions,
            "pixels": int(pixels.normal.sum()),
            "fpr_wanted": fpr,
            "fpr_supported": supported,
            "image_rule": image_rule,
            "pixel_rule": pixel_rule,
            "image_threshold": image_threshold,
            "pixel_threshold": pixel_threshold,
            "message": message,
            "scores": scores,
        }
    }
    return detector.with_thresholds(Thresholds(image_threshold, pixel_threshold), record)


def warn_of_training_images(detector: Detector, normals: Sequence[Record]) -> None:
    """Says so where the detector was trained on some of the images, as far as it knows them."""
    digests = detector.record.get("learnt_from", ())
    known = set(digests)
    if not known:
        return
    looked_at = progress(normals, "comparison with the images of the training")
    learnt = [record.name for record in looked_at if digest(record.load()) in known]
    if learnt:
        logger.warning(
            "%s%d of the %d images are some that the detector was trained on (%s%s), where its "
            "residuals are smaller than on new images, so that thresholds come out too low: give "
            "normal images that it has not seen.",
            "at least " * (len(digests) == KNOWN), len(learnt), len(normals),
            ", ".join(learnt[:3]), ", …" * (len(learnt) > 3),
        )  # fmt: skip
