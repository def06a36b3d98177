"""Thresholds from held-out normal images: never from training patches, never from test images.

    python -m recon_ad.calibrate --detector D/detector --normals FOLDER --fpr 0.01

does it again, without training, for an existing detector.
"""

import logging
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.alignment.build_part import aligned_source
from recon_ad.data import folder_source
from recon_ad.data.arrays import given_range
from recon_ad.data.decode_cache import DecodeCache
from recon_ad.detector.onnx_export import warn_of_outdated_files
from recon_ad.detector.open import detector_to_change, methods_flag
from recon_ad.detector.thresholds import calibrate, warn_of_training_images
from recon_ad.runtime.compilation import keep_compiled

logger = logging.getLogger("recon_ad")


def main() -> None:
    """Runs the command."""
    keep_compiled()
    _ADD_METHODS()
    path = Path(_DETECTOR.value)
    with detector_to_change(path) as detector:
        source = folder_source(
            _NORMALS.value,
            channels=detector.channels,
            input_range=given_range(detector.config.data.input_range),
            cache=DecodeCache(memory_mib=detector.config.data.cache_mib),
        )
        warn_of_training_images(detector, source.train)
        of_regions = any(record.load_roi for record in source.train)
        source = aligned_source(source, detector.part)
        for note in source.notes:
            logger.warning("%s", note)
        fpr = detector.config.calibration.fpr if _FPR.value is None else _FPR.value
        how = f"{len(source.train)} images of {_NORMALS.value}"
        aligned = calibrate(
            detector.with_part(None), source.train, fpr=fpr, how=how, of_regions=of_regions
        )
        aligned.with_part(detector.part).save(path)
    logger.info("new thresholds are in %s", path)
    warn_of_outdated_files(path)


if __name__ == "__main__":
    _DETECTOR = flags.DEFINE_string("detector", None, "Detector directory.", required=True)
    _NORMALS = flags.DEFINE_string("normals", None, "Folder of normal images.", required=True)
    _FPR = flags.DEFINE_float("fpr", None, "False-positive rate per image; else the config's.")
    _ADD_METHODS = methods_flag()
    cli.run(main)
