"""Damage to JPEG files that leaves their end marker in place."""

import re

END = b"\xff\xd9"


def cut(content: bytes, *, kept: float) -> bytes:
    """Return a JPEG with a part of its last scan's data, and its end marker."""
    scan = content.rindex(b"\xff\xda")
    start = scan + 2 + int.from_bytes(content[scan + 2 : scan + 4], "big")
    data = content[start:-2]
    return content[:start] + data[: int(kept * len(data))].rstrip(b"\xff") + END


def taller(content: bytes) -> bytes:
    """Return a JPEG whose header promises twice the rows."""
    at = re.search(rb"\xff[\xc0-\xc2]\x00[\x0b\x11]\x08", content).end()
    height = int.from_bytes(content[at : at + 2], "big")
    return content[:at] + (2 * height).to_bytes(2, "big") + content[at + 2 :]


def without_scans(content: bytes, *, left: int) -> bytes:
    """Return a JPEG with its first scans and its end marker."""
    starts = [match.start() for match in re.finditer(rb"\xff\xda", content)]
    return content[: starts[left]] + END


def without_interval(content: bytes) -> bytes:
    """Return a JPEG without the first restart interval but its marker, so that two follow."""
    first, second = (content.index(bytes([0xFF, mark])) for mark in (0xD0, 0xD1))
    return content[: first + 2] + content[second:]


def renumbered(content: bytes) -> bytes:
    """Return a JPEG without a restart interval and its marker."""
    first, second = (content.index(bytes([0xFF, mark])) for mark in (0xD0, 0xD1))
    return content[:first] + content[second:]
