"""Which pixels of a part's picture are the part, from registered images of good ones.

Masks are bool [h, w] in the template's frame, True on the part; grays are float32 [h, w] in [0, 1].
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from recon_ad.errors import UserError

BLUR = 2.0  # px, so that noise has no say in what is ground
BORDER = 0.9  # share of the picture's border that has to be ground
LEAST, MOST = 0.01, 0.98  # share of the picture that a part can be
MARGIN = 0.01  # of the picture's longer side, by which the part is taken larger than it looks


def part_of(
    pictures: Sequence[Float[np.ndarray, "h w"]], seen: Sequence[Bool[np.ndarray, "h w"]]
) -> Bool[np.ndarray, "h w"]:
    """The part on a ground of another brightness (Otsu 1979, on the mean of the pictures).

    Ground is what the picture's border is made of. Holes in the part are part of it, and so is a
    margin around it, as defects at its edge are.

    Args:
      pictures: aligned to each other.
      seen: what each of them shows; the rest is made up.

    Raises:
      UserError: the border is not of one brightness, or next to all of the picture is part or
        ground.
    """
    count = np.sum(seen, axis=0)
    shown = np.sum([np.where(s, p, 0) for p, s in zip(pictures, seen, strict=True)], axis=0)
    made_up = np.mean(pictures, axis=0)
    mean = np.where(count, shown / np.maximum(count, 1), made_up).astype(np.float32)
    mean = cv2.GaussianBlur(mean, (0, 0), BLUR)
    lowest, highest = float(mean.min()), float(mean.max())
    scaled = np.uint8(np.rint(255 * (mean - lowest) / max(highest - lowest, 1e-6)))
    level, _ = cv2.threshold(scaled, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    bright = scaled > level
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    on_bright = border.mean() > 0.5
    share = float(border.mean() if on_bright else 1 - border.mean())
    part = ndimage.binary_fill_holes(bright != on_bright)
    labels, _ = ndimage.label(part)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    # Specks of the ground are not the part.
    part = np.isin(labels, np.flatnonzero(sizes >= 0.05 * sizes.max()) if sizes.any() else [])
    if share < BORDER or not LEAST <= part.mean() <= MOST:
        raise UserError(
            "config.part.background is 'auto', but the part does not stand out from a ground of "
            f"one brightness ({share:.0%} of the picture's border is alike, {part.mean():.0%} of "
            "it would be part): give a mask, an image of the template's size that is white on the "
            "part."
        )
    reach = max(1, round(MARGIN * max(part.shape)))
    return grown(part, reach)


def grown(mask: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """The mask with all pixels that are so near to it, px."""
    return ndimage.distance_transform_edt(~mask) <= reach if mask.any() else mask
