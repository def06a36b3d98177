"""Positions of the report's sliders: each is written exactly and has an effect."""

import numpy as np
import pytest

from recon_ad.report import Scale, pixel_scale, sliders, wording


@pytest.mark.parametrize(
    "scores",
    [
        [0.1, 0.2, 0.2, 0.35, 7.0],
        [12_345.6, 12_345.7, 99_999.0, 3e9],
        [-5.0, -4.9999, 0.0, 1e-7],
        [1.0, 1.0 + 2**-52, 2.0],
        [float(np.float32(0.1)), float(np.float32(0.10000001))],
        [3.0],
        [float("nan"), float("inf"), 0.5, 0.6],
        list(np.random.default_rng(0).gamma(3, 1, 500)),
    ],
)
@pytest.mark.parametrize("where", ["least", "between", "above"])
def test_each_step_of_the_image_slider_passes_one_score(scores, where):
    ranked = sorted({s for s in scores if np.isfinite(s)})
    threshold = {"least": ranked[0] - 1, "between": ranked[0], "above": ranked[-1] + 1}[where]
    scale = sliders.image_scale(scores, threshold)
    assert scale.values[scale.start] == threshold
    above = [sum(s > t for s in ranked) for t in scale.values]
    assert above == list(range(len(ranked), -1, -1))
    texts = sliders.texts(scale)
    read = [float(text.replace(",", "")) for text in texts]
    for place, value in enumerate(scale.values):
        assert read[place] == value or place == scale.start
    assert len(set(texts)) == len(texts) and read == sorted(read)


@pytest.mark.parametrize("threshold", [None, float("inf"), float("nan")])
def test_without_a_threshold_there_is_no_slider(threshold):
    assert sliders.image_scale([1.0, 2.0], threshold) is None
    assert threshold is None or pixel_scale(threshold, lambda share: share) is None
    assert sliders.image_scale([float("nan")], 1.0) is None


def skewed(rng):
    return rng.gamma(2, 0.01, 100_000) + np.where(rng.random(100_000) < 0.003, 3.0, 0.0)


@pytest.mark.parametrize(
    ("make", "share", "least"),
    [
        (skewed, 0.999, 10),
        (lambda rng: 500 + rng.normal(0, 1, 10_000), 0.99, 10),  # like distances of features
        (lambda rng: -500 + rng.normal(0, 1, 10_000), 0.5, 0),
        (lambda rng: np.where(rng.random(10_000) < 0.01, 1.0, 0.0), 0.5, 0),
        (lambda rng: rng.random(10_000), 0.3, 10),  # which many pixels exceed
    ],
)
def test_the_pixel_slider_reaches_from_much_to_nothing_with_its_threshold_among_the_steps(
    make, share, least
):
    pixels = make(np.random.default_rng(0))
    threshold = float(np.quantile(pixels, share))
    scale = pixel_scale(threshold, lambda q: np.quantile(pixels, q))
    assert scale.values[scale.start] == threshold
    assert list(scale.values) == sorted(set(scale.values)) and len(scale.values) <= 127
    marked = [(pixels > t).mean() for t in scale.values]
    assert marked[-1] == 0 and marked[0] > 0.005
    assert all(type(v) is float for v in scale.values)
    assert scale.start >= least
    assert not least or marked[0] > 0.15  # from near the median on
    if make is skewed:
        # Neither end takes all the steps.
        assert scale.start < 35
        assert sum(0.1 < v < 2.9 for v in scale.values) > 8


def test_the_calibrated_text_has_the_digits_that_tell_it_from_its_neighbours():
    near = 0.25 + 2.0**-20
    assert sliders.texts(Scale((0.1, near, 3.0), 1)) == ["0.100", "0.250", "3.00"]
    assert sliders.texts(Scale((0.25, near, 3.0), 1)) == ["0.250", "0.250001", "3.00"]


@pytest.mark.parametrize(
    ("low", "high", "number"),
    [(0.24, 0.31, 0.3), (0.2501, 0.2504, 0.2502), (0.0, 1.0, 0.5), (-3.0, -1.0, -2.0)],
)
def test_the_number_between_two_is_short(low, high, number):
    assert wording.between(low, high) == number
