"""Other thresholds for a detector directory, from a folder of normal images."""

import logging
from pathlib import Path

from recon_ad.alignment.build_part import aligned_source
from recon_ad.data import folder_source
from recon_ad.data.arrays import given_range
from recon_ad.data.decode_cache import DecodeCache
from recon_ad.detector.onnx_export import warn_of_outdated_files
from recon_ad.detector.open import detector_to_change
from recon_ad.detector.thresholds import calibrate, check_fpr, warn_of_training_images

logger = logging.getLogger("recon_ad")


def recalibrate(path: Path, normals: Path | str, *, fpr: float | None = None) -> None:
    """Sets the thresholds of a detector anew and saves it in its place.

    Args:
      path: the detector directory.
      normals: folder of normal images that it was not trained on.
      fpr: false-positive rate per image; None: that of its config.

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
        warn_of_training_images(detector, source.train)
        of_regions = any(record.load_roi for record in source.train)
        source = aligned_source(source, detector.part)
        for note in source.notes:
            logger.warning("%s", note)
        calibrated = calibrate(
            detector.with_part(None),
            source.train,
            fpr=detector.config.calibration.fpr if fpr is None else fpr,
            how=f"{len(source.train)} images of {normals}",
            of_regions=of_regions,
        )
        calibrated.with_part(detector.part).save(path)
    logger.info("new thresholds are in %s", path)
    warn_of_outdated_files(path)
