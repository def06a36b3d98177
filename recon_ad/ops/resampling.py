"""Resampling along one axis as a matrix, computed once on the host; traced code multiplies by it.

Pixel centres are at half integers, unless the centres of the corners are to stay where they are
(PyTorch's `align_corners`). The image goes on beyond its border as PyTorch and Pillow have it:
without antialiasing its border pixels are repeated, with it the weights of what lies outside are
dealt out to the rest.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Kernel(NamedTuple):
    """Piecewise polynomial weights.

    Attributes:
      support: distance in px from which on they are 0.
      sharpness: a of the cubic kernel (Keys 1981, eq. 15); None: the linear one.
    """

    support: int
    sharpness: float | None


# Libraries differ in a: PyTorch takes −0.75, and −0.5 where it antialiases, as Pillow does.
KERNELS: Mapping[tuple[str, bool], Kernel] = {
    ("linear", False): Kernel(1, None),
    ("linear", True): Kernel(1, None),
    ("cubic", False): Kernel(2, -0.75),
    ("cubic", True): Kernel(2, -0.5),
}


def resampling_matrix(
    old: int, new: int, *, kind: str, antialias: bool, corners: bool = False
) -> Float[np.ndarray, "new old"]:
    """Rows are the weights of the old samples in each new one; they add up to 1.

    Args:
      old: number of samples.
      new: number of samples wanted, over the same length.
      kind: "linear" or "cubic".
      antialias: whether the kernel is widened where there are fewer samples than before.
      corners: whether the centres of the first and of the last samples fall on the old ones.
    """
    kernel = KERNELS[kind, antialias]
    scale = old / new
    width = max(scale, 1.0) if antialias else 1.0
    # Further out than any weight reaches.
    beyond = int(np.ceil(kernel.support * width)) + 1
    positions = np.arange(-beyond, old + beyond) + 0.5
    centres = (np.arange(new) + 0.5) * scale
    if corners:
        centres = np.linspace(0, old - 1, new) + 0.5
    weights = _weights((positions - centres[:, None]) / width, kernel)
    inside = weights[:, beyond:-beyond].copy()
    if not antialias:
        inside[:, 0] += weights[:, :beyond].sum(axis=1)
        inside[:, -1] += weights[:, -beyond:].sum(axis=1)
    return inside / inside.sum(axis=1, keepdims=True)


def _weights(distance: Float[np.ndarray, "n m"], kernel: Kernel) -> Float[np.ndarray, "n m"]:
    d = np.abs(distance)
    if kernel.sharpness is None:
        return np.maximum(1 - d, 0)
    a = kernel.sharpness
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def resample(
    maps: Float[Array, "b h w c"],
    size: tuple[int, int],
    *,
    kind: str,
    antialias: bool,
    corners: bool = False,
) -> Float[Array, "b h2 w2 c"]:
    """The maps at another height and width, by two matrix products; see `resampling_matrix`."""
    options = {"kind": kind, "antialias": antialias, "corners": corners}
    rows, columns = (
        jnp.asarray(resampling_matrix(old, new, **options), maps.dtype)
        for old, new in zip(maps.shape[1:3], size, strict=True)
    )
    return jnp.einsum("bhwc,yh,xw->byxc", maps, rows, columns, precision="highest")
