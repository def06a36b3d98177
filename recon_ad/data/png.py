"""Decoding of PNG features that Pillow lacks: 16-bit colour, and the transparent colour.

A gray or RGB PNG may name a colour that stands for transparency (chunk tRNS) instead of an alpha
for each pixel. Pixels of exactly that colour are laid over black as others are.
"""

import itertools
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from jaxtyping import Integer, Shaped
from PIL import Image

from recon_ad.data import pieces
from recon_ad.data.arrays import over_black
from recon_ad.errors import UserError

MAX_SIDE = 1_000_000  # px of 16 bits in several channels, the limit of imagecodecs' libpng
_DEFLATED = 1040  # largest factor by which deflate shrinks, and a little more
GRAY, RGB, PALETTE, GRAY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # colour types
_SAMPLES = {RGB: 3, GRAY_ALPHA: 2, RGB_ALPHA: 4}
_MAGIC = b"\x89PNG\r\n\x1a\n"
_PACKED = (b"iCCP", b"iTXt", b"zTXt")  # chunks that Pillow inflates, to a megabyte each
MAX_PACKED = 1000
# Largest values that are scaled to 8 bits, by Pillow's raw mode; Pillow scales 1 bit itself.
_MOST = {"L;2": 3, "L;4": 15}


def least_bytes(image: Image.Image, name: str) -> int:
    """Return the least length in bytes of a complete file with that header."""
    with open(name, "rb") as file:
        depth, kind = struct.unpack(">BB", file.read(26)[24:])
    row = image.width * depth * _SAMPLES.get(kind, 1) // 8
    return image.height * row // _DEFLATED


