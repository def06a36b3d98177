"""Normalised Gaussian smoothing against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from recon_ad.ops.smoothing import gaussian_window, smooth


@pytest.mark.parametrize("sigma", [0.7, 2.0, 3.3])
@pytest.mark.parametrize("size", [(40, 50), (64, 64), (13, 90)])
def test_matches_scipy_with_normalised_borders(size, sigma):
    values = np.random.default_rng(0).random(size).astype(np.float32)

    def gaussian(x):
        return ndimage.gaussian_filter(x.astype(np.float64), sigma, mode="constant", truncate=4.0)

    # SciPy's radius is int(truncate * sigma + 0.5), ours the ceiling of 4 sigma: the window's tail
    # beyond 4 sigma weighs 6e-5.
    expected = gaussian(values) / gaussian(np.ones(size))
    result = smoothed(values, np.ones(size, bool), sigma=sigma)
    np.testing.assert_allclose(result, expected, atol=2e-4)


def test_padding_does_not_change_the_inside():
    rng = np.random.default_rng(1)
    values = rng.random((30, 20)).astype(np.float32)
    padded = rng.random((64, 64)).astype(np.float32) * 1e6
    padded[:30, :20] = values
    valid = np.zeros((64, 64), bool)
    valid[:30, :20] = True
    alone = smoothed(values, np.ones((30, 20), bool), sigma=2.0)
    within = smoothed(padded, valid, sigma=2.0)
    # The same sums in another order: float32 rounding.
    np.testing.assert_allclose(within[:30, :20], alone, rtol=1e-5)
    assert not np.asarray(within)[~valid].any()


def test_constant_maps_stay_constant_to_the_border():
    result = smoothed(np.full((20, 20), 0.3, np.float32), np.ones((20, 20), bool), sigma=3.0)
    np.testing.assert_allclose(result, 0.3, rtol=1e-6)


def test_sigma_zero_leaves_the_map():
    values = np.random.default_rng(2).random((9, 9)).astype(np.float32)
    np.testing.assert_array_equal(smoothed(values, np.ones((9, 9), bool), sigma=0.0), values)


def test_gradient_is_finite_with_invalid_pixels():
    valid = np.zeros((16, 16), bool)
    valid[:4] = True
    gradient = jax.grad(lambda x: smoothed(x, valid, sigma=1.0).sum())(jnp.ones((16, 16)))
    assert np.isfinite(gradient).all()


def smoothed(values, valid, *, sigma):
    return smooth(jnp.asarray(values), jnp.asarray(valid), sigma=sigma)


def test_window_adds_up_to_one():
    assert gaussian_window(2.0).sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_shifted_sums_and_convolutions_agree(monkeypatch, sigma):
    rng = np.random.default_rng(3)
    values, valid = rng.random((31, 45)).astype(np.float32), rng.random((31, 45)) < 0.7
    maps = []
    for lowered in (False, True):
        monkeypatch.setattr("recon_ad.ops.smoothing.lowered", lambda on=lowered: on)
        maps.append(smoothed(values, valid, sigma=sigma))
    np.testing.assert_allclose(*maps, rtol=1e-5)  # the same sums in another order
