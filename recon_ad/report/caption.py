"""Captions above a picture, in a separate strip that covers no part of the image.

The letters are Pillow's built-in bitmap font, enlarged by whole numbers. So no font file is needed,
and `deploy/cpp/src/caption.cpp` draws the same pixels.
"""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

HEIGHT, WIDTH = 11, 6  # px of a letter, before it is enlarged
MARGIN = 3  # px around the words, before enlargement too
PAPER = (20, 24, 48)  # not grey, since the image may be


def with_caption(
    pixels: UInt8[np.ndarray, "h w 3"], words: Sequence[str], *, colour: tuple[int, int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture below a dark strip with the words, side by side where they fit.

    Letters grow with the picture. A picture narrower than a word gets a margin on its right.
    """
    height, width, _ = pixels.shape
    # Letters scale as lines do (`pictures.line_width`), since all pictures are shown at about the
    # same size.
    scale = max(1, round(max(height, width) / 400))
    lines = _lines(words, (width - 2 * MARGIN * scale) // (WIDTH * scale))
    text = np.vstack([_letters(line, max(map(len, lines))) for line in lines])
    text = np.pad(text, MARGIN).repeat(scale, axis=0).repeat(scale, axis=1)
    strip = text.shape[0]
    made = np.empty((strip + height, max(width, text.shape[1]), 3), np.uint8)
    made[:] = PAPER
    made[:strip, : text.shape[1]][text] = colour
    made[strip:, :width] = pixels
    return made


def _lines(words: Sequence[str], columns: int) -> list[str]:
    """Break the words into lines of `columns` letters; a longer word gets a separate line."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= columns:
            lines[-1] += f"  {word}"
        else:
            lines.append(word)
    return lines


def _letters(line: str, columns: int) -> Bool[np.ndarray, "p q"]:
    return np.hstack([_letter(one) for one in line.ljust(columns)])


@functools.cache
def _letter(one: str) -> Bool[np.ndarray, "p q"]:
    """Draw a single letter; drawn together, Pillow overlaps some letters by a pixel."""
    picture = Image.new("1", (WIDTH, HEIGHT))
    font = ImageFont.load_default_imagefont()
    ImageDraw.Draw(picture).text((0, 0), one, fill=1, font=font)
    return np.asarray(picture)