def check_count(name: str) -> None:
    """Raise SyntaxError for a PNG of so many chunks, or compressed ones, that it takes long."""
    with open(name, "rb") as file:
        for _ in _chunks(file):
            pass


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the name and length of each chunk of a PNG but the last, with the file at its content.

    Raises:
      SyntaxError: As `check_count`, at the first chunk that is too much.
    """
    at, packed = len(_MAGIC), 0
    if file.read(at) != _MAGIC:
        return
    for count in itertools.count(1):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4], "big")
        at += length + 12
        pieces.check(count, at)
        packed += head[4:] in _PACKED
        if packed > MAX_PACKED:
            raise SyntaxError(f"it has more than {MAX_PACKED} chunks iCCP, iTXt and zTXt")
        yield head[4:], length
        file.seek(at)


def check_chunks(name: str) -> None:
    """Raise UserError for a PNG whose header, palette or transparency contradict each other.

    It is also checked as by `check_count`, up to its pixels.

    Pillow takes the last of two headers or palettes, makes a missing palette black, and passes over
    chunks without which a file cannot be decoded. libpng refuses these. Decoders repair or drop a
    transparency (chunk tRNS) that does not fit, each in its own way: `check_transparency` in
    deploy/cpp/src/png_reader.cpp refuses what is refused here. Chunks behind the pixels do not
    count.
    """
    depth, kind, entries, seen = 0, -1, 0, False
    with open(name, "rb") as file:
        for chunk, length in _chunks(file):
            if chunk == b"IDAT":
                break
            content = file.read(min(length, 3 * 256))
            wrong = _misplaced(chunk, length, kind, entries)
            if chunk == b"IHDR" and len(content) > 9:
                depth, kind = content[8:10]
            elif chunk == b"PLTE" and kind in (RGB, PALETTE):
                wrong = "chunk tRNS, its transparency: it precedes the palette" if seen else wrong
                entries = min(length // 3, 256 if kind == RGB else 1 << depth)
            elif chunk == b"tRNS":
                reason = _wrong(content, length, depth, kind, entries, twice=seen)
                wrong = f"chunk tRNS, its transparency: {reason}" if reason else wrong
                seen = True
            if wrong:
                raise UserError(f"{name}: cannot be decoded ({wrong}): save the image anew")
        else:
            return
    if kind == PALETTE and not entries:
        raise UserError(
            f"{name}: cannot be decoded (chunk PLTE, its palette: it is missing): save the image "
            "anew"
        )


def _misplaced(chunk: bytes, length: int, kind: int, entries: int) -> str:
    """Return what is wrong with a chunk that a decoder must not pass over, "" if nothing is."""
    if (chunk == b"IHDR") != (kind < 0):
        return "chunk IHDR, its header: it has to be the first chunk, and the only one of its name"
    if chunk == b"PLTE" and kind in (RGB, PALETTE):
        if entries:
            return "chunk PLTE, its palette: it occurs twice"
        if kind == PALETTE and (length % 3 or not 0 < length <= 3 * 256):
            return f"chunk PLTE, its palette: {length} bytes are not 1 to 256 colours"
    # A capital first letter means that the pixels depend on the chunk.
    if chunk.isalpha() and chunk[:1].isupper() and chunk not in (b"IHDR", b"PLTE"):
        return f"chunk {chunk.decode('ascii')}: it is unknown, and its pixels depend on it"
    return ""


def _wrong(content: bytes, length: int, depth: int, kind: int, entries: int, *, twice: bool) -> str:
    """Return what is wrong with a chunk tRNS, "" if nothing is."""
    if twice:
        return "it occurs twice"
    if kind in (GRAY_ALPHA, RGB_ALPHA):
        return "the image has an alpha channel"
    if kind == PALETTE:
        if not entries:
            return "it precedes the palette"
        return "" if 0 < length <= entries else f"{length} alphas for {entries} colours"
    size = {GRAY: 2, RGB: 6}.get(kind)
    if size is None:  # not a PNG, as its decoder will report
        return ""
    if length != size:
        return f"{length} bytes and not {size}"
    samples = (content[i] << 8 | content[i + 1] for i in range(0, len(content) - 1, 2))
    return f"a value of more than {depth} bits" if any(s >> depth for s in samples) else ""


def has_16_bit_colour(image: Image.Image) -> bool:
    """Return whether Pillow would silently drop the lower half of the bits."""
    if image.format != "PNG" or image.mode.startswith("I"):
        return False
    return any(str(tile[3]).endswith(";16B") for tile in image.tile)


def check_side(image: Image.Image, name: str) -> None:
    """Raise UserError for 16 bits in several channels on a side that libpng refuses."""
    if has_16_bit_colour(image) and max(image.size) > MAX_SIDE:
        raise UserError(
            f"{name}: has {image.width} × {image.height} pixels of 16 bits in several channels, "
            f"which are decoded up to {MAX_SIDE} px a side: cut it into smaller files"
        )


def deep_colour(name: str) -> Shaped[np.ndarray, "h w k"]:
    """Decode a PNG with 16 bits in several channels, transparency laid over black."""
    with open(name, "rb") as file:
        content = file.read()
    try:
        pixels = imagecodecs.png_decode(content)
    except (imagecodecs.PngError, ValueError) as error:  # its text may be another error's
        raise UserError(
            f"{name}: cannot be decoded (libpng refuses it): save it anew, or remove it"
        ) from error
    if pixels.shape[2] % 2 == 0:  # libpng also turns the transparent colour into an alpha
        return over_black(pixels[..., :-1], pixels[..., -1])
    return np.ascontiguousarray(pixels)


def clear_colour(image: Image.Image) -> Integer[np.ndarray, " c"] | None:
    """Return the transparent colour of a gray or RGB image, as its pixels are decoded.

    Args:
      image: Image that is open and not yet loaded: Pillow forgets the depth, and chunks behind the
        pixels do not count.
    """
    clear: Any = image.info.get("transparency")
    if image.format != "PNG" or image.mode in ("P", "PA") or clear is None:
        return None
    if image.mode.startswith("I"):
        return np.array([clear], np.uint16)
    most = next((_MOST[str(tile[3])] for tile in image.tile if str(tile[3]) in _MOST), 255)
    return (np.atleast_1d(clear) * (255 // most)).astype(np.uint8)


def clear_to_black(
    pixels: Shaped[np.ndarray, "h w c"], clear: Integer[np.ndarray, " c"] | None
) -> Shaped[np.ndarray, "h w c"]:
    """Make pixels of that colour black, in place; None changes nothing."""
    if clear is not None:
        pixels[(pixels == clear).all(axis=2)] = 0
    return pixels
