"""Normalised Gaussian smoothing against SciPy."""

import functools

import jax
import numpy as np
import pytest
from scipy import ndimage

from recon_ad.ops.platforms import for_other_runtimes
from recon_ad.ops.smoothing import smooth


@functools.partial(jax.jit, static_argnames="sigma")
def smoothed(values, valid, *, sigma):
    return smooth(values, valid, sigma=sigma)


@pytest.mark.parametrize(
    ("size", "sigma"),  # one has more rows than are smoothed at a time
    [((40, 50), 0.7), ((64, 64), 2.0), ((130, 30), 2.0), ((13, 90), 3.3)],
)
def test_matches_scipy_with_normalised_borders_and_keeps_constants(size, sigma):
    values, everywhere = np.random.default_rng(0).random(size, np.float32), np.ones(size, bool)

    def gaussian(x):
        return ndimage.gaussian_filter(x.astype(np.float64), sigma, mode="constant", truncate=4.0)

    # SciPy's radius is int(truncate * sigma + 0.5), ours the ceiling of 4 sigma. The window's tail
    # beyond 4 sigma weighs 6e-5.
    expected = gaussian(values) / gaussian(np.ones(size))
    np.testing.assert_allclose(smoothed(values, everywhere, sigma=sigma), expected, atol=2e-4)
    constant = smoothed(np.full(size, 0.3, np.float32), everywhere, sigma=sigma)
    np.testing.assert_allclose(constant, 0.3, rtol=1e-6)


def test_padding_does_not_change_the_inside():
    rng = np.random.default_rng(1)
    values = rng.random((30, 20), np.float32)
    padded, valid = rng.random((64, 64), np.float32) * np.float32(1e6), np.zeros((64, 64), bool)
    padded[:30, :20], valid[:30, :20] = values, True
    alone = smoothed(values, np.ones((30, 20), bool), sigma=2.0)
    within = np.asarray(smoothed(padded, valid, sigma=2.0))
    # The same sums in another order: float32 rounding.
    np.testing.assert_allclose(within[:30, :20], alone, rtol=1e-5)
    assert not within[~valid].any()


def test_sigma_zero_leaves_the_map():
    values = np.random.default_rng(2).random((9, 9), np.float32)
    np.testing.assert_array_equal(smoothed(values, np.ones((9, 9), bool), sigma=0.0), values)


def test_gradient_is_finite_with_invalid_pixels():
    valid = np.tile(np.arange(16) < 4, (16, 1))
    gradient = jax.jit(jax.grad(lambda x: smoothed(x, valid, sigma=1.0).sum()))
    assert np.isfinite(gradient(np.ones((16, 16), np.float32))).all()


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_shifted_sums_and_convolutions_agree(sigma):
    rng = np.random.default_rng(3)
    values, valid = rng.random((31, 45), np.float32), rng.random((31, 45)) < 0.7
    maps = [smoothed(values, valid, sigma=sigma)]
    with for_other_runtimes():
        maps.append(jax.jit(functools.partial(smooth, sigma=sigma))(values, valid))
    np.testing.assert_allclose(*maps, rtol=1e-5)  # the same sums in another order
