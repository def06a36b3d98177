"""Image moments against OpenCV, their invariances, and the features from a map."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_ad.ops import moments
from recon_ad.ops.resampling import resampling_matrix


def shape():
    """Draw a bent shape of uneven brightness, without symmetry."""
    drawn = np.zeros((200, 300), np.float32)
    cv2.ellipse(drawn, (120, 90), (40, 15), 30, 0, 360, 2.0, -1)
    cv2.circle(drawn, (150, 60), 12, 5.0, -1)
    return cv2.GaussianBlur(drawn, (0, 0), 2)


def hu(weights):
    return np.asarray(jax.jit(moments.hu_moments)(weights))


def describe(values, valid=None, unit=1.0):
    valid = np.ones(values.shape, bool) if valid is None else valid
    return np.asarray(jax.jit(moments.describe)(values, valid, np.float32(unit)))


@pytest.mark.parametrize("seed", range(3))
def test_hus_moments_are_opencvs(seed):
    random = np.random.default_rng(seed)
    turned = cv2.getRotationMatrix2D((150, 100), random.uniform(0, 360), random.uniform(0.5, 1))
    image = cv2.warpAffine(shape(), turned, (300, 200)) * random.uniform(0.5, 2)
    for moved in (image, image[:, ::-1], np.roll(image, (40, 60), (0, 1))):
        expected = cv2.HuMoments(cv2.moments(moved.astype(np.float64))).ravel()
        # float32 against float64; the higher ones are differences of nearly equal numbers.
        np.testing.assert_allclose(hu(moved), expected, rtol=2e-4)


def test_logarithms_have_the_sign_of_the_moment_and_no_jump_at_zero():
    scaled = jax.jit(moments.log_scaled)
    values = np.array([0.1, 1e-3, 1e-5, -1e-5, -1e-6, -1e-7, 1e-9], np.float32)
    usual = -np.sign(values) * np.log10(np.abs(values))
    floors = 4.0 * np.array(moments.DEGREES)
    # The usual logarithms apart from their sign and a constant.
    np.testing.assert_allclose(scaled(values), np.sign(values) * floors - usual, atol=1e-5)
    tiny = np.array([moments.FLOOR**d / 2 for d in moments.DEGREES], np.float32)
    np.testing.assert_allclose([scaled(tiny), scaled(-tiny)], 0, atol=1e-5)


def test_a_map_is_described_by_what_counts_whatever_surrounds_it():
    image = shape()
    plain = describe(image, unit=0.7)
    assert plain.shape == (len(moments.DESCRIPTION),)
    padded, valid = np.full((320, 384), 9, np.float32), np.zeros((320, 384), bool)
    padded[:200, :300], valid[:200, :300] = image, True
    np.testing.assert_allclose(describe(padded, valid, unit=0.7), plain, atol=1e-3)
    np.testing.assert_allclose(describe(3 * image, unit=2.1), plain, atol=1e-3)


def test_area_and_intensity_are_those_of_numpy():
    image = shape() - 0.1  # partly negative
    named = dict(zip(moments.DESCRIPTION, describe(image, unit=0.5), strict=True))
    v = np.maximum(image.astype(np.float64), 0) / 0.5
    above = v > 1
    expected = {
        "log of the greatest value": v.max(),
        "log of the mean": v.mean(),
        "log of the standard deviation": v.std(),
        "log of the area above the threshold": above.sum(),
        "log of the sum of the excess": (v - 1)[above].sum(),
        "log of the mean excess over that area": (v - 1)[above].mean(),
        "log of the standard deviation of the excess there": (v - 1)[above].std(),
    }
    for name, value in expected.items():
        assert named[name] == pytest.approx(np.log1p(value), rel=1e-5), name


def test_specks_anywhere_have_finite_numbers_and_moments_go_to_zero_with_the_map():
    for level in (0.0, 0.5, 1.0000001, 1.0001, 1.5, 1e4):
        values = np.zeros((4, 40_000), np.float32)
        values[0, 0] = values[-1, -1] = values[-1, 5] = level
        assert np.isfinite(describe(values)).all(), level
    assert np.abs(hu(1e-14 * shape())).max() < 1e-6


def test_a_picture_of_a_map_is_its_resampling_whatever_surrounds_it():
    values = np.random.default_rng(0).random((100, 170), np.float32) * 3
    rows, columns = (resampling_matrix(n, 32, kind="linear", antialias=True) for n in values.shape)
    padded, valid = np.full((128, 192), 7, np.float32), np.zeros((128, 192), bool)
    padded[8:108, 5:175], valid[8:108, 5:175] = values, True
    made, larger = jax.jit(
        lambda *given: [moments.picture(*given, jnp.float32(1), side=n) for n in (32, 256)]
    )(padded, valid)
    np.testing.assert_allclose(made, rows @ (values / (1 + values)) @ columns.T, atol=1e-5)
    assert float(larger.max()) < 0.75 and np.isfinite(larger).all()
