"""Mean residual of patches, defective against normal (Schneider et al. 2022, Fig. 6).

The figure shows how well a model's residual, before any smoothing, separates places of an image
for which pixel-exact truth means little. The paper draws patches inside and around hand-drawn
boxes. Here they are the cells of a grid, and one defective pixel makes a cell defective. Maps are
float [h, w]; truths and valid masks are bool [h, w].
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

VALID = 0.5  # a patch counts if at least this share of its pixels does


class PatchMeans(NamedTuple):
    """Mean residuals of patches with and without a defective pixel."""

    normal: Float[np.ndarray, " n"]
    defective: Float[np.ndarray, " m"]


def patch_means(
    residual_map: Float[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
    *,
    side: int,
    valid: Bool[np.ndarray, "h w"] | None = None,
) -> PatchMeans:
    """Return the means over a grid of whole patches, laid from the top left corner.

    Args:
      residual_map: Residuals of one image.
      truth: True where defective. One such pixel makes its patch defective.
      side: Side of a patch in px. An image shorter than it along an axis has one patch there.
      valid: False where a pixel is left out. A patch with fewer than half of its pixels valid is
        left out too.
    """
    if valid is None:
        valid = np.ones(truth.shape, bool)
    count = _sums(valid, side)
    total = _sums(np.where(valid, residual_map, 0), side)
    defective = _sums(truth & valid, side) > 0
    kept = count >= VALID * min(side, truth.shape[0]) * min(side, truth.shape[1])
    means = total / np.maximum(count, 1)
    return PatchMeans(means[kept & ~defective], means[kept & defective])


def _sums(values: Shaped[np.ndarray, "h w"], side: int) -> Float[np.ndarray, "p q"]:
    height, width = (min(side, n) for n in values.shape)
    rows, columns = values.shape[0] // height, values.shape[1] // width
    whole = values[: rows * height, : columns * width]
    return whole.reshape(rows, height, columns, width).sum(axis=(1, 3), dtype=np.float64)


def joined(parts: Sequence[PatchMeans]) -> PatchMeans:
    """Join the patches of several images."""
    none = PatchMeans(np.zeros(0), np.zeros(0))
    return PatchMeans(*(np.concatenate(means) for means in zip(none, *parts, strict=True)))
