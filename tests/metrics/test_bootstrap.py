"""Intervals by resampling images, against plain loops over the resamples."""

import numpy as np
import pytest
from helpers import metrics_reference as reference
from sklearn import metrics as sklearn_metrics

from recon_ad import metrics
from recon_ad.metrics.bootstrap import IMAGE_FIGURES, PIXEL_FIGURES, multiplicities
from recon_ad.metrics.figures import FIGURES
from recon_ad.metrics.segmentation import coarsen


def _images(seed, n, levels):
    """Draw maps of whole numbers below `levels`; every other image has a defect."""
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


def _looped(figures, scores, truths, *, seed, ends):
    """Return quantiles of each metric over 12 resamples, each of them stored in full."""
    defective = truths.reshape(len(truths), -1).any(1)
    found = {name: [] for name in figures}
    for times in multiplicities(defective, seed=seed, resamples=12):
        drawn, truth = np.repeat(scores, times, 0), np.repeat(truths, times, 0)
        for name, figure in figures.items():
            found[name].append(figure(drawn, truth))
    return {name: pytest.approx(np.quantile(found[name], ends), abs=1e-12) for name in found}


def _auroc(scores, truths):
    return sklearn_metrics.roc_auc_score(truths.ravel(), scores.ravel())


def _average_precision(scores, truths):
    return sklearn_metrics.average_precision_score(truths.ravel(), scores.ravel())


def test_image_intervals_are_those_of_a_plain_resampling_loop():
    scores, labels = _scored(0, n=30)
    scores = np.round(scores, 1)  # with ties
    figures = {
        "image_ap": _average_precision,
        "image_f1_max": reference.f1_max,
    }
    expected = _looped(figures, scores, labels, seed=3, ends=[0.025, 0.975])
    assert metrics.image_intervals(scores, labels, seed=3, resamples=12) == expected


def test_pixel_intervals_are_those_of_a_plain_resampling_loop():
    maps, truths = _images(1, n=20, levels=9)
    figures = {
        "pixel_auroc": _auroc,
        "pixel_ap": _average_precision,
        "aupro_30": lambda m, t: reference.aupro(m, t, 0.3),
        "aupro_05": lambda m, t: reference.aupro(m, t, 0.05),
        "iou_max_oracle": lambda m, t: reference.iou_max(m, t)[0],
        "seg_f1_max_oracle": reference.f1_max,
    }
    histograms = [metrics.compact(histogram) for histogram in _histograms(maps, truths)]
    ours = metrics.pixel_intervals(histograms, seed=5, resamples=12, coverage=0.5)
    assert ours == _looped(figures, maps, truths, seed=5, ends=[0.25, 0.75])


def test_resamples_keep_the_number_of_images_of_each_kind():
    defective = np.arange(30) % 3 == 0
    drawn = np.stack(list(multiplicities(defective, seed=0, resamples=400)))
    assert (drawn[:, defective].sum(1) == 10).all() and (drawn[:, ~defective].sum(1) == 20).all()
    # Each image is drawn once on average; with 400 resamples the mean's standard error is 0.05.
    assert np.abs(drawn.mean(0) - 1).max() < 0.25
    assert len({tuple(times) for times in drawn}) == 400
    again, other = (next(multiplicities(defective, seed=s, resamples=1)) for s in (0, 1))
    assert again.tolist() == drawn[0].tolist() != other.tolist()


def test_histograms_of_different_fineness_are_brought_together():
    fine = _histograms(*_images(4, n=20, levels=9))
    # Whole numbers up to 16 need 4 bits of mantissa, so 13 bits are exact.
    mixed = [coarsen(histogram, bits=13 + i % 6) for i, histogram in enumerate(fine)]
    ours, expected = (metrics.pixel_intervals(h, seed=0, resamples=9) for h in (mixed, fine))
    assert ours == expected


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
    maps, truths = _images(6, n=10, levels=5)
    truths[1:] = True  # only the first image has normal pixels
    histograms, defective = _histograms(maps, truths), np.ones(10, bool)
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


def test_a_handful_of_images_or_equal_figures_have_no_interval():
    scores, labels = _scored(0, n=27)
    with pytest.raises(metrics.UndefinedMetric, match="9 defective images are too few"):
        metrics.image_intervals(scores, labels, seed=0)
    apart = np.where(np.arange(40) % 2, 1.0, 0.0) + np.arange(40) / 100
    assert metrics.image_intervals(apart, np.arange(40) % 2 > 0, seed=0) == {}
    maps, truths = _images(5, n=18, levels=5)
    with pytest.raises(metrics.UndefinedMetric, match="9 good images are too few"):
        metrics.pixel_intervals(_histograms(maps, truths), seed=0)


def test_the_list_of_figures_names_those_with_an_interval():
    listed = {key for key, figure in FIGURES.items() if figure.interval}
    others = {"image_auroc", "image_fpr_calibrated", "image_tpr_calibrated"}
    assert listed == {*others, *IMAGE_FIGURES, *PIXEL_FIGURES}
