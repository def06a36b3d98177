"""Comparison of a classifier of heatmaps with the image score alone, from a few labels.

In each of many draws, half of the labels are of each class, and every figure is computed on the
remaining images. The image score alone gets the same labels, to find its best threshold.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from recon_ad.alignment.part import NotRegistered
from recon_ad.classifier import training
from recon_ad.classifier.labels import untrained
from recon_ad.config import load_config
from recon_ad.data import Record, Source
from recon_ad.data.source import roi_of
from recon_ad.detector.classifier import extract
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.padding import padded_map
from recon_ad.metrics.ranking import auroc, levels
from recon_ad.tables.base import Run

SPLITS = 50
LABELS = 20  # labelled images in a table's cell, half of them defects
Scores = Float[np.ndarray, " n"]
Flags = Bool[np.ndarray, " n"]


class Seen(NamedTuple):
    """Results of the detector on images.

    Attributes:
      scores: Image scores.
      above: True where the score is above the image threshold.
      features: Features of the maps, by the kind of features.
    """

    scores: Scores
    above: Flags
    features: Mapping[str, Float[np.ndarray, "n _"]]


def look(
    detector: Detector, records: Sequence[Record], configs: Mapping[str, ConfigDict]
) -> tuple[Seen, list[Record]]:
    """Inspect the images and compute the features of their maps.

    Args:
      detector: Detector with a pixel threshold above 0.
      records: Images.
      configs: Configs from configs/classifier.py, by the kind of features.

    Returns:
      The results, and their records. Images in which the part is not found are left out.
    """
    networks = {k: jax.device_put(untrained(detector, c)[0]) for k, c in configs.items()}
    take = jax.jit(extract)
    scores, kept = [], []
    features: dict[str, list[np.ndarray]] = {name: [] for name in networks}
    for record in records:
        try:  # in the frame of the part, as the detector's classifier sees it
            placement, _, prediction = detector.predict_aligned(
                record.load(), roi=roi_of(record), reconstruct=False
            )
        except NotRegistered:
            continue
        padded, valid = padded_map(prediction.anomaly_map, placement.valid)
        for name, network in networks.items():
            features[name].append(jax.device_get(take(network, padded[None], valid[None]))[0])
        scores.append(float(prediction.score))
        kept.append(record)
    above = np.array(scores) > np.float32(detector.thresholds.image)
    taken = {name: np.array(found, np.float32) for name, found in features.items()}
    return Seen(np.array(scores), above, taken), kept


def compared(
    seen: Seen, defects: Flags, configs: Mapping[str, ConfigDict], *, count: int
) -> dict[str, dict[str, Any]]:
    """Compute the figures of the score alone ("threshold") and of each classifier.

    Each figure has its mean over the splits, and `low` and `high`, between which 95 % of the splits
    lie. Gains over the threshold are computed within a split.

    Args:
      seen: Results of the detector.
      defects: True where the image is defective.
      configs: Configs as in `look`.
      count: Number of labelled images, half of them defects.
    """
    drawn = _splits(defects, count, seed=0)
    rows = {"threshold": [_by_threshold(seen.scores, defects, chosen) for chosen in drawn]}
    for name, config in configs.items():
        learnt = training.learn(seen.features[name], defects, drawn, config)
        rows[name] = [
            _by_classifier(one, defects, chosen, seen.above)
            for one, chosen in zip(learnt, drawn, strict=True)
        ]
    table = {
        name: {key: _spread([row[key] for row in found]) for key in found[0]}
        for name, found in rows.items()
    }
    for name in configs:
        for key in ("auroc", "balanced_accuracy"):
            pairs = zip(rows[name], rows["threshold"], strict=True)
            table[name][f"{key}_gain_on_threshold"] = _spread([a[key] - b[key] for a, b in pairs])
    return table


def measure(detector: Detector, source: Source) -> Run:
    """Measure the table's figures: Hu's moments, learnt from LABELS of the set's test images."""
    configs = {"hu": load_config("configs/classifier.py:features=hu")}
    seen, records = look(detector, source.test, configs)
    defects = np.array([record.anomalous for record in records])
    if min(defects.sum(), (~defects).sum()) <= LABELS // 2:
        return {"classifier": None}
    return {"classifier": {"labels": LABELS} | compared(seen, defects, configs, count=LABELS)}


def _splits(defects: Flags, count: int, *, seed: int) -> list[Flags]:
    """Return which images are labelled in each draw, as many of either class."""
    random = np.random.default_rng([seed, count])
    drawn = []
    for _ in range(SPLITS):
        chosen = np.zeros(len(defects), bool)
        for value in (True, False):
            members = np.flatnonzero(defects == value)
            chosen[random.choice(members, count // 2, replace=False)] = True
        drawn.append(chosen)
    return drawn


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}


def _by_threshold(scores: Scores, defects: Flags, chosen: Flags) -> dict[str, float]:
    best = training.best_threshold(scores[chosen], defects[chosen])
    rest = ~chosen
    return {
        "auroc": auroc(levels(scores[rest], defects[rest])),
        "balanced_accuracy": training.balanced_accuracy(scores[rest] > best, defects[rest]),
    }


def _by_classifier(
    learnt: training.Learnt, defects: Flags, chosen: Flags, above: Flags
) -> dict[str, float]:
    rest = ~chosen
    probabilities = learnt.decision.probabilities(learnt.logits[rest])
    is_defect = probabilities > learnt.decision.threshold
    return {
        "auroc": auroc(levels(probabilities, defects[rest])),
        "balanced_accuracy": training.balanced_accuracy(is_defect, defects[rest]),
        "balanced_accuracy_with_the_image_threshold": training.balanced_accuracy(
            is_defect & above[rest], defects[rest]
        ),
        "brier": float(np.mean((probabilities - defects[rest]) ** 2)),
    }
