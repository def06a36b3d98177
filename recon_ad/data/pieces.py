"""Limit of the pieces that a PNG or JPEG file consists of.

Pillow reads the chunks of a PNG and the segments of a JPEG one by one in Python. A file of nothing
but empty ones would take it minutes.
"""

FREE = 10_000  # chunks or segments of any length; a file of a gigabyte has 100,000 long ones
LEAST = 256  # bytes that each of more has on average


def check(count: int, length: int) -> None:
    """Raise SyntaxError if the first `length` bytes of a file consist of too many pieces."""
    if count > FREE and length < count * LEAST:
        raise SyntaxError(f"its first {length} bytes consist of {count} chunks or segments")
