"""Hand-made PNG files of kinds that Pillow does not write."""

import struct
import zlib

import numpy as np

GRAY, RGB, PALETTE, RGB_ALPHA = 0, 2, 3, 6  # colour types


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


def odd_transparency() -> dict[str, tuple[bytes, str]]:
    """Return PNG files with a chunk tRNS that does not fit, and a part of each one's sentence."""

    def clear(*values: int) -> bytes:
        return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))

    def alphas(count: int) -> bytes:
        return chunk(b"tRNS", bytes(count))

    made: dict[str, tuple[bytes, str]] = {}
    for depth in (1, 2, 4, 8):
        row = b"\0" + bytes([0b10011011] * depth)
        for beyond in (1 << depth, 1 << 15):
            content = png(8, 1, depth, GRAY, row, before=clear(beyond))
            made[f"gray_{depth}_{beyond}"] = content, f"a value of more than {depth} bits"
    colours = chunk(b"PLTE", bytes([10, 10, 10, 200, 200, 200]))
    for name, colour, before, words in (
        ("gray_0", GRAY, alphas(0), "0 bytes and not 2"),
        ("gray_1", GRAY, alphas(1), "1 bytes and not 2"),
        ("gray_3", GRAY, alphas(3), "3 bytes and not 2"),
        ("gray_6", GRAY, clear(0, 0, 0), "6 bytes and not 2"),
        ("gray_twice", GRAY, clear(5) + clear(7), "it occurs twice"),
        ("rgb_2", RGB, clear(0), "2 bytes and not 6"),
        ("rgb_7", RGB, alphas(7), "7 bytes and not 6"),
        ("rgb_beyond", RGB, clear(0, 256, 0), "a value of more than 8 bits"),
        ("rgb_twice", RGB, clear(0, 0, 0) * 2, "it occurs twice"),
        ("rgb_before", RGB, clear(0, 0, 0) + colours, "it precedes the palette"),
        ("alpha", RGB_ALPHA, clear(0, 0, 0), "the image has an alpha channel"),
        ("palette_0", PALETTE, colours + alphas(0), "0 alphas for 2 colours"),
        ("palette_3", PALETTE, colours + alphas(3), "3 alphas for 2 colours"),
        ("palette_300", PALETTE, colours + alphas(300), "300 alphas for 2 colours"),
        ("palette_twice", PALETTE, colours + alphas(1) * 2, "it occurs twice"),
        ("palette_before", PALETTE, alphas(1) + colours, "it precedes the palette"),
    ):  # fmt: skip
        samples = {RGB: 3, RGB_ALPHA: 4}.get(colour, 1)
        content = png(2, 1, 8, colour, b"\0" + bytes(samples * [0, 1]), before=before)
        made[name] = content, words
    deep = png(2, 1, 16, RGB, bytes(13), before=alphas(5))
    return made | {"deep_5": (deep, "5 bytes and not 6")}


def with_clear_colour(depth: int, colour: int) -> tuple[bytes, np.ndarray]:
    """Return a PNG of noise with one transparent colour, and its pixels over black.

    Args:
      depth: Bits per sample.
      colour: GRAY or RGB.
    """
    channels = 3 if colour == RGB else 1
    most = 2**depth - 1
    values = np.random.default_rng(depth).integers(0, most + 1, (13, 17, channels))
    clear = most - most // 3 * np.arange(channels)
    values[:, ::3] = clear
    values[:, 1::3] = clear ^ (np.arange(channels) == channels - 1)  # the closest other colour
    samples = values.reshape(13, -1, 1) >> np.arange(depth)[::-1] & 1
    packed = np.packbits(samples.reshape(13, -1).astype(np.uint8), axis=1)
    named = struct.pack(f">{channels}H", *clear)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    white = 65535 if depth == 16 else 255
    expected = np.where((values == clear).all(axis=2, keepdims=True), 0, values * (white // most))
    content = png(17, 13, depth, colour, rows, before=chunk(b"tRNS", named))
    return content, expected.astype(np.uint16 if depth == 16 else np.uint8)
