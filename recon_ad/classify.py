"""Train a heatmap classifier from a few labels and add it to the detector.

    python -m recon_ad.classify --detector D/detector --images FOLDER --labels labels.csv
        [--config configs/classifier.py:features=encoder,weights=FILE] [--roi PATH]

labels.csv has the columns path (below FOLDER) and label ("defect" or "harmless"). The classifier is
written to D/detector/classifier.safetensors, and every command then uses it: an image is rejected
if its score is above the image threshold and its defect probability is above the classifier's
threshold. Deleting the file removes the classifier. The cross-validation is written to
D/classifier.json. From then on all metrics exclude the labelled images.
"""

from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.classifier.run import train_classifier
from recon_ad.config import config_flag
from recon_ad.detector.open import methods_flag
from recon_ad.runtime.compilation import keep_compiled


def main() -> None:
    """Run the command."""
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
    _LABELS = flags.DEFINE_string(
        "labels", None, "CSV file with the columns path and label.", required=True
    )
    _ROI = flags.DEFINE_string("roi", "", "Region of interest: an image or a folder of images.")
    _CONFIG = config_flag("classifier")
    _ADD_METHODS = methods_flag()
    cli.run(main)
