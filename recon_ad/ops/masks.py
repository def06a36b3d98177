"""Binary masks of a map, bool [h, w], without JAX: removing small regions and counting regions."""

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

EIGHT_CONNECTED = np.ones((3, 3), bool)


def clean_mask(
    mask: Bool[np.ndarray, "h w"], *, opening: int, min_area: int
) -> Bool[np.ndarray, "h w"]:
    """Open a mask, then remove its small regions.

    Args:
      mask: Pixels above the threshold.
      opening: Radius in px of the disk that has to fit into every region that is kept. 0 skips the
        opening.
      min_area: Smallest area in px. 8-connected regions below it are dropped.
    """
    if opening and mask.any():
        # A defect at the border is continued beyond it; opening would otherwise round its corners.
        around = np.pad(mask, opening, mode="edge")
        y, x = np.ogrid[-opening : opening + 1, -opening : opening + 1]
        opened = ndimage.binary_opening(around, structure=y**2 + x**2 <= opening**2)
        mask = opened[opening:-opening, opening:-opening]
    if min_area <= 1 or not mask.any():
        return mask
    labels, _ = ndimage.label(mask, structure=EIGHT_CONNECTED)
    large = np.bincount(labels.ravel()) >= min_area
    large[0] = False
    return large[labels]


def count_regions(mask: Bool[np.ndarray, "h w"]) -> int:
    """Count the 8-connected regions of a mask."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return 0
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return int(ndimage.label(inner, structure=EIGHT_CONNECTED)[1])
