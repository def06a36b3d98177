"""JPEG files that have to be whole: libjpeg makes the rest of a cut one gray and only warns.

Pillow and imagecodecs hide that warning. Entropy-coded data end at a marker, where libjpeg goes on
with zeros. Here a decoder gets the data of each scan or restart interval without the marker, and a
few bytes instead, so that it waits for more if the data have ended too early. A decoder reads up to
seven bytes ahead, so what is missing in the last block may go unnoticed if it is no more than that.
deploy/cpp/src/jpeg_parts.cpp and jpeg_io.cpp do the same.
"""

import io
import itertools
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from PIL.JpegImagePlugin import MARKER

from recon_ad.data import pieces
from recon_ad.errors import UserError
from recon_ad.limits import MAX_PIXELS

MAX_SCANS = 100  # of a file, each of which takes as long as a whole image; encoders write ten
MAX_SCANNED = 10 * MAX_PIXELS  # pixels of all scans, a few seconds
MAX_INTERVALS = 1 << 19  # restart intervals of a file, which are given to a decoder one by one
MAX_EXIF = 256  # segments of Exif data, which Pillow copies for each further one
BLOCK_BITS = 8 * 64  # pixels for each byte of a file at most: a block of 8 × 8 takes a bit
CUT = "image file is truncated"
# What a decoder may read ahead. `_ahead` chooses the data that a cut block takes most of.
_ONES, _ZEROS, _TURNS = b"\xff\x00" * 7, b"\x00" * 7, b"\x55" * 7
_PROBE = b"\x00"  # passed over in front of a marker, and too few bits for a decoder of a unit
_NOISE = bytes(range(1, 251, 3))
_RESTARTS = range(0xD0, 0xD8)
_ALONE = (0x01, 0xD8, *_RESTARTS)  # markers without a length
# What Pillow reads without a length ahead of the pixels. It takes FF 00 for filling.
_NOT_LONG = [b"\0", *(bytes([code & 0xFF]) for code, found in MARKER.items() if not found[2])]
_MAGIC, _EXIF = b"\xff\xd8", b"Exif\0\0"
_SOS, _EOI, _DRI, _DHT = 0xDA, 0xD9, 0xDD, 0xC4
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1), 0xC2
_COEFFICIENTS = 64


