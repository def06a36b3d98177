"""Trains a classifier of a detector's heatmaps from a few labels, and writes it into the detector.

    python -m recon_ad.classify --detector D/detector --images FOLDER --labels labels.csv
        [--config configs/classifier.py:features=encoder,weights=FILE] [--roi PATH]

labels.csv has the columns path (below FOLDER) and label ("defect" or "harmless"). Writes
D/detector/classifier.safetensors, which every command then uses: an image is rejected where its
score is above the image threshold and the probability of a defect above the classifier's. Writes
D/classifier.json too, the cross-validation. Delete the first to be without a classifier again. The
labelled images are left out of all metrics from then on.
"""

import logging
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from recon_ad import cli
from recon_ad.classifier import training
from recon_ad.classifier.labels import examples, read_labels, tell, train, untrained
from recon_ad.config import CLASSIFIER_RULES, check_config, check_file
from recon_ad.data.truth import Regions
from recon_ad.detector.classifier import DEFECT, FILE, save
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.onnx_export import warn_of_outdated_files
from recon_ad.detector.open import detector_to_change, methods_flag
from recon_ad.errors import UserError
from recon_ad.runtime import files, provenance
from recon_ad.runtime.compilation import keep_compiled

logger = logging.getLogger("recon_ad")


def main() -> None:
    """Runs the command."""
    keep_compiled()
    _ADD_METHODS()
    # ml_collections reports a missing file only when a field is first asked for.
    check_file(config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0])
    path, folder, config = Path(_DETECTOR.value), Path(_IMAGES.value), _CONFIG.value
    check_config(config, CLASSIFIER_RULES)
    with detector_to_change(path) as detector:
        _classify(detector, path, folder, config)
    warn_of_outdated_files(path)


def _classify(detector: Detector, path: Path, folder: Path, config: ConfigDict) -> None:
    """Trains the classifier and writes it into the detector at `path`."""
    if not folder.is_dir():
        raise UserError(f"--images {folder}: there is no such folder.")
    labels = read_labels(Path(_LABELS.value), folder)
    regions = Regions(folder, Path(_ROI.value) if _ROI.value else None)
    given = np.array([label == DEFECT for label in labels.values()])
    training.check_labels(given, folds=config.folds)
    network, origin = untrained(detector, config)
    found = examples(detector, network, labels, folder, regions)
    classifier, report = train(network, found, config, image_threshold=detector.thresholds.image)
    if origin:
        classifier = classifier._replace(record=classifier.record | {"pretrained": origin})
    save(classifier, path)
    report |= {"config": config.to_dict(), "hardware": provenance.hardware()}
    report |= {"versions": provenance.versions()}
    files.write_json(path.parent / "classifier.json", report)
    tell(report)
    logger.info("the classifier is in %s, its report in %s", path / FILE, path.parent)


if __name__ == "__main__":
    _DETECTOR = flags.DEFINE_string("detector", None, "Detector directory.", required=True)
    _IMAGES = flags.DEFINE_string("images", None, "Folder with the labelled images.", required=True)
    _LABELS = flags.DEFINE_string("labels", None, "CSV with path and label.", required=True)
    _ROI = flags.DEFINE_string("roi", "", "Region of interest: an image, or a folder of them.")
    _CONFIG = config_flags.DEFINE_config_file("config", "configs/classifier.py", lock_config=True)
    _ADD_METHODS = methods_flag()
    cli.run(main)
