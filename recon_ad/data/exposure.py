"""Figures of an image that say how it was taken, for the line and for certificates."""

import numpy as np
from jaxtyping import Shaped
from scipy import ndimage

from recon_ad.data.arrays import to_unit


def brightness(image: Shaped[np.ndarray, "h w c"]) -> float:
    """Return the mean of the image, in [0, 1]."""
    return float(to_unit(image).mean(dtype=np.float64))


def sharpness(image: Shaped[np.ndarray, "h w c"]) -> float:
    """Return the variance of the Laplacian of the gray image in [0, 1]."""
    gray = to_unit(image).mean(axis=2)
    return float(ndimage.laplace(gray, mode="nearest").var(dtype=np.float64))
