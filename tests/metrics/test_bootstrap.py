"""Intervals by resampling images, against plain loops over the resamples."""

import numpy as np
import pytest
from helpers import metrics_reference as reference
from sklearn import metrics as sklearn_metrics

from recon_ad import metrics
from recon_ad.metrics.bootstrap import IMAGE_FIGURES, PIXEL_FIGURES, multiplicities
from recon_ad.metrics.figures import FIGURES


def _images(seed, n, levels):
    """Maps of whole numbers below `levels`, every other image with a defect."""
    random = np.random.default_rng(seed)
    truths = np.zeros((n, 6, 7), bool)
    truths[::2, 1:3, 1:4] = truths[::4, 4, 5] = True
    maps = random.integers(0, levels, truths.shape) + truths * random.integers(0, levels)
    return maps.astype(np.float32), truths


def _histograms(maps, truths):
    return [metrics.image_histogram(m, t) for m, t in zip(maps, truths, strict=True)]


def _scored(seed, n=60):
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 3 == 0
    return random.normal(size=n) + 1.2 * labels, labels


def test_image_intervals_are_those_of_a_plain_resampling_loop():
    scores, labels = _scored(0, n=30)
    scores = np.round(scores, 1)  # with ties
    found = {"image_auroc": [], "image_ap": [], "image_f1_max": []}
    for times in multiplicities(labels, seed=3, resamples=12):
        drawn, truth = np.repeat(scores, times), np.repeat(labels, times)
        found["image_auroc"].append(sklearn_metrics.roc_auc_score(truth, drawn))
        found["image_ap"].append(sklearn_metrics.average_precision_score(truth, drawn))
        precision, recall, _ = sklearn_metrics.precision_recall_curve(truth, drawn)
        found["image_f1_max"].append(np.max(2 * precision * recall / (precision + recall)))
    ours = metrics.image_intervals(scores, labels, seed=3, resamples=12)
    assert ours.keys() == found.keys()
    for name, values in found.items():
        assert ours[name] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-12), name


def test_pixel_intervals_are_those_of_a_plain_resampling_loop():
    maps, truths = _images(1, n=7, levels=9)
    found = {"pixel_auroc": [], "pixel_ap": [], "aupro_30": [], "iou_max_oracle": []}
    for times in multiplicities(truths.any((1, 2)), seed=5, resamples=12):
        drawn, truth = np.repeat(maps, times, 0), np.repeat(truths, times, 0)
        flat = truth.ravel(), drawn.ravel()
        found["pixel_auroc"].append(sklearn_metrics.roc_auc_score(*flat))
        found["pixel_ap"].append(sklearn_metrics.average_precision_score(*flat))
        found["aupro_30"].append(reference.aupro(drawn, truth, 0.3))
        found["iou_max_oracle"].append(reference.iou_max(drawn, truth)[0])
    histograms = [metrics.compact(histogram) for histogram in _histograms(maps, truths)]
    ours = metrics.pixel_intervals(histograms, seed=5, resamples=12, coverage=0.5)
    assert ours.keys() == found.keys()
    for name, values in found.items():
        assert ours[name] == pytest.approx(np.quantile(values, [0.25, 0.75]), abs=1e-12), name


def test_same_seed_same_intervals_and_another_seed_others():
    scores, labels = _scored(1)
    histograms = _histograms(*_images(2, n=10, levels=40))
    for intervals in (
        lambda seed: metrics.image_intervals(scores, labels, seed=seed, resamples=20),
        lambda seed: metrics.pixel_intervals(histograms, seed=seed, resamples=20),
    ):
        assert intervals(7) == intervals(7) != intervals(8)


def test_resamples_keep_the_number_of_images_of_each_kind():
    defective = np.arange(30) % 3 == 0
    drawn = np.stack(list(multiplicities(defective, seed=0, resamples=400)))
    assert (drawn[:, defective].sum(1) == 10).all() and (drawn[:, ~defective].sum(1) == 20).all()
    # Each image is drawn once on average; 400 resamples put the mean's standard error at 0.05.
    assert np.abs(drawn.mean(0) - 1).max() < 0.25
    assert len({tuple(times) for times in drawn}) == 400


