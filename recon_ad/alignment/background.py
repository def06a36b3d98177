"""The separation of a part from its background, from registered images of good parts.

Masks are bool [h, w] in the template's frame, True on the part; gray images are float32 [h, w] in
[0, 1].
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from recon_ad.errors import UserError

BLUR = 2.0  # px, so that noise does not affect the background
BORDER = 0.9  # share of the image's border that has to be background
LEAST, MOST = 0.01, 0.98  # share of the image that a part can cover
MARGIN = 0.01  # margin that is added to the part, as a share of the image's longer side


def part_of(
    pictures: Sequence[Float[np.ndarray, "h w"]], seen: Sequence[Bool[np.ndarray, "h w"]]
) -> Bool[np.ndarray, "h w"]:
    """Separate the part from a background of another brightness (Otsu 1979, on the images' mean).

    The background is the class that the image's border belongs to. Holes in the part count as part,
    and so does a margin around it, because defects at its edge extend beyond it.

    Args:
      pictures: Images aligned to each other.
      seen: Mask of the pixels that each image shows; the others are filled in.

    Raises:
      UserError: If the border is not of one brightness, or almost all of the image is part or
        background.
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
    # Specks of the background are not part.
    part = np.isin(labels, np.flatnonzero(sizes >= 0.05 * sizes.max()) if sizes.any() else [])
    if share < BORDER or not LEAST <= part.mean() <= MOST:
        raise UserError(
            "config.part.background is 'auto', but the part does not stand out from a background "
            f"of one brightness ({share:.0%} of the image's border is alike, {part.mean():.0%} of "
            "the image would be part): give a mask, an image of the template's size that is white "
            "on the part."
        )
    reach = max(1, round(MARGIN * max(part.shape)))
    return grown(part, reach)


def grown(mask: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Return the mask grown by all pixels within `reach` px."""
    return ndimage.distance_transform_edt(~mask) <= reach if mask.any() else mask
