"""Hand-made PNG files of kinds that Pillow does not write."""

import struct
import zlib

import numpy as np

GRAY, RGB = 0, 2  # colour types


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, before: bytes = b""
) -> bytes:
    """Return a file with these rows, each after its filter byte, and optional chunks before."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = header + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def with_clear_colour(depth: int, colour: int, *, beyond: int = 0) -> tuple[bytes, np.ndarray]:
    """Return a PNG of noise with one transparent colour, and its pixels over black.

    Args:
      depth: Bits per sample.
      colour: GRAY or RGB.
      beyond: Additional high bits in the samples of the transparent colour, which do not count.
    """
    channels = 3 if colour == RGB else 1
    most = 2**depth - 1
    values = np.random.default_rng(depth).integers(0, most + 1, (13, 17, channels))
    clear = most - most // 3 * np.arange(channels)
    values[:, ::3] = clear
    values[:, 1::3] = clear ^ (np.arange(channels) == channels - 1)  # the closest other colour
    samples = values.reshape(13, -1, 1) >> np.arange(depth)[::-1] & 1
    packed = np.packbits(samples.reshape(13, -1).astype(np.uint8), axis=1)
    named = struct.pack(f">{channels}H", *(clear | beyond << depth))
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    white = 65535 if depth == 16 else 255
    expected = np.where((values == clear).all(axis=2, keepdims=True), 0, values * (white // most))
    content = png(17, 13, depth, colour, rows, before=chunk(b"tRNS", named))
    return content, expected.astype(np.uint16 if depth == 16 else np.uint8)
