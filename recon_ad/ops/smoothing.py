"""Gaussian smoothing of a map in which only some pixels count.

Maps are float32 [h, w]. Pixels that are not valid (padding, or outside the region of interest)
neither give nor receive weight: the filtered map is divided by the filtered mask (normalised
convolution, Knutsson and Westin 1993). So the result inside does not depend on what surrounds the
image, and a map may be padded to any size without changing it.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from recon_ad.ops.conv import DIMENSIONS
from recon_ad.ops.platforms import by_platform

ROWS = 64  # smoothed at a time, on a CPU


def gaussian_window(sigma: float) -> Float[np.ndarray, " n"]:
    """Weights that add up to 1, cut off at four standard deviations."""
    radius = math.ceil(4 * sigma)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return (weights / weights.sum()).astype(np.float32)


def smooth(
    values: Float[Array, "h w"], valid: Bool[Array, "h w"], *, sigma: float
) -> Float[Array, "h w"]:
    """The map smoothed over its valid pixels; 0 where a pixel is not valid. Sigma 0 leaves it.

    Args:
      values: the map; what stands at invalid pixels is not looked at.
      valid: which pixels count.
      sigma: standard deviation in pixels.
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
    """The same as weighted sums of shifted maps, which XLA on a CPU makes fast loops of.

    Some rows at a time, so that a large map needs no more memory than itself.
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
