"""Gaussian smoothing of a map in which only some pixels count.

Maps are float32 [h, w]. Pixels that are not valid (padding, or outside the region of interest)
neither give nor receive weight: the filtered map is divided by the filtered mask (normalised
convolution, Knutsson and Westin 1993). So the result inside does not depend on what surrounds the
image, and a map may be padded to any size without changing it.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float


def gaussian_window(sigma: float) -> Float[np.ndarray, " n"]:
    """Weights that add up to 1, cut off at four standard deviations."""
    radius = math.ceil(4 * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def _filter(
    values: Float[Array, "n h w"], window: Float[np.ndarray, " k"]
) -> Float[Array, "n h w"]:
    x = values[..., None]
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        x = lax.conv_general_dilated(
            x,
            jnp.asarray(window.reshape(shape)),
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=lax.Precision.HIGHEST,
        )
    return x[..., 0]


def smooth(
    values: Float[Array, "h w"], valid: Bool[Array, "h w"], *, sigma: float
) -> Float[Array, "h w"]:
    """The map smoothed over its valid pixels; 0 where a pixel is not valid. Sigma 0 leaves it.

    Args:
      values: the map; what stands at invalid pixels is not looked at.
      valid: which pixels count.
      sigma: standard deviation in pixels.
    """
    weight = valid.astype(values.dtype)
    inside = jnp.where(valid, values, 0.0)
    if not sigma:
        return inside
    both = _filter(jnp.stack([inside, weight]), gaussian_window(sigma))
    # A valid pixel has itself as a neighbour, so its weight is not zero.
    return jnp.where(valid, both[0] / jnp.where(valid, both[1], 1.0), 0.0)
