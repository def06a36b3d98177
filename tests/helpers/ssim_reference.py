"""Pairs of images, and their SSIM maps from scikit-image and from the definition."""

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity


def pairs(shape, *, images=2):
    """Return smooth images and blurred, noisy ones, so that S covers all values from 0 to 1."""
    rng = np.random.default_rng(0)
    x = ndimage.gaussian_filter(rng.random((images, *shape)), (0, 1, 1, 0))
    x = (x - x.min()) / (x.max() - x.min())
    y = ndimage.gaussian_filter(x, (0, 1, 1, 0)) + 0.05 * rng.standard_normal(x.shape)
    return x.astype(np.float32), np.clip(y, 0, 1).astype(np.float32)


def scikit_image(x, y, **options):
    """Compute the maps of batches of images in [0, 1], mirrored at the border."""
    # Uses float64, because scikit-image's own error in float32 is 1e-4.
    x, y = (np.asarray(z).astype(np.float64) for z in (x, y))
    options = {"data_range": 1.0, "use_sample_covariance": False, **options}
    maps = [
        structural_similarity(*pair, channel_axis=-1, full=True, **options)[1]
        for pair in zip(x, y, strict=True)
    ]
    return np.stack(maps)


def definition(x, y, *, data_range=1.0, window=11, kind="gaussian", border="valid", naive=False):
    """Compute the maps in float64, with variances as means of squared differences.

    `naive` uses float32 and variances as differences of means, which suffer from cancellation.
    """
    dtype = np.float32 if naive else np.float64
    edge = window // 2 if border == "reflect" else 0
    around = ((0, 0), (edge, edge), (edge, edge), (0, 0))
    x, y = (np.pad(np.asarray(z).astype(dtype), around, mode="symmetric") for z in (x, y))
    w = np.exp(-0.5 * ((np.arange(window) - window // 2) / 1.5) ** 2)
    w = w if kind == "gaussian" else np.ones(window)
    w = (np.outer(w, w) / w.sum() ** 2).astype(dtype)
    a, b = (np.lib.stride_tricks.sliding_window_view(z, w.shape, (1, 2)) for z in (x, y))
    ma, mb = (np.einsum("...kl,kl", z, w) for z in (a, b))
    if not naive:
        a, b = a - ma[..., None, None], b - mb[..., None, None]
    va, vb, cov = (np.einsum("...kl,...kl,kl->...", p, q, w) for p, q in ((a, a), (b, b), (a, b)))
    if naive:
        va, vb, cov = va - ma**2, vb - mb**2, cov - ma * mb
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
