"""The gain of a classifier over the score: draws of labels, metrics of the remaining images."""

import numpy as np
import pytest
from helpers.classifiers import settings
from helpers.detectors import make_detector
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from recon_ad.classifier import training
from recon_ad.data import Record, Source
from recon_ad.tables import labels

CONFIGS = {"hu": settings()}


def seen_of(*, apart):
    """Return scores, and features whose classes are clearly separated."""
    random = np.random.default_rng(0)
    defects = np.arange(40) % 2 == 0
    scores = random.normal(size=40) + 0.5 * defects
    found = random.normal(size=(40, 4)) + apart * defects[:, None]
    return labels.Seen(scores, scores > 0, {"hu": found.astype(np.float32)}), defects


def test_each_draw_has_as_many_labels_of_either_class_and_another_draw_others():
    _, defects = seen_of(apart=4)
    drawn = np.array(labels._splits(defects, 10, seed=0))
    assert drawn.shape == (labels.SPLITS, 40)
    assert (drawn[:, defects].sum(axis=1) == 5).all() and (drawn.sum(axis=1) == 10).all()
    assert len(np.unique(drawn, axis=0)) == labels.SPLITS


def test_figures_are_of_images_without_a_label():
    seen, defects = seen_of(apart=4)
    found = labels.compared(seen, defects, CONFIGS, count=10)
    aurocs, accuracies = [], []
    for chosen in labels._splits(defects, 10, seed=0):
        rest = ~chosen
        aurocs.append(roc_auc_score(defects[rest], seen.scores[rest]))
        least = training.best_threshold(seen.scores[chosen], defects[chosen])
        accuracies.append(balanced_accuracy_score(defects[rest], seen.scores[rest] > least))
    for name, figures in (("auroc", aurocs), ("balanced_accuracy", accuracies)):
        expected = {"mean": np.mean(figures), "low": np.percentile(figures, 2.5)}
        ours = {key: found["threshold"][name][key] for key in expected}
        assert ours == pytest.approx(expected, abs=1e-12)


def test_a_classifier_gains_where_its_features_tell_and_only_there():
    seen, defects = seen_of(apart=4)
    found = labels.compared(seen, defects, CONFIGS, count=20)["hu"]
    assert found["auroc"]["mean"] > 0.98 and found["auroc_gain_on_threshold"]["low"] > 0
    # With uninformative features, learning from labelled images does not help with others.
    seen, defects = seen_of(apart=0)
    found = labels.compared(seen, defects, CONFIGS, count=20)["hu"]
    assert 0.35 < found["auroc"]["mean"] < 0.65


def test_a_cell_is_measured_on_the_sets_own_test_images():
    random = np.random.default_rng(0)

    def record(i):
        image = random.random((50, 60, 1), np.float32)
        if i % 2:
            image[10:20, 10:50] = 1
        return Record(f"{i}.png", lambda: image, "bar" if i % 2 else "good")

    detector = make_detector()
    source = Source((), tuple(map(record, range(30))))
    found = labels.measure(detector, source)["classifier"]
    scores = [float(detector.predict(r.load()).score) for r in source.test]
    seen, _ = labels.look(detector, source.test, CONFIGS)
    np.testing.assert_allclose(seen.scores, scores, rtol=1e-6)
    assert found["labels"] == 20 and found["hu"]["auroc"]["mean"] > 0.9
    few = Source((), source.test[:19])
    assert labels.measure(detector, few) == {"classifier": None}
