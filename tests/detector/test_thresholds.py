"""Conformal thresholds, and thresholds of a detector from held-out normals."""

import functools

import numpy as np
import pytest
from helpers.detectors import plain_detector

from recon_ad.data import Record
from recon_ad.detector.thresholds import calibrate, conformal_threshold
from recon_ad.errors import UserError


@pytest.mark.parametrize(
    ("n", "fpr", "regions", "rank", "supported"),
    [(99, 0.01, 1, 99, 0.01), (199, 0.01, 1, 198, 0.01), (100, 0.01, 1, 100, 0.01),
     (9, 0.1, 1, 9, 0.1), (98, 0.01, 1, 98, 1 / 99), (5, 0.01, 1, 5, 1 / 6), (1, 0.01, 1, 1, 0.5),
     (20, 0.25, 1, 16, 0.25),
     # Regions are asked for a rate that makes up an image's; of 4 others the largest is
     # exceeded by one of a new image's 4 in half of all cases.
     (399, 0.04, 4, 396, 0.04), (4, 0.04, 4, 4, 0.5)],
)  # fmt: skip
def test_takes_the_score_of_the_conformal_rank(n, fpr, regions, rank, supported):
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    found = conformal_threshold(scores, fpr=fpr, regions_per_image=float(regions))
    assert found == (rank, pytest.approx(supported))


def test_keeps_the_false_positive_rate_on_average():
    rng, rates = np.random.default_rng(0), []
    for _ in range(400):
        threshold, _ = conformal_threshold(rng.normal(size=60), fpr=0.05)
        rates.append(np.mean(rng.normal(size=500) > threshold))
    # The mean of 400 rates, each spread by about 0.03.
    assert 0.05 - 0.012 < np.mean(rates) < 0.05 + 0.004


def normals(n):
    images = np.random.default_rng(0).integers(0, 256, (n, 40, 40, 1), np.uint8)
    return [Record(str(i), functools.partial(np.copy, image)) for i, image in enumerate(images)]


def test_thresholds_agree_with_quantiles_of_all_scores_and_pixels():
    detector, records = plain_detector(), normals(7)
    maps = np.stack([detector.predict(record.load()).anomaly_map for record in records])
    scores = np.sort(maps.max(axis=(1, 2)))
    exact = np.quantile(maps, 0.999, method="inverted_cdf")
    # ⌈8 · 0.8⌉ = 7th; the largest where so few images do not support the rate.
    for fpr, rank, supported in ((0.2, 6, 0.2), (0.3, 5, 0.3), (0.01, 6, 1 / 8)):
        calibrated = calibrate(detector, records, fpr=fpr, how="seven")
        assert calibrated.thresholds.image == scores[rank]
        # The upper end of a histogram bin: never below, at most 2^-13 above.
        assert exact <= calibrated.thresholds.pixel <= exact * (1 + 2**-12)
        record = calibrated.record["calibration"]
        expected = {"images": 7, "pixels": 7 * 40 * 40, "heldout": "seven"}
        assert record == record | expected | {"fpr_supported": pytest.approx(supported)}


@pytest.mark.parametrize("fpr", [0.0, 1.0, -1.0])
def test_impossible_rates_are_refused(fpr):
    with pytest.raises(UserError, match="between 0 and 1"):
        calibrate(plain_detector(), normals(2), fpr=fpr, how="")


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


def test_copies_of_an_image_count_once(caplog):
    once = calibrate(plain_detector(), normals(3), fpr=0.3, how="")
    copied = calibrate(plain_detector(), normals(3) * 4, fpr=0.3, how="")
    assert copied.thresholds == once.thresholds
    assert copied.record["calibration"]["fpr_supported"] == 0.3
    assert "9 of the 12 images are copies" in caplog.text
