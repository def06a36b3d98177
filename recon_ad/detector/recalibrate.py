"""New thresholds for a detector directory, from a folder of normal images."""

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
from recon_ad.detector.thresholds import calibrate, check_fpr, images_that_count, summary

logger = logging.getLogger("recon_ad")


def recalibrate(
    path: Path,
    normals: Path | str,
    *,
    fpr: float | None = None,
    category: str = "",
    replace: bool = False,
) -> None:
    """Set the thresholds of a detector anew and save it in its place.

    The images are added to those that the thresholds rest on already. Images of the training and
    copies do not count.

    Args:
      path: Path of the detector directory.
      normals: Folder of normal images that it was not trained on.
      fpr: False-positive rate per image; None keeps the earlier one.
      category: Category of the images, for a detector with thresholds for several.
      replace: Whether the earlier images (of the category) are dropped.

    Raises:
      UserError: If the detector, the images, the category or the rate are not usable.
    """
    if fpr is not None:
        check_fpr(fpr)
    with detector_to_change(path) as detector:
        if category or detector.categories:
            detector.of_category(category)  # raises where there are no thresholds of it
        source = folder_source(
            normals,
            channels=detector.channels,
            input_range=given_range(detector.config.data.input_range),
            on_error="skip",
            cache=DecodeCache(memory_mib=detector.config.data.cache_mib),
        )
        before = detector.record.get("calibration", {})
        earlier = _earlier(detector, category, replace=replace)
        known = earlier.digests if earlier else ()
        new = images_that_count(detector, source.train, known=known)
        new = tuple(record._replace(category=category) for record in new)
        of_regions = any(record.load_roi for record in new)
        source = aligned_source(source._replace(train=new), detector.part)
        for note in source.notes:
            logger.warning("%s", note)
        how = f"{len(source.train)} of the images of {normals}"
        calibrated = calibrate(
            detector.with_part(None),
            hold_out_all(
                source.train,
                how=f"{before['heldout']}; {how}" if earlier else how,
                group=detector.config.holdout.group,
            ),
            fpr=before.get("fpr_wanted", detector.config.calibration.fpr) if fpr is None else fpr,
            of_regions=of_regions,
            earlier=earlier,
        )
        calibrated.with_part(detector.part).save(path)
    old, now = (each.of_known(category).thresholds for each in (detector, calibrated))
    for name, a, b in zip(old._fields, old, now, strict=True):
        logger.info("%s threshold: %.6g before, %.6g now", name, a, b)
    logger.info("%s", summary(calibrated.record))
    logger.info("new thresholds are in %s", path)
    warn_of_outdated_files(path)


def _earlier(detector: Detector, category: str, *, replace: bool) -> Judged | None:
    """Return the images that the thresholds still rest on; other categories' images always stay."""
    entry = detector.record.get("calibration", {})
    if replace and not category:
        return None
    found = read_kept(detector.record)
    if found is None or entry.get("regions_per_image", 1) != 1:
        what = "images of before" if found is None else "regions of training images"
        if count := entry.get("images", 0):
            logger.warning("the %d %s that the thresholds rested on are dropped", count, what)
        return None
    return found.without(category) if replace else found
