"""Mean and variance of the pixels in each window, by matrix products.

For runtimes that run one operation after the other and store each result. There these few products
are faster than sums of shifted images, which XLA makes one loop of.

One pass is along columns and one along rows (law of total variance). In each, a group of four
neighbouring windows is seen from one reference, a pixel in their middle. What the group sees less
its reference, times a banded matrix of the window's weights, are the four means; its squares times
the same matrix are second moments about the reference.

All windows of a group hold their reference, with a weight w of 0.1 at least if they are Gaussian.
So by Cauchy and Schwarz a variance is at least w times its second moment, and hardly any digits
cancel. About a reference that all windows share they do: S is up to 1e-4 wrong beside edges.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

GROUP = 4  # windows that share a reference, at most two pixels from the middle of each

Planes = Float[Array, "... h w"]
Maps = Float[Array, "... h2 w2"]
Turned = Float[Array, "... w h2"]


def window_moments(z: Planes, *, weights: tuple[float, ...], border: str) -> tuple[Maps, Maps]:
    """Mean and variance, divided by the sum of weights.

    Args:
      z: planes.
      weights: of one side of the window, an odd number of them, symmetric, with the sum 1.
      border: "reflect" or "valid", as in `ops.ssim`.
    """
    height, width = z.shape[-2:]
    mean, variance = _along_columns(z, None, _seen(height, border, weights), weights)
    mean, variance = _along_columns(mean, variance, _seen(width, border, weights), weights)
    if border == "valid":
        height, width = height - len(weights) + 1, width - len(weights) + 1
    return mean[..., :height, :width], variance[..., :height, :width]


def _seen(size: int, border: str, weights: tuple[float, ...]) -> Int[np.ndarray, "g k"]:
    """Which pixels of a column each group of windows sees.

    The last group may have windows beyond the end, whose results are of no use.
    """
    pixels = np.arange(size)
    if border == "reflect":
        pixels = np.pad(pixels, len(weights) // 2, mode="symmetric")
    windows = len(pixels) - len(weights) + 1
    group = min(GROUP, len(weights))  # or some would not hold their reference
    first = np.arange(0, windows, group).reshape(-1, 1)
    return pixels[np.minimum(first + np.arange(group + len(weights) - 1), len(pixels) - 1)]


def _along_columns(
    mean: Planes, variance: Planes | None, seen: Int[np.ndarray, "g k"], weights: tuple[float, ...]
) -> tuple[Turned, Turned]:
    """Mean and variance along columns, rows and columns exchanged.

    Args:
      mean: of what each pixel stands for.
      variance: of the same; None where it is a pixel.
      seen: of `_seen`.
      weights: of the window.
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
