"""Reproducible damage to bytes and JSON."""

import copy
import random
import struct
import zlib
from collections.abc import Sequence
from typing import Any

NUMBERS = (0, 1, 2, 255, 256, 1000, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)
HOSTILE = (
    None, True, False, 0, -1, 1, 0.5, 2**31, 2**63, 10**400, -1e308, float("nan"), float("inf"),
    "", "x", "../../etc/passwd", "9" * 5000, [], [0], [0, 0], [-1, -1], [1e9, 1e9], {}, {"a": 1},
)  # fmt: skip


def damaged(content: bytes, rng: random.Random, *, others: Sequence[bytes] = ()) -> bytes:
    """Return the bytes with one to four changes, more often near the beginning than elsewhere."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        data = data or bytearray(b"x")
        at = rng.randrange(len(data) if rng.random() < 0.6 else min(len(data), 300))
        kind = rng.randrange(8 if others else 7)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            del data[at : at + rng.randint(1, 20)]
        elif kind == 4:
            data[at:at] = rng.randbytes(rng.randint(1, 20))
        elif kind == 5:
            form, width = rng.choice((("<H", 2), (">H", 2), ("<I", 4), (">I", 4)))
            mask = (1 << 8 * width) - 1
            data[at : at + width] = struct.pack(form, rng.choice(NUMBERS) & mask)
        elif kind == 6:
            start, length = rng.randrange(len(data)), rng.randint(1, 32)
            data[at : at + length] = data[start : start + length]
        else:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at : at + 64] = other[start : start + 64]
    return bytes(data)


def with_checksums(png: bytes) -> bytes:
    """Return the PNG with valid checksums, so that the damage passes them."""
    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length > len(data) - at - 12:
            break
        crc = zlib.crc32(data[at + 4 : at + 8 + length])
        data[at + 8 + length : at + 12 + length] = struct.pack(">I", crc)
        at += 12 + length
    return bytes(data)


def damaged_json(content: Any, rng: random.Random) -> Any:
    """Return the JSON content with one value, at any depth, deleted, swapped or made hostile."""
    made = copy.deepcopy(content)
    place, key = rng.choice(list(_places(made)))
    kind = rng.randrange(4)
    if kind == 0:
        del place[key]
    elif kind == 1:
        other, name = rng.choice(list(_places(made)))
        place[key] = copy.deepcopy(other[name])
    else:
        place[key] = rng.choice(HOSTILE)
    return made


def _places(content: Any) -> list[tuple[Any, Any]]:
    keys = (
        content.keys()
        if isinstance(content, dict)
        else range(len(content))
        if isinstance(content, list)
        else ()
    )
    found = [(content, key) for key in keys]
    return found + [place for key in keys for place in _places(content[key])]
