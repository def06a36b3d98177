"""Labelled images, their features, and the classifier that is trained on them."""

import csv
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from recon_ad.alignment.part import NotRegistered
from recon_ad.classifier import training
from recon_ad.data.source import digest
from recon_ad.data.truth import Regions
from recon_ad.detector.classifier import (
    DEFECT,
    ENCODER,
    HARMLESS,
    Classifier,
    Labelled,
    Network,
    Spec,
    encoder_of,
    extract,
)
from recon_ad.detector.image_files import decoded
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.padding import padded_map
from recon_ad.errors import UserError
from recon_ad.metrics.ranking import auroc, levels

logger = logging.getLogger("recon_ad")


class Examples(NamedTuple):
    """Labelled images with the detector's results.

    Attributes:
      images: Names, digests and labels of the images.
      scores: Scores by the detector.
      features: Features of their maps, float32 [n, d].
    """

    images: tuple[Labelled, ...]
    scores: Float[np.ndarray, " n"]
    features: Float[np.ndarray, "n d"]

    @property
    def labels(self) -> Bool[np.ndarray, " n"]:
        """Array of labels, True for a defect."""
        return np.array([image.label == DEFECT for image in self.images])


def read_labels(path: Path, folder: Path) -> dict[str, str]:
    """Read labels by the image's path below the folder.

    Raises:
      UserError: If the file is not a CSV, columns or rows are missing, a label is unknown, or an
        image is named twice or does not exist.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows, columns = list(reader), list(reader.fieldnames or ())
    except FileNotFoundError:
        raise UserError(f"{path} not found: give the labels as a CSV file.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}): save it again.") from None
    if not {"path", "label"} <= set(columns):
        raise UserError(
            f"{path}: the first line is {','.join(columns)!r}, but must be path,label, followed by "
            "a row for each image."
        )
    if not rows:
        raise UserError(
            f"{path} has no row below its first line: give one for each labelled image, such as "
            f"test/07.png,{DEFECT}."
        )
    labels: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        name, label = row["path"] or "", row["label"]
        if label not in (DEFECT, HARMLESS):
            raise UserError(
                f"{path}: row {number} has the label {label!r}: write {DEFECT} or {HARMLESS}."
            )
        if name in labels:
            raise UserError(f"{path}: row {number} names {name} a second time: remove it.")
        if not name or not (folder / name).is_file():
            raise UserError(f"{path}: row {number} names {name!r}, which is not in {folder}.")
        labels[name] = label
    return labels


def untrained(detector: Detector, config: ConfigDict) -> tuple[Network, dict[str, Any]]:
    """Return the network before training, and the origin of its pretrained weights.

    Raises:
      UserError: If the detector has no pixel threshold above 0, or the encoder is not available.
    """
    unit = detector.thresholds.pixel
    if not (np.isfinite(unit) and unit > 0):
        raise UserError(
            f"the detector's pixel threshold is {unit:g}, but must be above 0 as the unit of the "
            "maps: run python -m recon_ad.calibrate first, or use a detector whose maps are "
            "positive."
        )
    variables: dict[str, Any] = {"unit": np.float32(unit)}
    if config.features != ENCODER:
        return Network(variables, Spec(config.features, "", 0, config.hidden)), {}
    c = config.encoder
    spec = Spec(config.features, c.name, c.side, config.hidden)
    read = encoder_of(spec, weights=c.weights, sha256=c.sha256, seed=config.seed)
    params, origin = read.pretrained()
    return Network(variables | {"encoder": params}, spec), origin


def examples(
    detector: Detector, network: Network, labels: dict[str, str], folder: Path, regions: Regions
) -> Examples:
    """Score the labelled images and extract the features of their maps.

    Raises:
      UserError: If an image is broken or does not show the part, or two images are the same.
    """
    network, seen = jax.device_put(network), {}
    take = jax.jit(extract)
    images, scores, features = [], [], []
    for name, label in labels.items():
        image = decoded(detector, folder / name)
        roi = regions.load(folder / name)
        try:  # in the frame of the part, as in the detector
            placement, _, prediction = detector.predict_aligned(image, roi=roi, reconstruct=False)
        except NotRegistered as error:
            raise UserError(f"{name} is {error} It has no score: leave it out.") from None
        padded, valid = padded_map(prediction.anomaly_map, placement.valid)
        sha256 = digest(image)
        if sha256 in seen:  # otherwise it might be in training and validation
            raise UserError(f"{name} and {seen[sha256]} are the same image: label one of them.")
        seen[sha256] = name
        images.append(Labelled(name, sha256, label))
        scores.append(float(prediction.score))
        features.append(jax.device_get(take(network, padded[None], valid[None]))[0])
    return Examples(tuple(images), np.array(scores), np.array(features, np.float32))


def train(
    network: Network, found: Examples, config: ConfigDict, *, image_threshold: float
) -> tuple[Classifier, dict[str, Any]]:
    """Train the classifier, and report the performance to expect from it.

    Raises:
      UserError: If a class has fewer labels than there are folds, or the classes cannot be
        separated.
    """
    labels = found.labels
    training.check_labels(labels, folds=config.folds)
    above = found.scores > np.float32(image_threshold)
    validated = training.cross_validate(found.features, labels, above, config)
    (learnt,) = training.learn(found.features, labels, [np.ones(len(labels), bool)], config)
    decision = learnt.decision
    if not decision.factor:
        raise UserError(
            "no classifier was saved: on held-out labelled images, it separated defects from "
            "harmless anomalies no better than chance: give more labels, other features "
            "(configs/classifier.py), or use the detector without a classifier."
        )
    variables = {
        **network.variables,
        **learnt.params,
        "platt": np.array([decision.factor, decision.offset], np.float32),
        "threshold": np.float32(decision.threshold),
    }
    alone = auroc(levels(found.scores, labels))
    reached = validated["auroc"]["mean"]
    message = ""
    if reached <= max(alone, 0.5):
        message = (
            f"The classifier ranks held-out labelled images no better (AUROC {reached:.3f}) than "
            f"their scores do ({alone:.3f}): give more labels, or use the detector without it."
        )
    record = {
        "features": config.features,
        "labels": {DEFECT: int(labels.sum()), HARMLESS: int((~labels).sum())},
        "above_the_image_threshold": int(above.sum()),
        "threshold": float(variables["threshold"]),
        "threshold_rule": "given in the config"
        if config.threshold is not None
        else "best balanced accuracy on held-out labels",
        "cross_validation": {k: v for k, v in validated.items() if k != "probabilities"},
        "score_alone": {
            "auroc": alone,
            "balanced_accuracy": training.balanced_accuracy(above, labels),
        },
        "message": message,
    }
    rows = [
        {**image._asdict(), "score": score, "probability_when_not_seen": probability}
        for image, score, probability in zip(
            found.images, found.scores.tolist(), validated["probabilities"], strict=True
        )
    ]
    classifier = Classifier(Network(variables, network.spec), found.images, record)
    return classifier, record | {"images": rows}


def tell(report: dict[str, Any]) -> None:
    """Log the main figures."""
    validated, alone = report["cross_validation"], report["score_alone"]
    logger.info(
        "on held-out labels: AUROC %.3f, balanced accuracy %.3f, Brier score %.3f; the score "
        "alone: %.3f, %.3f",
        *(validated[key]["mean"] for key in ("auroc", "balanced_accuracy", "brier")),
        alone["auroc"],
        alone["balanced_accuracy"],
    )
    if report["message"]:
        logger.warning("%s", report["message"])
