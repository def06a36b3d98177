"""Strips and tiles that image codecs compress, each held against the tags of its TIFF file.

A JPEG, JPEG 2000, PNG, WebP, JPEG XL or LERC stream has a size, a depth and a number of channels of
its own. tifffile reshapes and casts what a decoder returns until it fits the tags, so streams of
another kind, and JPEG streams that end early, would become wrong values. Here they raise
`Misfit`.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence

import imagecodecs
import numpy as np
import tifffile
from jaxtyping import Shaped

from recon_ad.data import jpeg
from recon_ad.limits import MAX_PIXELS

JPEG = (6, 7, 33007, 34892)  # Compression, whose decoder makes RGB of YCbCr
JPEG_2000 = (33003, 33004, 33005, 34712)
JPEG_XL = (50002, 52546)
_WEBP = (34927, 50001)
_PNG = 34933
IMAGES = (*JPEG, *JPEG_2000, *JPEG_XL, *_WEBP, _PNG, 34887)  # and LERC
CCITT = (2, 3, 4)
_DEFLATE, _PACKBITS, _ZSTD = (8, 32946, 50013), (32773,), (50000,)
_BYTES = (1, 5, 8, 32773, 32946, 34925, 34926, 50000, 50013)  # all that compress bytes
READ = (*IMAGES, *CCITT, *_BYTES)  # JPEG XR is left out: its decoder accepts cut streams

_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of JPEG XL, width to height


class Misfit(ValueError):
    """A part of a TIFF file that contradicts another."""


def decoded(page: tifffile.TiffPage) -> Shaped[np.ndarray, "..."]:
    """Decode a page of such a compression, as `TiffPage.asarray` does for all others.

    Raises:
      Misfit: If a stream is cut, or its size, depth or channels are not those of the tags.
    """
    made = np.zeros(page.shaped, page.dtype)
    handle = page.parent.filehandle
    for index, (at, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        # Without data tifffile says where a segment belongs.
        _, (plane, _, top, left, _), (_, rows, columns, samples) = page.decode(None, index)
        if plane >= made.shape[0] or top >= page.imagelength:
            continue  # more segments than the image has
        handle.seek(at)  # only now, as what tells of a segment reads the file, too
        segment = _segment(page, handle.read(size), index)
        height, width = segment.shape[:2]
        inside = min(rows, page.imagelength - top), min(columns, page.imagewidth - left)
        # Encoders keep the last ones whole, or cut them to what is inside the image.
        whole = (page.tilelength if page.is_tiled else page.rowsperstrip), columns
        if (height, width) not in {inside, whole} or segment.shape[2] != samples:
            raise Misfit(
                f"a strip or tile holds {width} × {height} pixels of {segment.shape[2]} samples, "
                f"against {inside[1]} × {inside[0]} of {samples} by the tags"
            )
        place = made[plane, 0, top : top + inside[0], left : left + inside[1]]
        place[...] = segment[: inside[0], : inside[1]]
    return made.reshape(page.shape)


def of_bytes(page: tifffile.TiffPage) -> Shaped[np.ndarray, "..."]:
    """Decode a page of any other compression, also if strips or tiles hold more than they need.

    Some programs fill up the last one, or each. Decoders that get the needed size refuse that.
    """
    try:
        return page.asarray()
    except RuntimeError:  # of imagecodecs
        if int(page.compression) not in (*_DEFLATE, *_PACKBITS, *_ZSTD):
            raise
    return decoded(page)


def _cropped(page: tifffile.TiffPage, data: bytes, index: int) -> bytes:
    """Return a strip's or tile's data without what it does not need, or as they are."""
    size = int(np.prod(page.decode(None, index)[2])) * page.dtype.itemsize
    code, reverse = int(page.compression), page.fillorder == 2
    given = imagecodecs.bitorder_decode(data) if reverse else data
    most = 2 * size + 2**20  # a few bytes must not become gigabytes
    try:
        if code in _DEFLATE:
            whole = zlib.decompressobj().decompress(given, size)
        elif code in _PACKBITS:
            whole = imagecodecs.packbits_decode(given, out=most)
        else:
            whole = imagecodecs.zstd_decode(given, out=most)
    except (zlib.error, RuntimeError) as error:
        if "small" in str(error).lower():  # for which both libraries have words of their own
            raise Misfit("a strip or tile holds more than twice what its tags need") from None
        return data
    if len(whole) < size:
        return data
    if code in _PACKBITS:
        made = _literal_packbits(whole[:size])
    elif code in _ZSTD:
        made = imagecodecs.zstd_encode(whole[:size])
    else:
        made = zlib.compress(whole[:size], 0)
    return imagecodecs.bitorder_decode(made) if reverse else made


def _literal_packbits(data: bytes) -> bytes:
    """Encode without runs, since imagecodecs takes the square of a run's length to find it."""
    parts = (data[i : i + 128] for i in range(0, len(data), 128))
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


