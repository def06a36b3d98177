"""The training of a classifier for a detector directory, from a folder of labelled images."""

import logging
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from recon_ad.classifier import training
from recon_ad.classifier.labels import examples, read_labels, tell, train, untrained
from recon_ad.config import CLASSIFIER_RULES, check_config
from recon_ad.data.truth import Regions
from recon_ad.detector.classifier import DEFECT, FILE, save
from recon_ad.detector.onnx_export import warn_of_outdated_files
from recon_ad.detector.open import detector_to_change
from recon_ad.errors import UserError
from recon_ad.runtime import files, provenance

logger = logging.getLogger("recon_ad")


def train_classifier(
    path: Path, folder: Path, labels: Path, *, config: ConfigDict, roi: Path | None = None
) -> None:
    """Train a classifier of a detector's heatmaps and write it into the detector.

    Its cross-validation is written to `classifier.json` beside the detector.

    Args:
      path: Detector directory.
      folder: Folder of the labelled images.
      labels: CSV file with path (below `folder`) and label.
      config: Config of the classifier (see configs/classifier.py).
      roi: Region of interest, an image or a folder of them.

    Raises:
      UserError: If the detector, the images, the labels or the config are not usable.
    """
    check_config(config, CLASSIFIER_RULES)
    with detector_to_change(path) as detector:
        if not folder.is_dir():
            raise UserError(f"--images {folder}: folder not found.")
        read = read_labels(labels, folder)
        given = np.array([label == DEFECT for label in read.values()])
        training.check_labels(given, folds=config.folds)
        network, origin = untrained(detector, config)
        found = examples(detector, network, read, folder, Regions(folder, roi))
        threshold = detector.thresholds.image
        classifier, report = train(network, found, config, image_threshold=threshold)
        if origin:
            classifier = classifier._replace(record=classifier.record | {"pretrained": origin})
        save(classifier, path)
    report |= {"config": config.to_dict(), "hardware": provenance.hardware()}
    report |= {"versions": provenance.versions()}
    files.write_json(path.parent / "classifier.json", report)
    tell(report)
    logger.info("the classifier is in %s, its report in %s", path / FILE, path.parent)
    warn_of_outdated_files(path)
