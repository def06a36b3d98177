"""Decodes of PNG what Pillow does not: 16 bits in several channels, and the transparent colour.

A gray or RGB PNG may name a colour that stands for transparency (chunk tRNS) instead of an alpha
for each pixel. Pixels of exactly that colour, all bits of it, are laid over black as others are.
"""

import struct
from typing import Any

import imagecodecs
import numpy as np
from jaxtyping import Integer, Shaped
from PIL import Image

from recon_ad.data.arrays import over_black
from recon_ad.errors import UserError

MAX_SIDE = 1_000_000  # px of 16 bits in several channels, a limit of libpng as imagecodecs has it
_DEFLATED = 1040  # times that deflate shrinks at most, and a little
_SAMPLES = {2: 3, 4: 2, 6: 4}  # by colour type
# The largest value of what is scaled to 8 bits, by what Pillow calls it, which scales 1 bit itself.
_MOST = {"L;2": 3, "L;4": 15}


def least_bytes(image: Image.Image, name: str) -> int:
    """Returns how long a whole file with that header is at the least."""
    with open(name, "rb") as file:
        depth, kind = struct.unpack(">BB", file.read(26)[24:])
    row = image.width * depth * _SAMPLES.get(kind, 1) // 8
    return image.height * row // _DEFLATED


def has_16_bit_colour(image: Image.Image) -> bool:
    """Returns whether Pillow would drop the lower half of the bits without a word."""
    if image.format != "PNG" or image.mode.startswith("I"):
        return False
    return any(str(tile[3]).endswith(";16B") for tile in image.tile)


def check_side(image: Image.Image, name: str) -> None:
    """Raises UserError for 16 bits in several channels on a side that libpng refuses."""
    if has_16_bit_colour(image) and max(image.size) > MAX_SIDE:
        raise UserError(
            f"{name}: has {image.width} × {image.height} pixels of 16 bits in several channels, "
            f"which are decoded up to {MAX_SIDE} px a side: cut it into smaller files"
        )


def deep_colour(name: str) -> Shaped[np.ndarray, "h w k"]:
    """Decodes a PNG with 16 bits in several channels, transparency laid over black."""
    with open(name, "rb") as file:
        content = file.read()
    try:
        pixels = imagecodecs.png_decode(content)
    except (imagecodecs.PngError, ValueError) as error:  # whose text is not always its own
        raise UserError(
            f"{name}: cannot be decoded (libpng refuses it): save it anew, or remove it"
        ) from error
    if pixels.shape[2] % 2 == 0:  # libpng makes an alpha of the one transparent colour, too
        return over_black(pixels[..., :-1], pixels[..., -1])
    return np.ascontiguousarray(pixels)


def clear_colour(image: Image.Image) -> Integer[np.ndarray, " c"] | None:
    """Returns the transparent colour of a gray or RGB image, as its pixels are decoded.

    Args:
      image: opened and not yet loaded: Pillow forgets the depth, and chunks behind the pixels do
        not count.
    """
    clear: Any = image.info.get("transparency")
    if image.format != "PNG" or image.mode in ("P", "PA") or clear is None:
        return None
    if image.mode.startswith("I"):
        return np.array([clear], np.uint16)
    most = next((_MOST[str(tile[3])] for tile in image.tile if str(tile[3]) in _MOST), 255)
    # Bits beyond the file's depth do not count.
    return ((np.atleast_1d(clear) & most) * (255 // most)).astype(np.uint8)


def clear_to_black(
    pixels: Shaped[np.ndarray, "h w c"], clear: Integer[np.ndarray, " c"] | None
) -> Shaped[np.ndarray, "h w c"]:
    """Makes pixels of that colour black, in place; None leaves all as they are."""
    if clear is not None:
        pixels[(pixels == clear).all(axis=2)] = 0
    return pixels
