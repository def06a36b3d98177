"""PNG files by hand, for what Pillow does not write."""

import struct
import zlib

import numpy as np

GRAY, RGB = 0, 2  # colour types


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, before: bytes = b""
) -> bytes:
    """A file of these rows, each behind the byte of its filter; chunks may stand before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = header + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def with_clear_colour(depth: int, colour: int, *, beyond: int = 0) -> tuple[bytes, np.ndarray]:
    """A PNG of noise in which one colour stands for transparency, and its pixels over black.

    Args:
      depth: bits of a sample.
      colour: GRAY or RGB.
      beyond: bits that stand before the samples of the colour, and do not count.
    """
    channels = 3 if colour == RGB else 1
    most = 2**depth - 1
    values = np.random.default_rng(depth).integers(0, most + 1, (13, 17, channels))
    clear = most - most // 3 * np.arange(channels)
    values[:, ::3] = clear
    values[:, 1::3] = clear ^ (np.arange(channels) == channels - 1)  # the next colour to it
    samples = values.reshape(13, -1, 1) >> np.arange(depth)[::-1] & 1
    packed = np.packbits(samples.reshape(13, -1).astype(np.uint8), axis=1)
    named = struct.pack(f">{channels}H", *(clear | beyond << depth))
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    white = 65535 if depth == 16 else 255
    expected = np.where((values == clear).all(axis=2, keepdims=True), 0, values * (white // most))
    content = png(17, 13, depth, colour, rows, before=chunk(b"tRNS", named))
    return content, expected.astype(np.uint16 if depth == 16 else np.uint8)
