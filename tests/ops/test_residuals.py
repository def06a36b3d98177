"""Residual maps against NumPy and scikit-image."""

import jax
import numpy as np
from helpers.ssim_reference import scikit_image
from scipy import ndimage

from configs import default
from recon_ad.methods import residual

GAUSSIAN, UNIFORM = {"gaussian_weights": True, "sigma": 1.5}, {"win_size": 11}
# The weights of the squared, the absolute and the structural residual, and S for scikit-image.
CASES = [
    ((0.0, 0.0, 1.0), "gaussian", GAUSSIAN),
    ((0.0, 0.0, 1.0), "uniform", UNIFORM),
    ((0.5, 2.0, 3.0), "uniform", UNIFORM),
    ((1.0, 0.0, 0.0), "uniform", UNIFORM),
    ((0.0, 2.0, 0.0), "uniform", UNIFORM),
    ((0.25, 0.0, 1.0), "gaussian", GAUSSIAN),
]


def test_the_weighted_residual_is_the_weighted_sum():
    def weighted(weights, kind):
        config = default.default_config()
        config.residual.update(dict(zip(("squared", "absolute", "ssim"), weights, strict=True)))
        config.ssim.update({"window": 11, "kind": kind})
        return residual.weighted(config)

    maps = [weighted(weights, kind) for weights, kind, _ in CASES]
    random = np.random.default_rng(0)
    x = ndimage.gaussian_filter(random.random((2, 30, 37, 3)), (0, 1.5, 1.5, 0))
    x = (x - x.min()) / np.ptp(x)
    noisy = np.clip(x + random.normal(0, 0.1, x.shape), 0, 1)
    images = [z.astype(np.float32) for z in (x, noisy)]
    found = jax.jit(lambda *pair: [one(*pair) for one in maps])(*images)
    x, y = (z.astype(np.float64) for z in images)
    for ((squared, absolute, ssim), _, theirs), ours in zip(CASES, found, strict=True):
        structural = ((1 - scikit_image(x, y, **theirs)) / 2).mean(axis=-1)
        assert structural.max() > structural.min() + 0.15  # of at most 1
        expected = squared * ((x - y) ** 2).mean(axis=-1) + absolute * np.abs(x - y).mean(axis=-1)
        expected += ssim * structural
        # Variances are float32 differences of means of squares; scikit-image also mirrors borders.
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6 * ssim)
