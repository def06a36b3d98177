"""Residual maps against NumPy and scikit-image."""

import jax
import numpy as np
import pytest
from helpers.ssim_reference import scikit_image
from scipy import ndimage

from configs import default
from recon_ad.methods import residual
from recon_ad.ops import residuals


@pytest.fixture(scope="module")
def images():
    """Smooth images of three channels and noisy ones: S takes all values from about 0 to 1."""
    rng = np.random.default_rng(0)
    x = ndimage.gaussian_filter(rng.random((2, 30, 37, 3)), (0, 1.5, 1.5, 0))
    x = (x - x.min()) / (x.max() - x.min())
    y = np.clip(x + rng.normal(0, 0.1, x.shape), 0, 1)
    return x.astype(np.float32), y.astype(np.float32)


def structural(x, y, **options):
    """(1 − S) / 2 by scikit-image."""
    return ((1 - scikit_image(x, y, **options)) / 2).mean(axis=-1)


def test_the_structural_residual_is_half_of_one_minus_s(images):
    theirs = {"gaussian": {"gaussian_weights": True, "sigma": 1.5}, "uniform": {"win_size": 11}}
    found = jax.jit(
        lambda *pair: {kind: residuals.structural(*pair, window=11, kind=kind) for kind in theirs}
    )(*images)
    for kind, options in theirs.items():
        expected = structural(*images, **options)
        assert expected.max() > expected.min() + 0.15  # of at most 1
        # The variances are float32 differences of means of squares; scikit-image mirrors as we do.
        np.testing.assert_allclose(found[kind], expected, atol=1e-6, err_msg=kind)


def test_the_weighted_residual_is_the_weighted_sum(images):
    cases = [(0.5, 2.0, 3.0), (1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.25, 0.0, 1.0)]

    def weighted(case):
        config = default.default_config()
        config.residual.update(dict(zip(("squared", "absolute", "ssim"), case, strict=True)))
        config.ssim.update({"window": 7, "kind": "uniform"})
        return residual.weighted(config)

    maps = [weighted(case) for case in cases]
    found = jax.jit(lambda *pair: [one(*pair) for one in maps])(*images)
    x, y = (z.astype(np.float64) for z in images)
    similarity = structural(x, y, win_size=7)
    for (squared, absolute, ssim), ours in zip(cases, found, strict=True):
        expected = squared * ((x - y) ** 2).mean(axis=-1) + absolute * np.abs(x - y).mean(axis=-1)
        expected += ssim * similarity
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6 * ssim)