def _segment(page: tifffile.TiffPage, data: bytes, index: int) -> Shaped[np.ndarray, "h w c"]:
    code = int(page.compression)
    if code in CCITT:
        return _ccitt(page, data, index)
    if code not in IMAGES:
        return page.decode(_cropped(page, data, index), index)[0][0]
    own: int | None = None  # bits of a sample, None where the type alone tells them
    _check_size(page, _promised(code, data))
    if code in JPEG:
        own, *size = _jpeg_header(page, data, index)
        _check_size(page, size)
        pixels = page.decode(data, index, jpegtables=page.jpegtables)[0][0]
        if tuple(size) != pixels.shape:
            raise Misfit(
                f"a JPEG stream has {size[1]} × {size[0]} pixels of {size[2]} samples, and the "
                "tags have others"
            )
    elif code in JPEG_2000:
        own = _jpeg_2000_bits(data)
        pixels = imagecodecs.jpeg2k_decode(data)
    elif code in JPEG_XL:
        own = _jpeg_xl_bits(data)
        pixels = imagecodecs.jpegxl_decode(data)
    else:
        pixels = tifffile.TIFF.DECOMPRESSORS[code](data)
        if code in _WEBP and page.samplesperpixel == 4 and pixels.shape[2:] == (3,):
            pixels = imagecodecs.webp_decode(data, hasalpha=True)  # an opaque alpha is left out
    if pixels.dtype != page.dtype or own not in (None, page.bitspersample):
        raise Misfit(
            f"a strip or tile holds {own or 8 * pixels.dtype.itemsize} bits a sample as "
            f"{pixels.dtype}, and the tag BitsPerSample says {page.bitspersample}"
        )
    if own is None and page.bitspersample % 8:
        raise Misfit(f"its codec holds no {page.bitspersample} bits (tag BitsPerSample)")
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _promised(code: int, data: bytes) -> tuple[int, int]:
    """Return the height and width in a stream's header, 0 for codecs that promise little."""
    if code in JPEG_2000:
        at = data.find(_CODESTREAM)
        width, height, left, top = struct.unpack(">4I", data[at + 8 : at + 24].ljust(16, b"\0"))
        return height - top, width - left
    if code in JPEG_XL:
        return _jpeg_xl_header(data).size()
    if code == _PNG:
        width, height = struct.unpack(">2I", data[16:24].ljust(8, b"\0"))
        return height, width
    return 0, 0


def _check_size(page: tifffile.TiffPage, size: Sequence[int]) -> None:
    """Raise Misfit, before memory is allocated, for a stream larger than a strip or tile."""
    strip = page.rowsperstrip, page.imagewidth
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else strip
    if rows * columns > MAX_PIXELS:  # the only strip may be said to have any number of rows
        rows, columns = page.imagelength, page.imagewidth
    if size[0] * size[1] > rows * columns:
        raise Misfit(
            f"a strip or tile holds {size[1]} × {size[0]} pixels, against {columns} × {rows} by "
            "the tags"
        )


