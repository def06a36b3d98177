"""Padding of maps of many sizes for the tail, and the pixels of them that are real."""

import numpy as np
from jaxtyping import Bool, Float

from recon_ad.errors import UserError
from recon_ad.ops import tiles

# Maps are padded to multiples of this before the tail, so that images of many sizes share few
# compiled programs; the normalised smoothing makes the padding invisible.
MAP_MULTIPLE = 64


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width to which the tail pads maps of that size; each is one program."""
    h, w = (-(-n // MAP_MULTIPLE) * MAP_MULTIPLE for n in size)
    return h, w


def padded_map(
    residual_map: Float[np.ndarray, "h w"], roi: Bool[np.ndarray, "p q"] | None
) -> tuple[Float[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Return a map as the tail takes it, and which of its pixels count.

    Raises:
      UserError: If the region of interest does not fit.
    """
    h, w = residual_map.shape
    padded, valid = tiles.pad_map(residual_map, multiple=MAP_MULTIPLE)
    if roi is not None:
        check_roi(roi, (h, w))
        valid[:h, :w] = roi
    return padded, valid


def check_roi(roi: Bool[np.ndarray, "p q"], shape: tuple[int, int]) -> None:
    """Raise UserError where a region of interest is empty, or has another shape than its image."""
    if roi.shape != shape or not roi.any():
        raise UserError(
            f"the region of interest has shape {list(roi.shape)} and {np.count_nonzero(roi)} "
            f"pixels that count, for an image of {shape[0]} × {shape[1]}: give bool "
            "[height, width] of the image's size."
        )
