"""SSIM maps by scikit-image, which ours are held against."""

import numpy as np
from skimage.metrics import structural_similarity


def scikit_image(x, y, **options):
    """Of batches of images in [0, 1]."""
    # In float64: in float32 it is itself 1e-4 away from the truth.
    x, y = (np.asarray(z).astype(np.float64) for z in (x, y))
    maps = [
        structural_similarity(
            *pair,
            data_range=1.0,
            channel_axis=-1,
            full=True,
            use_sample_covariance=False,
            **options,
        )[1]
        for pair in zip(x, y, strict=True)
    ]
    return np.stack(maps)
