"""Gaussian smoothing of a map in which only some pixels count.

Maps are float32 [h, w]. Invalid pixels (padding, or outside the region of interest) neither give
nor receive weight: the filtered map is divided by the filtered mask (normalised convolution,
Knutsson and Westin 1993). The result therefore does not depend on the image's surroundings, and
padding a map to any size does not change it.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from recon_ad.ops.conv import DIMENSIONS
from recon_ad.ops.platforms import by_platform

ROWS = 64  # number of rows that a CPU smooths at a time


def gaussian_window(sigma: float) -> Float[np.ndarray, " n"]:
    """Return Gaussian weights that add up to 1, cut off at four standard deviations."""
    radius = math.ceil(4 * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def smooth(
    values: Float[Array, "h w"], valid: Bool[Array, "h w"], *, sigma: float
) -> Float[Array, "h w"]:
    """Smooth a map over its valid pixels and set the others to 0.

    Args:
      values: Map. Its values at invalid pixels are ignored.
      valid: Mask of the pixels that count.
      sigma: Standard deviation in pixels. 0 leaves the valid pixels unchanged.
    """
    if not sigma:
        return jnp.where(valid, values, 0.0)
    window = gaussian_window(sigma)
    return by_platform(
        values,
        valid,
        cpu=functools.partial(_by_shifts, window=window),
        accelerator=functools.partial(_by_convolution, window=window),
    )


def _by_convolution(
    values: Float[Array, "h w"], valid: Bool[Array, "h w"], window: Float[np.ndarray, " k"]
) -> Float[Array, "h w"]:
    x = jnp.stack([jnp.where(valid, values, 0.0), valid.astype(values.dtype)])[..., None]
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        x = lax.conv_general_dilated(
            x,
            jnp.asarray(window.reshape(shape)),
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=DIMENSIONS,
            precision=lax.Precision.HIGHEST,
        )
    return _ratio(x[0, ..., 0], x[1, ..., 0], valid)


def _by_shifts(
    values: Float[Array, "h w"], valid: Bool[Array, "h w"], window: Float[np.ndarray, " k"]
) -> Float[Array, "h w"]:
    """Smooth by weighted sums of shifted maps, which XLA compiles to fast loops on a CPU.

    A few rows are processed at a time, so that a large map needs little memory besides itself.
    """
    radius, (height, width) = len(window) // 2, values.shape
    blocks = -(-height // ROWS)
    around = ((radius, radius + blocks * ROWS - height), (radius, radius))
    padded, counted = jnp.pad(values, around), jnp.pad(valid, around)

    def filtered(x: Float[Array, "H W"]) -> Float[Array, "r w"]:
        rows = sum(weight * x[k : k + ROWS] for k, weight in enumerate(window))
        return sum(weight * rows[:, k : k + width] for k, weight in enumerate(window))

    def block(start: Int[Array, ""]) -> Float[Array, "r w"]:
        size = (ROWS + 2 * radius, width + 2 * radius)
        x = lax.dynamic_slice(padded, (start, 0), size)
        inside = lax.dynamic_slice(counted, (start, 0), size)
        total, share = filtered(jnp.where(inside, x, 0.0)), filtered(inside.astype(x.dtype))
        return _ratio(total, share, inside[radius : radius + ROWS, radius : radius + width])

    smoothed = lax.map(block, jnp.arange(blocks) * ROWS)
    return smoothed.reshape(blocks * ROWS, width)[:height]


def _ratio(
    total: Float[Array, "h w"], share: Float[Array, "h w"], valid: Bool[Array, "h w"]
) -> Float[Array, "h w"]:
    # A valid pixel has itself as a neighbour, so its share is not zero.
    return jnp.where(valid, total / jnp.where(valid, share, 1.0), 0.0)
