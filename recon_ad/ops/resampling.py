"""Resampling along one axis by a matrix, which the host computes once for the traced code.

Pixel centres are at half integers, unless the centres of the corner pixels are to keep their places
(PyTorch's `align_corners`). Beyond its border, the image continues as in PyTorch and Pillow:
without antialiasing its border pixels are repeated; with antialiasing the weights that fall outside
are distributed over the rest.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Kernel(NamedTuple):
    """Piecewise polynomial weights.

    Attributes:
      support: Distance in px from which the weights are 0.
      sharpness: Parameter a of the cubic kernel (Keys 1981, eq. 15). None stands for the linear
        kernel.
    """

    support: int
    sharpness: float | None


# Libraries differ in a: PyTorch uses −0.75, but −0.5 with antialiasing, as Pillow does.
KERNELS: Mapping[tuple[str, bool], Kernel] = {
    ("linear", False): Kernel(1, None),
    ("linear", True): Kernel(1, None),
    ("cubic", False): Kernel(2, -0.75),
    ("cubic", True): Kernel(2, -0.5),
}


def resampling_matrix(
    old: int, new: int, *, kind: str, antialias: bool, corners: bool = False
) -> Float[np.ndarray, "new old"]:
    """Return the weights of the old samples in each new one, whose rows add up to 1.

    Args:
      old: Number of samples.
      new: Number of samples wanted over the same length.
      kind: "linear" or "cubic".
      antialias: Whether the kernel is widened when the number of samples decreases.
      corners: Whether the centres of the first and last new samples coincide with those of the old
        ones.
    """
    kernel = KERNELS[kind, antialias]
    scale = old / new
    width = max(scale, 1.0) if antialias else 1.0
    # No weight reaches further out.
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
    """Resample maps to another height and width by two products with a `resampling_matrix`."""
    options = {"kind": kind, "antialias": antialias, "corners": corners}
    rows, columns = (
        jnp.asarray(resampling_matrix(old, new, **options), maps.dtype)
        for old, new in zip(maps.shape[1:3], size, strict=True)
    )
    return jnp.einsum("bhwc,yh,xw->byxc", maps, rows, columns, precision="highest")
