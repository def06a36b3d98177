"""Other thresholds for a detector directory, from a folder of normal images."""

import logging
from pathlib import Path

from recon_ad.alignment.build_part import aligned_source
from recon_ad.data import folder_source
from recon_ad.data.arrays import given_range
from recon_ad.data.decode_cache import DecodeCache
from recon_ad.data.holdout import hold_out_all
from recon_ad.detector.heldout import Judged, read_kept
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.onnx_export import warn_of_outdated_files
from recon_ad.detector.open import detector_to_change
from recon_ad.detector.thresholds import calibrate, check_fpr, summary, without_training_images

logger = logging.getLogger("recon_ad")


def recalibrate(
    path: Path, normals: Path | str, *, fpr: float | None = None, replace: bool = False
) -> None:
    """Sets the thresholds of a detector anew and saves it in its place.

    The images are added to those that the thresholds rest on already. Images of the training and
    copies do not count.

    Args:
      path: the detector directory.
      normals: folder of normal images that it was not trained on.
      fpr: false-positive rate per image; None: that of its config.
      replace: whether the earlier images are dropped.

    Raises:
      UserError: the detector, the images or the rate are not usable.
    """
    if fpr is not None:
        check_fpr(fpr)
    with detector_to_change(path) as detector:
        source = folder_source(
            normals,
            channels=detector.channels,
            input_range=given_range(detector.config.data.input_range),
            cache=DecodeCache(memory_mib=detector.config.data.cache_mib),
        )
        before = detector.record.get("calibration", {})
        earlier = None if replace else _earlier(detector)
        new = without_training_images(detector, source.train)
        of_regions = any(record.load_roi for record in new)
        source = aligned_source(source._replace(train=new), detector.part)
        for note in source.notes:
            logger.warning("%s", note)
        how = f"{len(source.train)} images of {normals}"
        calibrated = calibrate(
            detector.with_part(None),
            hold_out_all(
                source.train,
                how=f"{before['heldout']}; {how}" if earlier else how,
                group=detector.config.holdout.group,
            ),
            fpr=detector.config.calibration.fpr if fpr is None else fpr,
            of_regions=of_regions,
            earlier=earlier,
        )
        calibrated.with_part(detector.part).save(path)
    for name in ("image", "pixel"):
        old, now = (getattr(each.thresholds, name) for each in (detector, calibrated))
        logger.info("%s threshold: %.6g before, %.6g now", name, old, now)
    logger.info("%s", summary(calibrated.record))
    logger.info("new thresholds are in %s", path)
    warn_of_outdated_files(path)


def _earlier(detector: Detector) -> Judged | None:
    """The images that the thresholds rest on, where there are any that can be added to."""
    kept = read_kept(detector.record)
    regions = detector.record.get("calibration", {}).get("regions_per_image", 1)
    if kept is None or regions == 1:
        return kept
    logger.warning(
        "the thresholds rested on %d regions of training images, which whole images replace",
        len(kept.scores),
    )
    return None
