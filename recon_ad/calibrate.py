"""Recompute a detector's thresholds from good images that it was not trained on.

    python -m recon_ad.calibrate --detector D/detector --normals FOLDER --fpr 0.01

Nothing is trained. The new images are added to those of earlier calibrations, or replace them with
`--replace`.
"""

from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.detector.open import methods_flag
from recon_ad.detector.recalibrate import recalibrate
from recon_ad.runtime.compilation import keep_compiled


def main() -> None:
    """Run the command."""
    keep_compiled()
    _ADD_METHODS()
    recalibrate(
        Path(_DETECTOR.value),
        _NORMALS.value,
        fpr=_FPR.value,
        category=_CATEGORY.value,
        replace=_REPLACE.value,
    )


if __name__ == "__main__":
    _DETECTOR = flags.DEFINE_string("detector", None, "Detector directory.", required=True)
    _NORMALS = flags.DEFINE_string("normals", None, "Folder of good images.", required=True)
    _FPR = flags.DEFINE_float(
        "fpr", None, "False-positive rate per image; by default that of the last calibration."
    )
    _CATEGORY = flags.DEFINE_string(
        "category", "", "Category of the images, for a detector of several categories."
    )
    _REPLACE = flags.DEFINE_bool(
        "replace", False, "Replace the good images of earlier calibrations instead of adding."
    )
    _ADD_METHODS = methods_flag()
    cli.run(main)
