"""Defect classifiers for tests: small configs, labelled features, detectors with a classifier."""

import jax
import numpy as np

from helpers.detectors import SIDE
from recon_ad.classifier import labels as classifier_labels
from recon_ad.config import load_config
from recon_ad.detector.classifier import Labelled, extract


def settings(features="hu", **fields):
    config = load_config(f"configs/classifier.py:features={features},weights=random")
    config.update_from_flattened_dict({"encoder.side": SIDE, "repeats": 3, "steps": 100} | fields)
    return config


def examples(count=60, d=5, apart=3.0, seed=0):
    labels = np.arange(count) % 3 == 0
    features = np.random.default_rng(seed).normal(size=(count, d)).astype(np.float32)
    features[:, 0] += apart * labels
    return features, labels


def with_classifier(detector, features="hu", **fields):
    """Return the detector with a classifier that separates noise with a bright bar from noise."""
    config = settings(features, **({"folds": 2, "repeats": 1} | fields))
    network, _ = classifier_labels.untrained(detector, config)
    random = np.random.default_rng(0)
    images, predictions = [], []
    for i in range(12):
        image = random.random((50, 60, 1), np.float32)
        if i % 2:
            image[10:20, 10:50] = 1
        predictions.append(detector.predict(image))
        images.append(Labelled(f"{i}.png", str(i), "defect" if i % 2 else "harmless"))
    maps = np.stack([p.anomaly_map for p in predictions])
    found = jax.device_get(jax.jit(extract)(network, maps, np.ones(maps.shape, bool)))
    given = classifier_labels.Examples(
        tuple(images), np.float64([p.score for p in predictions]), found
    )
    threshold = detector.thresholds.image
    classifier, _ = classifier_labels.train(network, given, config, image_threshold=threshold)
    return detector.with_classifier(classifier)
