"""Residual maps against NumPy and scikit-image."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from ssim_reference import scikit_image

from configs import default
from recon_ad.ops import residuals


def pairs():
    """Smooth images of three channels and noisy ones: S takes all values from about 0 to 1."""
    rng = np.random.default_rng(0)
    x = ndimage.gaussian_filter(rng.random((2, 30, 37, 3)), (0, 1.5, 1.5, 0))
    x = (x - x.min()) / (x.max() - x.min())
    y = np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1)
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def exact(images):
    return np.asarray(images).astype(np.float64)


def structural(x, y, **options):
    """(1 − S) / 2 by scikit-image."""
    return ((1 - scikit_image(x, y, **options)) / 2).mean(axis=-1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("gaussian", {"gaussian_weights": True, "sigma": 1.5}), ("uniform", {"win_size": 11})],
)
def test_the_structural_residual_is_half_of_one_minus_s(kind, options):
    x, y = pairs()
    expected = structural(x, y, **options)
    assert expected.max() > expected.min() + 0.15  # of at most 1
    found = np.asarray(residuals.structural(x, y, window=11, kind=kind))
    assert found.shape == x.shape[:3]
    # The variances are float32 differences of means of squares; scikit-image mirrors as we do.
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("squared", "absolute", "ssim"),
    [(0.5, 2.0, 3.0), (1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.25, 0.0, 1.0)],
)
def test_the_weighted_residual_is_the_weighted_sum(squared, absolute, ssim):
    config = default.default_config()
    config.residual.update({"squared": squared, "absolute": absolute, "ssim": ssim})
    config.ssim.update({"window": 7, "kind": "uniform"})
    x, y = pairs()
    error = exact(x) - exact(y)
    expected = squared * (error**2).mean(axis=-1) + absolute * np.abs(error).mean(axis=-1)
    expected += ssim * structural(x, y, win_size=7)
    found = residuals.weighted(config)(x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * ssim)