def test_intervals_contain_the_figure_and_shrink_with_more_images():
    widths = []
    for n in (60, 960):
        scores, labels = _scored(2, n)
        low, high = metrics.image_intervals(scores, labels, seed=0, resamples=100)["image_auroc"]
        assert low < metrics.auroc(metrics.levels(scores, labels)) < high
        widths.append(high - low)
    # 16 times the images: a quarter of the width, give or take sampling.
    assert 2.5 < widths[0] / widths[1] < 6

    histograms = _histograms(*_images(3, n=20, levels=50))
    intervals = metrics.pixel_intervals(histograms, seed=0, resamples=100)
    for name, figure in PIXEL_FIGURES.items():
        low, high = intervals[name]
        assert 0 < low < figure(metrics.merge(*histograms)) < high < 1, name


@pytest.mark.slow
def test_auroc_interval_covers_the_true_auroc_about_as_often_as_it_says():
    # Scores N(0, 1) and N(1, 1): the true AUROC is Phi(1 / sqrt 2).
    truth = 0.7602499
    random = np.random.default_rng(9)
    labels = np.arange(120) < 60
    covered = 0
    for seed in range(60):
        scores = random.normal(size=120) + labels
        low, high = metrics.image_intervals(scores, labels, seed=seed, resamples=100)["image_auroc"]
        covered += low <= truth <= high
    # Binomial(60, 0.95): below 51 has a probability under 1 in 1000.
    assert covered >= 51


def test_histograms_of_different_fineness_are_brought_together():
    maps, truths = _images(4, n=6, levels=9)
    # Whole numbers up to 16 need 4 bits of mantissa: nothing is lost at 13 bits.
    mixed = [
        metrics.image_histogram(m, t, bits=12 + i)
        for i, (m, t) in enumerate(zip(maps, truths, strict=True))
    ]
    fine, ours = (
        metrics.pixel_intervals(histograms[1:], seed=0, resamples=9)
        for histograms in (_histograms(maps, truths), mixed)
    )
    assert ours == fine


def test_a_single_class_is_undefined():
    maps, truths = _images(5, n=4, levels=5)
    for histograms, says in (
        (_histograms(maps, truths & False), "no anomalous"),
        (_histograms(maps, truths | True), "no normal"),
        ([], "no images"),
    ):
        with pytest.raises(metrics.UndefinedMetric, match=says):
            metrics.pixel_intervals(histograms, seed=0)
    with pytest.raises(metrics.UndefinedMetric, match="no normal"):
        metrics.image_intervals(np.ones(3), np.ones(3, bool), seed=0)


def test_resamples_that_lack_a_class_are_left_out():
    maps, truths = _images(6, n=5, levels=5)
    truths[1:] = True  # only the first image has normal pixels
    histograms, defective = _histograms(maps, truths), np.ones(5, bool)
    drawn = list(multiplicities(defective, seed=0, resamples=20))
    assert 0 < sum(times[0] == 0 for times in drawn) < 20
    low, high = metrics.pixel_intervals(histograms, seed=0, resamples=20)["pixel_auroc"]
    assert 0 < low <= high < 1

    def lacking(seed):
        return not next(multiplicities(defective, seed=seed, resamples=1))[0]

    with pytest.raises(metrics.UndefinedMetric, match="no resample"):
        metrics.pixel_intervals(histograms, seed=next(filter(lacking, range(99))), resamples=1)


@pytest.mark.parametrize("option", [{"resamples": 0}, {"coverage": 0.0}, {"coverage": 1.0}])
def test_mistaken_options_are_refused(option):
    scores, labels = _scored(3)
    with pytest.raises(ValueError, match=next(iter(option))):
        metrics.image_intervals(scores, labels, seed=0, **option)


def test_the_list_of_figures_names_those_with_an_interval():
    listed = {key for key, figure in FIGURES.items() if figure.interval}
    assert listed == {*IMAGE_FIGURES, *PIXEL_FIGURES}
