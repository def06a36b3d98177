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

from recon_ad.ops.conv import DIMENSIONS, lowered


def gaussian_window(sigma: float) -> Float[np.ndarray, " n"]:
    """Weights that add up to 1, cut off at four standard deviations."""
    radius = math.ceil(4 * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def _filter(values: Float[Array, "h w"], window: Float[np.ndarray, " k"]) -> Float[Array, "h w"]:
    """Rows, then columns; zero outside."""
    for axis in (0, 1):
        values = _shifted(values, window, axis) if lowered() else _convolved(values, window, axis)
    return values


def _convolved(
    values: Float[Array, "h w"], window: Float[np.ndarray, " k"], axis: int
) -> Float[Array, "h w"]:
    filtered = lax.conv_general_dilated(
        values[None, ..., None],
        jnp.asarray(window.reshape((-1, 1, 1, 1) if axis == 0 else (1, -1, 1, 1))),
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=DIMENSIONS,
        precision=lax.Precision.HIGHEST,
    )
    return filtered[0, ..., 0]


def _shifted(
    values: Float[Array, "h w"], window: Float[np.ndarray, " k"], axis: int
) -> Float[Array, "h w"]:
    """The same as a weighted sum of shifted maps, which XLA on a CPU makes one fast loop of."""
    radius, length = len(window) // 2, values.shape[axis]
    around = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
    padded = jnp.pad(values, around)
    return sum(
        weight * lax.slice_in_dim(padded, k, k + length, axis=axis)
        for k, weight in enumerate(window)
    )


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
    window = gaussian_window(sigma)
    # One after the other, not as one batch: a large map then takes a third less memory.
    total, share = _filter(inside, window), _filter(weight, window)
    # A valid pixel has itself as a neighbour, so its weight is not zero.
    return jnp.where(valid, total / jnp.where(valid, share, 1.0), 0.0)