def _ccitt(page: tifffile.TiffPage, data: bytes, index: int) -> Shaped[np.ndarray, "h w c"]:
    """Decode a strip of CCITT, which holds all of its rows if more data change nothing.

    Decoders leave the rows white that a cut strip lacks.
    """
    pixels = page.decode(data, index)[0][0]
    reverse = page.fillorder == 2  # the lowest bit first
    last = (imagecodecs.bitorder_decode(data[-8:]) if reverse else data[-8:]).rjust(8, b"\1")
    number = int.from_bytes(last, "big")
    zeros = (number & -number).bit_length() - 1 if number else 64
    for bits in _more_rows(pixels.shape[1], zeros):
        more = int(f"1{bits}{-len(bits) % 8 * '0'}", 2).to_bytes(-(-len(bits) // 8) + 1, "big")[1:]
        if reverse:
            more = imagecodecs.bitorder_decode(more)
        if not np.array_equal(page.decode(data + more, index)[0][0], pixels):
            raise Misfit("a stream of CCITT ends early")
    return pixels


def _more_rows(width: int, zeros: int) -> Iterator[str]:
    """Yield the bits of rows of single pixels in turn white and black, as each codec has them.

    Args:
      width: Pixels of a row.
      zeros: Zeros at the end of a stream, which may be the start of a code for the end of a row.
    """
    row = "000111010" * (width // 2) + "000111" * (width % 2)
    end = "000000000001"
    bytewise = row.ljust(-(-len(row) // 8) * 8, "0")
    for bits in (row, bytewise, end + row, f"{end}1{row}"):
        yield 8 * bits
    for own in range(4):  # zeros that belong to the code before
        rest = end[max(0, min(zeros - own, len(end) - 1)) :]
        yield rest + 8 * (row + end)
        yield rest + 8 * f"1{row}{end}"
    for code in ("001000111010", "1", "011", "010"):  # in two dimensions
        yield 8 * width * code


def _jpeg_header(page: tifffile.TiffPage, data: bytes, index: int) -> tuple[int, int, int, int]:
    """Return bits, height, width and samples of a JPEG stream, which has to be whole."""
    tables = page.jpegtables or b""
    stream = tables[:-2] + data[2:] if tables else data  # without the end of one and the start
    try:
        frame, whole = jpeg.parts(stream).frame, jpeg.is_whole(stream)
        if whole is None:  # of a kind that Pillow does not decode
            pixels, padded = (page.decode(d, index)[0] for d in (stream, jpeg.padded(stream)))
            whole = np.array_equal(pixels, padded)
    except SyntaxError as error:
        raise Misfit("a JPEG stream ends early") from error
    if not whole:
        raise Misfit("a JPEG stream ends early")
    if frame is None:
        raise Misfit("a JPEG stream has no header")
    return frame.bits, frame.height, frame.width, len(frame.sampling)


def _jpeg_2000_bits(data: bytes) -> int:
    """Return the bits of a sample, which have to be unsigned and the same in all channels."""
    at = data.find(_CODESTREAM)  # behind boxes if there are any
    head = data[at + 40 : at + 42]
    count = int.from_bytes(head, "big")
    depths = set(data[at + 42 : at + 42 + 3 * count : 3])
    if at < 0 or len(depths) != 1 or max(depths) > 0x7F:
        raise Misfit("a JPEG 2000 stream has signed samples, or samples of several depths")
    return max(depths) + 1


class _Bits:
    """Numbers of a JPEG XL header, the lowest bit first (ISO/IEC 18181-1)."""

    def __init__(self, data: bytes):
        self._left = int.from_bytes(data, "little")

    def u(self, count: int) -> int:
        value = self._left & ((1 << count) - 1)
        self._left >>= count
        return value

    def chosen(self, *choices: tuple[int, int]) -> int:
        least, count = choices[self.u(2)]
        return least + self.u(count)

    def size(self) -> tuple[int, int]:
        """Return height and width."""
        small = self.u(1)
        height = self._side(small)
        if ratio := self.u(3):
            up, down = _RATIOS[ratio - 1]
            return height, height * up // down
        return height, self._side(small)

    def _side(self, small: int) -> int:
        if small:
            return 8 * (self.u(5) + 1)
        return self.chosen((1, 9), (1, 13), (1, 18), (1, 30))


def _jpeg_xl_header(data: bytes) -> _Bits:
    """Return the header of the first codestream, which begins with the size."""
    at = 0
    if data[:2] != b"\xff\x0a":
        at = max(data.find(b"jxlc\xff\x0a") + 4, data.find(b"jxlp\0\0\0\0\xff\x0a") + 8)
    return _Bits(data[at + 2 : at + 64])


def _jpeg_xl_bits(data: bytes) -> int:
    """Return the bits of a sample, from the header of the first codestream."""
    bits = _jpeg_xl_header(data)
    bits.size()
    if bits.u(1):  # all as usual
        return 8
    if bits.u(1) and (bits.u(3) or bits.u(1) or bits.u(1) or bits.u(1)):
        raise Misfit("a JPEG XL stream is turned, or has a preview or an animation")
    if bits.u(1):
        return bits.chosen((32, 0), (16, 0), (24, 0), (1, 6))
    return bits.chosen((8, 0), (10, 0), (12, 0), (1, 6))
