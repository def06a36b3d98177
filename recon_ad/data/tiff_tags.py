"""The tags of a TIFF file by its bytes, checked before tifffile interprets them.

tifffile passes over a tag that it cannot read and takes its default, and it fails in words of
Python's where a number is a text or a list. Here both raise UserError, which names the tag.
"""

import os
import struct
from typing import BinaryIO, NamedTuple

from recon_ad.errors import UserError

# Tags that hold one number for the whole image.
_ONE = {
    254: "NewSubfileType", 255: "SubfileType", 256: "ImageWidth", 257: "ImageLength",
    259: "Compression", 262: "PhotometricInterpretation", 266: "FillOrder", 274: "Orientation",
    277: "SamplesPerPixel", 278: "RowsPerStrip", 284: "PlanarConfiguration", 317: "Predictor",
    322: "TileWidth", 323: "TileLength", 32997: "ImageDepth", 32998: "TileDepth",
}  # fmt: skip
# Tags that hold a number for each sample, strip or tile.
_MORE = {
    258: "BitsPerSample", 273: "StripOffsets", 279: "StripByteCounts", 320: "ColorMap",
    324: "TileOffsets", 325: "TileByteCounts", 338: "ExtraSamples", 339: "SampleFormat",
}  # fmt: skip
_SAME = (258, 339)  # that have one value for all samples
_POSITIVE = (256, 257, 258, 277, 278, 322, 323, 32997, 32998)
_NEEDED = (256, 257)
# Bytes of the tags of all pages; places and sizes of 262,144 strips take four megabytes in BigTIFF.
MAX_BYTES = (1 << 22) + (1 << 16)
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
          16: 8, 17: 8, 18: 8}  # fmt: skip
_WHOLE = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of numbers that are not negative


class _Layout(NamedTuple):
    """Layout of the tags in TIFF or BigTIFF: struct formats of count, tag and offset."""

    order: str
    count: str
    tag: str
    offset: str

    @property
    def inline(self) -> int:
        """The bytes of a value that are in the tag itself."""
        return struct.calcsize(self.order + self.offset)


class Span(NamedTuple):
    """Bytes of a file that hold no pixels."""

    start: int
    stop: int


def checked(name: str, *, most: int) -> list[Span]:
    """Check the tags of a file's pages, and return where its header, tags and their values are.

    Args:
      name: Path of the file.
      most: Number of pages after which the rest is left out.

    Raises:
      UserError: If a tag is damaged, or holds other values than it may, or if the tags of a page
        are not within the file, as tifffile would leave out that page and all after it.
    """
    size = os.path.getsize(name)
    with open(name, "rb") as file:
        head = file.read(16)
        big = head[2:4] in (b"+\0", b"\0+")
        order = "<" if head[:2] == b"II" else ">"
        layout = _Layout(order, "Q", "HHQ8s", "Q") if big else _Layout(order, "H", "HHI4s", "I")
        start = 8 if big else 4
        spans = [Span(0, start + layout.inline)]
        at = _number(head[start : start + layout.inline], layout)
        seen: set[int] = set()
        while at and len(seen) < most:
            if at in seen:
                raise UserError(
                    f"{name}: cannot be decoded (a page is followed by an earlier one): the file "
                    "is broken, replace or remove it"
                )
            seen.add(at)
            at = _page(file, at, layout, size, spans, name)
    return spans


def _number(content: bytes, layout: _Layout) -> int:
    if len(content) < layout.inline:
        return 0
    return struct.unpack(layout.order + layout.offset, content)[0]


def _beyond(name: str) -> UserError:
    return UserError(
        f"{name}: cannot be decoded (the tags of a page are not within the file): the file is "
        "broken or truncated, replace or remove it"
    )


def _page(file: BinaryIO, at: int, layout: _Layout, size: int, spans: list[Span], name: str) -> int:
    """Check a page's tags; return where the next page's are, 0 if there is none."""
    file.seek(at)
    length = struct.calcsize(layout.order + layout.count)
    content = file.read(length)
    if len(content) < length:
        raise _beyond(name)
    (count,) = struct.unpack(layout.order + layout.count, content)
    width = struct.calcsize(layout.order + layout.tag)
    listed = file.read(width * min(count, 4097)) if count <= 4096 else b""
    following = _number(file.read(layout.inline), layout)
    if len(listed) < width * count:
        raise _beyond(name)
    spans.append(Span(at, at + length + width * count + layout.inline))
    found: dict[int, tuple[int, ...]] = {}
    for code, kind, number, value in struct.iter_unpack(layout.order + layout.tag, listed):
        called = _ONE.get(code) or _MORE.get(code)
        extent = _SIZES.get(kind, 0) * number
        if called is None:
            continue
        what = ""
        if code in found:
            what = "occurs twice"
        elif kind not in _WHOLE:
            what = f"holds no whole numbers but values of type {kind}"
        elif not number or (code in _ONE and number > 1):
            what = f"holds {number} values and not one" if code in _ONE else "is empty"
        elif extent > layout.inline:
            place = _number(value, layout)
            spans.append(Span(place, place + extent))
            if place + extent > size:
                what = "lies beyond the end of the file"
            elif sum(span.stop - span.start for span in spans) > MAX_BYTES:
                what = f"makes its tags longer than {MAX_BYTES} bytes"
            else:
                file.seek(place)
                value = file.read(extent)
        if not what:
            values = struct.unpack(f"{layout.order}{number}{_WHOLE[kind]}", value[:extent])
            found[code] = values
            if code in _POSITIVE and 0 in values:
                what = "is 0"
            elif code in _SAME and len(set(values)) > 1:
                what = f"has several values ({', '.join(map(str, values[:4]))})"
        if what:
            raise UserError(
                f"{name}: cannot be decoded (tag {called} {what}): the file is broken or of a kind "
                "that is not supported, save it as gray or RGB of 8 or 16 bits, or as floats"
            )
    for code in _NEEDED:
        if code not in found:
            raise UserError(
                f"{name}: cannot be decoded (tag {_ONE[code]} is missing): the file is broken, "
                "replace or remove it"
            )
    return following
