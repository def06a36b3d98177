"""Sets a detector's thresholds anew, from good images that it was not trained on.

    python -m recon_ad.calibrate --detector D/detector --normals FOLDER --fpr 0.01

does it without training. The thresholds then rest on the good images of before and these together,
or on these alone with `--replace`.
"""

from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.detector.open import methods_flag
from recon_ad.detector.recalibrate import recalibrate
from recon_ad.runtime.compilation import keep_compiled


def main() -> None:
    """Runs the command."""
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
    _NORMALS = flags.DEFINE_string("normals", None, "Folder of normal images.", required=True)
    _FPR = flags.DEFINE_float("fpr", None, "False-positive rate per image; else as before.")
    _CATEGORY = flags.DEFINE_string(
        "category", "", "What the images show, for a detector of several categories."
    )
    _REPLACE = flags.DEFINE_bool("replace", False, "Drops the good images of before.")
    _ADD_METHODS = methods_flag()
    cli.run(main)
