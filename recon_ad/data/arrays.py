"""Images as arrays: their type, scale and size.

An image is [h, w, c] with any number of channels: uint8 (0 to 255), uint16 (0 to 65535) or float32
in [0, 1]. The three mean the same. Integers stay integers until something is computed from them,
since they take a quarter or half of the memory.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from recon_ad.errors import UserError

# The values in the files that mean 0 (black) and 1 (white).
InputRange = tuple[float | int, float | int]


def as_image(
    image: Any, *, name: str, input_range: InputRange | None = None
) -> Shaped[np.ndarray, "h w c"]:
    """Return a [h, w] or [h, w, c] array as an image.

    Args:
      image: Array of uint8, uint16 or floating point; with an `input_range` also of wider or signed
        integers.
      name: Name of the image in messages.
      input_range: Values that become 0 and 1, such as (0, 4095) for 12 bits kept in 16. None uses
        the type's: 0 to 255, 0 to 65535, or 0 to 1 for floats.

    Returns:
      uint8 unchanged, uint16 for other integers, rounded to 1/65535, or float32 for floats.

    Raises:
      UserError: If the shape or type is another one, or values are not finite or outside the range.
    """
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise UserError(
            f"{name} has shape {list(np.shape(image))}: give [height, width] or [height, width, "
            "channels]."
        )
    whole = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(array.dtype)
    if whole is not None and input_range in (None, (0, whole)):
        return array
    integer = np.issubdtype(array.dtype, np.integer)
    if not integer and not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{name} has type {array.dtype}: give uint8, uint16, or float in [0, 1].")
    if integer and input_range is None:
        raise UserError(
            f"{name} has type {array.dtype}, which has no defined black and white: give uint8 or "
            "uint16, or set config.data.input_range to the values that mean them."
        )
    if array.dtype == np.float16:  # too coarse and too short to compute in
        array = array.astype(np.float32)
    black, white = input_range or (0.0, 1.0)
    low, high = array.min(), array.max()
    if not (low >= black and high <= white):  # false for NaN too
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = np.count_nonzero(~np.isfinite(array))
            raise UserError(
                f"{name} holds {bad} values that are NaN or infinite: mend or remove the image."
            )
        raise UserError(
            f"{name} has values from {low} to {high}, outside the range from {black:g} to "
            f"{white:g}: scale it, or set config.data.input_range to what black and white are."
        )
    if integer:
        # float32 holds every difference of 16-bit numbers, and no more.
        wide = np.float32 if array.dtype.itemsize <= 2 else np.float64
        steps = (array.astype(wide) - wide(black)) * wide(65535 / (white - black))
        return np.rint(steps).astype(np.uint16)
    if (black, white) == (0, 1):
        return array.astype(np.float32, copy=False)
    return np.clip((array - black) / (white - black), 0, 1).astype(np.float32)  # rounding


def given_range(pair: Sequence[float]) -> InputRange | None:
    """Return `config.data.input_range`, or None for (0, 0)."""
    black, white = pair
    return (black, white) if (black, white) != (0, 0) else None


def to_unit(image: Shaped[np.ndarray, "*b h w c"]) -> Float[np.ndarray, "*b h w c"]:
    """Return integers as float32 in [0, 1], and floats as float32."""
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)
    return image.astype(np.float32, copy=False)


def over_black(
    colour: Shaped[np.ndarray, "h w c"],
    alpha: Shaped[np.ndarray, "h w"],
    *,
    opaque: int | None = None,
) -> Shaped[np.ndarray, "h w c"]:
    """Lay a picture with transparency over black.

    Args:
      colour: Colours of the picture.
      alpha: Opacity of its pixels, 0 or more.
      opaque: Alpha that leaves colours unchanged. None uses the largest value of its type, 1 for
        floats.
    """
    if not np.issubdtype(alpha.dtype, np.integer):
        return colour * alpha[..., None]
    opaque = opaque or np.iinfo(alpha.dtype).max
    if alpha.min() == opaque:
        return colour
    share = alpha[..., None].astype(np.float32) / np.float32(opaque)
    return np.rint(colour * share).astype(colour.dtype)


def resize(
    image: Shaped[np.ndarray, "h w c"], size: tuple[int, int] | None
) -> Shaped[np.ndarray, "H W c"]:
    """Resize bilinearly with antialiasing to float32 in [0, 1]; None changes nothing."""
    if size is None or image.shape[:2] == size:
        return image
    unit = to_unit(image)
    planes = [
        np.asarray(
            Image.fromarray(unit[..., i]).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        )
        for i in range(unit.shape[2])
    ]
    return np.stack(planes, axis=-1)
