"""Mean and variance of the pixels in each window, by matrix products.

This form is for runtimes that run one operation after the other and store each result. There, a few
matrix products are faster than sums of shifted images, which XLA fuses into one loop.

One pass runs along columns and one along rows (law of total variance). In each pass, a group of up
to four neighbouring windows shares one reference, a pixel in their middle. The reference is
subtracted from the group's pixels. The differences times a banded matrix of the window's weights
give the means; their squares times the same matrix give second moments about the reference.

All windows of a group contain their reference; its weight w is at least 0.1 if they are Gaussian.
By Cauchy and Schwarz, a variance is then at least w times its second moment, and hardly any digits
cancel. With one reference for all windows digits do cancel, and S is wrong by up to 1e-4 beside
edges.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

GROUP = 4  # windows per reference, which is at most two pixels from the middle of each

Planes = Float[Array, "... h w"]
Maps = Float[Array, "... h2 w2"]
Turned = Float[Array, "... w h2"]


def window_moments(z: Planes, *, weights: tuple[float, ...], border: str) -> tuple[Maps, Maps]:
    """Compute the weighted mean and variance of each window, without Bessel's correction.

    Args:
      z: Planes.
      weights: Weights along one side of the window. Their number is odd, they are symmetric and add
        up to 1.
      border: "reflect" or "valid", as in `ops.ssim`.
    """
    height, width = z.shape[-2:]
    mean, variance = _along_columns(z, None, _seen(height, border, weights), weights)
    mean, variance = _along_columns(mean, variance, _seen(width, border, weights), weights)
    if border == "valid":
        height, width = height - len(weights) + 1, width - len(weights) + 1
    return mean[..., :height, :width], variance[..., :height, :width]


def _seen(size: int, border: str, weights: tuple[float, ...]) -> Int[np.ndarray, "g k"]:
    """Return the indices of the pixels of a column that each group of windows covers.

    The last group may contain windows beyond the end, whose results are discarded.
    """
    pixels = np.arange(size)
    if border == "reflect":
        pixels = np.pad(pixels, len(weights) // 2, mode="symmetric")
    windows = len(pixels) - len(weights) + 1
    group = min(GROUP, len(weights))  # otherwise some windows would not contain their reference
    first = np.arange(0, windows, group).reshape(-1, 1)
    return pixels[np.minimum(first + np.arange(group + len(weights) - 1), len(pixels) - 1)]


def _along_columns(
    mean: Planes, variance: Planes | None, seen: Int[np.ndarray, "g k"], weights: tuple[float, ...]
) -> tuple[Turned, Turned]:
    """Compute mean and variance along columns, and exchange rows and columns.

    Args:
      mean: Mean of the pixels that each entry summarises, or the pixel itself.
      variance: Variance of the same pixels. None if each entry is a single pixel.
      seen: Indices from `_seen`.
      weights: Weights of the window.
    """
    groups, sees = seen.shape
    group = sees - len(weights) + 1
    banded = np.zeros((group, sees))
    for i, row in enumerate(banded):
        row[i : i + len(weights)] = weights
    matrix = jnp.asarray(banded, mean.dtype)
    near = jnp.take(mean, seen, axis=-2)
    middle = sees // 2
    reference = near[..., middle : middle + 1, :]
    difference = near - reference
    square = difference * difference
    if variance is not None:
        square = square + jnp.take(variance, seen, axis=-2)
    first, second = jnp.matmul(matrix, difference), jnp.matmul(matrix, square)

    def turned(x: Float[Array, "... g n w"]) -> Turned:
        return x.reshape(*mean.shape[:-2], groups * group, -1).swapaxes(-1, -2)

    return turned(reference + first), turned(second - first * first)