class Frame(NamedTuple):
    """The header of an image.

    Attributes:
      kind: Code of its marker, from 0xC0.
      bits: Bits of a sample.
      height: Height in pixels.
      width: Width in pixels.
      sampling: Horizontal and vertical sampling factor of each component.
    """

    kind: int
    bits: int
    height: int
    width: int
    sampling: dict[int, tuple[int, int]]

    @property
    def is_arithmetic(self) -> bool:
        """True if it is coded by arithmetic, whose data may end early."""
        return self.kind > 0xC8

    def units(self, components: Sequence[int]) -> int:
        """Return the number of coded units in a scan of these components."""
        side = 8 if self.kind in (*_SEQUENTIAL, _PROGRESSIVE) else 1
        most_x = max(x for x, _ in self.sampling.values())
        most_y = max(y for _, y in self.sampling.values())
        x, y = self.sampling[components[0]] if len(components) == 1 else (1, 1)
        return -(-self.width * x // (side * most_x)) * -(-self.height * y // (side * most_y))


class End(NamedTuple):
    """A marker that ends entropy-coded data.

    Attributes:
      place: Place of the marker.
      ahead: Data that a decoder gets instead.
    """

    place: int
    ahead: bytes


class Parts(NamedTuple):
    """Parts of a file.

    Attributes:
      frame: Header of the image, None if there is none.
      scans: Number of scans.
      ends: Ends of the entropy-coded data.
    """

    frame: Frame | None
    scans: int
    ends: list[End]


class _Code(NamedTuple):
    """The Huffman code of zeros alone: its length, and the symbol that it stands for."""

    length: int
    symbol: int


def parts(content: bytes) -> Parts:
    """Return the parts of a JPEG stream.

    Raises:
      SyntaxError: If it is cut: without its end marker, with too few restart markers, or with
        scans that leave coefficients of a component open. If it has too many scans or segments.
    """
    markers = _markers(content)
    frame, interval, scans, at = None, 0, 0, 2
    ends: list[End] = []
    open_bits: dict[int, list[int]] = {}
    codes_of_ac: dict[int, _Code] = {}
    for count in itertools.count(1):
        at, code = _next(markers, at)
        pieces.check(count, at)
        if code in _ALONE:
            continue
        if code == _EOI:
            break
        length = int.from_bytes(content[at : at + 2], "big")
        body = content[at + 2 : at + length]
        at += length
        if code in _FRAMES:
            if frame:
                raise SyntaxError("it has two headers")
            frame = _frame(code, body)
            open_bits = {c: [1] * _COEFFICIENTS for c in frame.sampling}
        elif code == _DRI and len(body) == 2:
            interval = int.from_bytes(body, "big")
        elif code == _DHT:
            codes_of_ac |= _codes_of_ac(body)
        elif code == _SOS and frame:
            if not body:
                raise SyntaxError("its header is damaged")
            scans += 1
            most = min(MAX_SCANS, MAX_SCANNED // max(1, frame.width * frame.height))
            if scans > most:
                raise SyntaxError(f"it has more than {most} scans")
            components = [c for c in body[1 : 1 + 2 * body[0] : 2] if c in open_bits]
            _close(open_bits, components, body[1 + 2 * body[0] :], frame)
            units = frame.units(components) if components else 0
            restarts = -(-units // interval) - 1 if interval else 0
            ahead = _ahead(body, codes_of_ac, frame)
            if len(ends) + restarts >= MAX_INTERVALS:
                raise SyntaxError(f"it has more than {MAX_INTERVALS} restart intervals")
            at, places = _scan(content, markers, at, restarts)
            ends += [End(place, ahead) for place in places]
    if any(map(any, open_bits.values())):
        raise SyntaxError(CUT)
    return Parts(frame, scans, ends)


class _Markers(NamedTuple):
    """The markers of a file, and what looks like one within a segment.

    Attributes:
      places: Places of the markers, ascending.
      codes: Their codes.
      others: Indices of those that are no restart markers.
    """

    places: Int[np.ndarray, " m"]
    codes: UInt8[np.ndarray, " m"]
    others: Int[np.ndarray, " k"]


def _markers(content: bytes) -> _Markers:
    values = np.frombuffer(content, np.uint8)
    after = values[1:]
    places = np.flatnonzero((values[:-1] == 0xFF) & (after != 0) & (after != 0xFF))
    codes = after[places]
    return _Markers(places, codes, np.flatnonzero((codes & 0xF8) != _RESTARTS[0]))


def _next(markers: _Markers, at: int) -> tuple[int, int]:
    """Return the place behind the next marker, and its code."""
    index = np.searchsorted(markers.places, at)
    if index == len(markers.places):
        raise SyntaxError(CUT)
    return int(markers.places[index]) + 2, int(markers.codes[index])


def _frame(code: int, body: bytes) -> Frame:
    if len(body) < 6 or len(body) < 6 + 3 * body[5] or 0 in body[7 : 6 + 3 * body[5] : 3]:
        raise SyntaxError("its header is damaged")
    bits, height, width, count = struct.unpack_from(">BHHB", body)
    sampling = {
        body[i]: (max(1, body[i + 1] >> 4), max(1, body[i + 1] & 15))
        for i in range(6, 6 + 3 * count, 3)
    }
    return Frame(code, bits, height, width, sampling)


def _close(
    open_bits: dict[int, list[int]], components: Sequence[int], spectrum: bytes, frame: Frame
) -> None:
    """Note which bits of the coefficients a scan leaves open."""
    first, last, low = 0, _COEFFICIENTS - 1, 0
    if frame.kind == _PROGRESSIVE and len(spectrum) > 2:
        first, last, low = spectrum[0], min(spectrum[1], last), spectrum[2] & 15
    for component in components:
        for k in range(first, last + 1):
            open_bits[component][k] = low


def _codes_of_ac(body: bytes) -> dict[int, _Code]:
    """Return the codes of zeros in the tables for AC coefficients in a DHT segment."""
    found, at = {}, 0
    while at + 17 < len(body):
        kind, counts = body[at], body[at + 1 : at + 17]
        length = next((i for i, count in enumerate(counts, 1) if count), 0)
        if kind >> 4:
            found[kind & 15] = _Code(length, body[at + 17])
        at += 17 + sum(counts)
    return found


def _ahead(scan: bytes, codes: dict[int, _Code], frame: Frame) -> bytes:
    """Return the data for behind a scan: many bits, and no end, for a block that is cut.

    A code of ones alone does not exist, which takes 17 bits and ends a block. Zeros are the most
    frequent symbol; if that ends a block, no two zeros must follow each other.
    """
    table = scan[2 * scan[0]] & 15 if len(scan) > 2 * scan[0] else 0  # of the last component
    is_dc = frame.kind == _PROGRESSIVE and scan[1 + 2 * scan[0] :][:1] == b"\0"
    code = codes.get(table)
    if code is None or is_dc:
        return _ONES
    if code.symbol & 15:  # a coefficient that is not 0
        return _ZEROS
    return _TURNS if code.length > 1 else _ONES


def _scan(content: bytes, markers: _Markers, at: int, restarts: int) -> tuple[int, list[int]]:
    """Return the place of the marker behind a scan, and those that end its restart intervals."""
    first = int(np.searchsorted(markers.places, at))
    index = np.searchsorted(markers.others, first)
    if index == len(markers.others):
        raise SyntaxError(CUT)
    last = int(markers.others[index])
    if last - first < restarts:
        raise SyntaxError(CUT)
    wanted = np.arange(restarts) % len(_RESTARTS) + _RESTARTS[0]
    if (markers.codes[first : first + restarts] != wanted).any():
        raise SyntaxError(CUT)
    # A scan of more intervals than the image has ends with those of the image.
    places = markers.places[first : min(last, first + restarts) + 1].tolist()
    for i, place in enumerate(places):
        while content[place - 1] == 0xFF:  # filling
            place -= 1
        places[i] = place
    return int(markers.places[last]), places


def check_header(name: str) -> None:
    """Raise SyntaxError for a JPEG with so many segments ahead of its pixels that it takes long.

    This walks as Pillow does, not as a decoder.
    """
    count, exif, at = 0, 0, len(_MAGIC)
    with open(name, "rb") as file:
        if file.read(at) != _MAGIC:
            return
        while (head := file.read(10)) and head[:2] != b"\xff\xda":
            code = head[1:2]
            if head[0] != 0xFF or code == b"\xff":  # between segments, or filling
                at += 1
            elif code in _NOT_LONG:
                at += 2
            else:
                exif += code == b"\xe1" and head[4:] == _EXIF
                at += 2 + int.from_bytes(head[2:4], "big")
            count += 1
            pieces.check(count, at)
            if exif > MAX_EXIF:
                raise SyntaxError(f"it has more than {MAX_EXIF} segments of Exif data")
            file.seek(at)


def load_file(image: Image.Image, name: str) -> None:
    """Decode an opened image, as `Image.load` does, from a file that has to be whole.

    Raises:
      UserError: For a kind of JPEG of which no decoder notices that its end is missing.
      SyntaxError, OSError: As for `_load`.
    """
    with open(name, "rb") as file:
        content = file.read()
    found = parts(content)
    if found.frame and found.frame.is_arithmetic:
        raise UserError(
            f"{name}: is a JPEG of arithmetic coding, whose end may be missing without being "
            "noticed: save it anew with Huffman codes"
        )
    _load(image, content, found)


def _load(image: Image.Image, content: bytes, found: Parts) -> None:
    """Decode an opened image from data that have to be whole.

    Raises:
      SyntaxError: If entropy-coded data end too early.
      OSError: If they cannot be decoded.
    """
    (_, extents, _, options), *_ = image.tile
    image.load_prepare()
    decoder = Image._getdecoder(image.mode, "jpeg", options, image.decoderconfig)
    waiting, at, done = b"", 0, False

    def give(more: bytes) -> None:
        nonlocal waiting, done
        if done:
            return
        waiting += more
        count, error = decoder.decode(waiting)
        if error < 0:
            raise OSError("broken data stream")
        done, waiting = count < 0, waiting[count:] if count >= 0 else b""

    try:
        decoder.setimage(image.im, extents)
        for end in found.ends:
            give(content[at : end.place] + end.ahead)
            if not waiting:  # it waits for a marker, or is within a unit that it has read all of
                give(_PROBE)
            if waiting:
                raise SyntaxError(CUT)
            at = end.place
        if found.scans > 1:
            give(content[at:])
        if not done:
            raise SyntaxError(CUT)
    finally:
        decoder.cleanup()
    image.tile = []


def is_whole(content: bytes) -> bool | None:
    """Return whether no data of a stream are missing, None for kinds that Pillow does not decode.

    Raises:
      SyntaxError: As for `parts`.
    """
    found = parts(content)
    if found.frame is None or found.frame.bits != 8 or found.frame.kind > _PROGRESSIVE:
        return None
    if len(found.frame.sampling) not in (1, 3):
        return None
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
        image.draft("L", (image.width // 8 or 1, image.height // 8 or 1))  # which takes less time
        try:
            _load(image, content, found)
        except SyntaxError:
            return False
    return True


def padded(content: bytes) -> bytes:
    """Return a stream with more data at each end, which change nothing if no data are missing."""
    made, at = [], 0
    for end in parts(content).ends:
        made += content[at : end.place], _NOISE
        at = end.place
    return b"".join([*made, content[at:]])
