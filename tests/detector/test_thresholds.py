"""Conformal thresholds, and thresholds of a detector from held-out normals."""

import functools

import numpy as np
import pytest
from helpers.detectors import plain_detector

from recon_ad.data import Record
from recon_ad.detector.thresholds import calibrate, conformal_threshold
from recon_ad.errors import UserError


@pytest.mark.parametrize(
    ("n", "fpr", "rank", "supported"),
    [(99, 0.01, 99, 0.01), (199, 0.01, 198, 0.01), (100, 0.01, 100, 0.01), (9, 0.1, 9, 0.1),
     (98, 0.01, 98, 1 / 99), (5, 0.01, 5, 1 / 6), (1, 0.01, 1, 0.5), (20, 0.25, 16, 0.25)],
)  # fmt: skip
def test_takes_the_score_of_the_conformal_rank(n, fpr, rank, supported):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    assert conformal_threshold(scores, fpr=fpr) == (rank, pytest.approx(supported))


def test_regions_are_asked_for_a_rate_that_makes_up_an_images():
    scores = np.arange(1.0, 400.0)
    assert conformal_threshold(scores, fpr=0.04, regions_per_image=4.0)[0] == 396  # as 0.01
    few, supported = conformal_threshold(scores[:4], fpr=0.04, regions_per_image=4.0)
    assert (few, supported) == (4, 0.5)
    # The chance that one of a new image's 4 regions exceeds the largest of 4 others.
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(20_000, 8))
    exceeded = draws[:, 4:].max(axis=1) > draws[:, :4].max(axis=1)
    assert abs(exceeded.mean() - supported) < 0.015


def test_keeps_the_false_positive_rate_on_average():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        threshold, _ = conformal_threshold(rng.normal(size=60), fpr=0.05)
        rates.append(np.mean(rng.normal(size=500) > threshold))
    # The mean of 400 rates, each spread by about 0.03.
    assert 0.05 - 0.012 < np.mean(rates) < 0.05 + 0.004


@pytest.fixture(scope="module")
def detector():
    return plain_detector()


def normals(n):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 40, 1), np.uint8) for _ in range(n)]
    return [Record(str(i), functools.partial(np.copy, x)) for i, x in enumerate(images)]


def test_thresholds_agree_with_quantiles_of_all_scores_and_pixels(detector):
    records = normals(7)
    calibrated = calibrate(detector, records, fpr=0.2, how="seven")
    maps = [detector.predict(r.load()).anomaly_map for r in records]
    scores = np.sort([m.max() for m in maps])
    assert calibrated.thresholds.image == scores[6]  # ⌈8 · 0.8⌉ = 7th
    exact = np.quantile(np.concatenate([m.ravel() for m in maps]), 0.999, method="inverted_cdf")
    # The upper end of a histogram bin: never below, at most 2^-13 above.
    assert exact <= calibrated.thresholds.pixel <= exact * (1 + 2**-12)
    record = calibrated.record["calibration"]
    assert record["images"] == 7
    assert record["pixels"] == 7 * 40 * 40
    assert record["heldout"] == "seven"


def test_no_heldout_image_scores_above_a_threshold_from_few(detector):
    records = normals(4)
    calibrated = calibrate(detector, records, fpr=0.01, how="four")
    assert not any(calibrated.predict(r.load()).label for r in records)
    assert calibrated.record["calibration"]["fpr_supported"] == pytest.approx(0.2)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -1.0])
def test_impossible_rates_are_refused(detector, fpr):
    with pytest.raises(UserError, match="between 0 and 1"):
        calibrate(detector, normals(2), fpr=fpr, how="")


def test_thresholds_that_are_given_are_kept_and_reported():
    fields = {"calibration.thresholds.image": 0.5, "calibration.thresholds.pixel": 1.0}
    calibrated = calibrate(plain_detector(**fields), normals(3), fpr=0.01, how="three")
    assert calibrated.thresholds == (0.5, 1.0)
    told = calibrated.record["calibration"]
    assert told["image_rule"] == told["pixel_rule"] == "given in the config"
    assert told["fpr_supported"] is None and not told["message"]


def test_sums_over_regions_are_brought_to_whole_images():
    summing = plain_detector(**{"inference.score": "sum"})
    whole = calibrate(summing, normals(3), fpr=0.3, how="images")
    regions = calibrate(summing, normals(3), fpr=0.3, how="regions", regions_per_image=4.0)
    assert regions.thresholds.image == pytest.approx(4 * whole.thresholds.image)
