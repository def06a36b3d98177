"""Trains a classifier of heatmaps from a few labels, and writes it into the detector.

    python -m recon_ad.classify --detector D/detector --images FOLDER --labels labels.csv
        [--config configs/classifier.py:features=encoder,weights=FILE] [--roi PATH]

labels.csv has the columns path (below FOLDER) and label ("defect" or "harmless"). Writes
D/detector/classifier.safetensors, which every command then uses: an image is rejected where its
score is above the image threshold and the probability of a defect above the classifier's. Writes
D/classifier.json too, the cross-validation. Delete the first to be without a classifier again. The
labelled images are left out of all metrics from then on.
"""

from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.classifier.run import train_classifier
from recon_ad.config import config_flag
from recon_ad.detector.open import methods_flag
from recon_ad.runtime.compilation import keep_compiled


def main() -> None:
    """Runs the command."""
    keep_compiled()
    _ADD_METHODS()
    train_classifier(
        Path(_DETECTOR.value),
        Path(_IMAGES.value),
        Path(_LABELS.value),
        config=_CONFIG.value,
        roi=Path(_ROI.value) if _ROI.value else None,
    )


if __name__ == "__main__":
    _DETECTOR = flags.DEFINE_string("detector", None, "Detector directory.", required=True)
    _IMAGES = flags.DEFINE_string("images", None, "Folder with the labelled images.", required=True)
    _LABELS = flags.DEFINE_string("labels", None, "CSV with path and label.", required=True)
    _ROI = flags.DEFINE_string("roi", "", "Region of interest: an image, or a folder of them.")
    _CONFIG = config_flag("classifier")
    _ADD_METHODS = methods_flag()
    cli.run(main)
