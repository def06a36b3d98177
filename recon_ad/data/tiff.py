"""TIFF files by their own tags: every value is right, or one sentence names the tag.

Gray, RGB and palettes of 1 to 16 bits and floating point are read; any number of samples or, as a
gray page for each channel, of pages; strips or tiles, planes together or apart, BigTIFF, either
byte order, every orientation, and the compressions in `data.tiff_codecs`. Fewer than 8 bits become
8; 9 to 15 stay as they are, and `own_range` states their white. Thumbnails, pyramids and
transparency masks beside an image are left out. Everything else is refused.
"""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import tifffile
from jaxtyping import Shaped

from recon_ad.data.arrays import InputRange, over_black
from recon_ad.data.npy import MAX_CHANNELS
from recon_ad.data.tiff_codecs import CCITT, IMAGES, JPEG, READ, Misfit, decoded, of_bytes
from recon_ad.data.tiff_tags import Span, checked
from recon_ad.errors import UserError
from recon_ad.limits import MAX_PIXELS

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two of BigTIFF
SAVE = "save it as gray or RGB of 8 or 16 bits, or as floats"
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6  # PhotometricInterpretation
OTHERS = {4: "a transparency mask", 5: "a CMYK image", 8: "a CIELAB image", 9: "a CIELAB image"}
UNCOMPRESSED = 1  # Compression
PLAIN = (UNCOMPRESSED, 32773)  # Compression, of values that are never differences; PackBits
CONTIGUOUS, SEPARATE = 1, 2  # PlanarConfiguration
MOST_PACKED = 4096  # the largest factor, about that of LZW for one value
ASSOCIATED, UNASSOCIATED = 1, 2  # ExtraSamples: transparency, multiplied into the colours or not
REDUCED, MASK = 1, 4  # bits of NewSubfileType
MAX_PAGES = 4 * MAX_CHANNELS  # with thumbnails
MAX_VALUES = 4 * MAX_PIXELS  # in all pages, which may share the data of one
MAX_SEGMENTS = 1 << 18  # strips or tiles, each of which tifffile decodes by itself

logging.getLogger("tifffile").disabled = True  # it also logs files that are refused here


class Header(NamedTuple):
    """An image in a TIFF file.

    Attributes:
      pages: A page for each channel, or one with all.
      height: Height when upright.
      width: Width when upright.
      dtype: Type of the values: "uint8", "uint9" to "uint16", by their bits, or "float32".
    """

    pages: list[tifffile.TiffPage]
    height: int
    width: int
    dtype: str


@contextmanager
def opened(name: str, *, max_pixels: int) -> Iterator[Header]:
    """Open a file and check its tags; errors of tifffile become a `UserError`.

    Args:
      name: Path of the file.
      max_pixels: Number of pixels that are decoded at most.
    """
    try:
        spans = checked(name, most=MAX_PAGES)
        with tifffile.TiffFile(name) as file:
            pages = _images(file, name)
            _check_extent(pages, name)
            for page in pages:
                _check(page, name, max_pixels=max_pixels)
                _check_segments(page, name, size=os.path.getsize(name), spans=spans)
            if len({_kind(page) for page in pages}) > 1:
                raise UserError(
                    f"{name}: its pages differ in size or kind: save each page as a separate file"
                )
            first = pages[0]
            size = first.imagelength, first.imagewidth
            height, width = size[::-1] if 5 <= _tag(first, 274, 1) <= 8 else size
            yield Header(pages, height, width, _dtype(first))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # tifffile and its codecs have no base class for broken files
        if isinstance(error, OSError) and error.errno is not None:
            raise UserError(
                f"{name}: cannot be read ({error.strerror}): give a file that you may read"
            ) from error
        reason = "its tags and its pixels do not fit each other"
        theirs = type(error).__module__.startswith("imagecodecs")
        if theirs or isinstance(error, (Misfit, tifffile.TiffFileError)):  # readable text
            reason = " ".join(str(error).split())[:200] or reason
        raise UserError(
            f"{name}: cannot be decoded ({reason}): the file is broken or truncated, replace or "
            "remove it"
        ) from error


def pixels_of(header: Header) -> Shaped[np.ndarray, "h w c"]:
    """Decode an opened image, upright, transparency laid over black."""
    return np.concatenate([_pixels(page) for page in header.pages], axis=2)


def own_range(header: Header) -> InputRange | None:
    """Return the values that mean black and white by the file's tags, None for the type's."""
    bits = header.pages[0].bitspersample
    return (0, 2**bits - 1) if 8 < bits < 16 and not is_palette(header) else None


def are_colours(header: Header) -> bool:
    """Return whether three channels are red, green and blue, not gray samples or pages."""
    return not _is_gray(header.pages[0])


def is_palette(header: Header) -> bool:
    """Return whether an image's values are indices into a palette."""
    return header.pages[0].photometric == PALETTE


def _images(file: tifffile.TiffFile, name: str) -> list[tifffile.TiffPage]:
    """Return the pages that are images, without thumbnails and masks."""
    pages, number = [], -1
    for number, page in enumerate(file.pages):
        if number == MAX_PAGES:
            raise UserError(
                f"{name}: holds more than {MAX_PAGES} pages: save each page as a separate file"
            )
        page = page.aspage()
        if not (_tag(page, 254, 0) & (REDUCED | MASK) or _tag(page, 255, 0) in (2, 3)):
            pages.append(page)
    if number < 0:
        raise Misfit("it has no page")
    if not pages:
        raise UserError(f"{name}: holds no image, but a thumbnail or a mask: {SAVE}")
    gray = all(_is_gray(page) and page.samplesperpixel == 1 for page in pages)
    if len(pages) > 1 and not gray:
        raise UserError(
            f"{name}: holds {len(pages)} pages, which is supported for gray TIFF (a page for each "
            "channel): save each page as a separate file"
        )
    if len(pages) > MAX_CHANNELS:
        raise UserError(f"{name}: holds {len(pages)} pages, more than the {MAX_CHANNELS} supported")
    return pages


def _tag(page: tifffile.TiffPage, code: int, default: int) -> int:
    """Return the value of a tag that holds one number, or several that are equal."""
    value = page.tags.valueof(code, default)
    if isinstance(value, tuple):
        if len(set(value)) != 1:
            raise Misfit(f"tag {code} has the values {value[:4]}")
        value = value[0]
    return int(value)


def _kind(page: tifffile.TiffPage) -> tuple[object, ...]:
    """Return the properties that pages have to share to be channels of an image."""
    return page.shape, _dtype(page), page.photometric, _tag(page, 274, 1)


def _is_gray(page: tifffile.TiffPage) -> bool:
    return page.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)


def _check_extent(pages: Sequence[tifffile.TiffPage], name: str) -> None:
    """Raise UserError where all pages together take too long, or too much memory."""
    segments = sum(len(page.dataoffsets) for page in pages)
    if segments > MAX_SEGMENTS:
        raise UserError(
            f"{name}: has {segments} strips or tiles, more than the {MAX_SEGMENTS} that are "
            "decoded: save it in larger ones"
        )
    values = sum(page.imagewidth * page.imagelength * page.samplesperpixel for page in pages)
    if values > MAX_VALUES:
        raise UserError(
            f"{name}: has {values} values in all samples of its pages, more than the {MAX_VALUES} "
            "that are decoded: cut it into smaller files"
        )


def _check(page: tifffile.TiffPage, name: str, *, max_pixels: int) -> None:
    """Raise UserError where the tags describe an image that cannot be decoded faithfully."""
    if page.imagewidth * page.imagelength > max_pixels:
        raise UserError(
            f"{name}: has {page.imagewidth} × {page.imagelength} pixels, more than the "
            f"{max_pixels} that are decoded: cut it into smaller files"
        )
    what = "" if 262 in page.tags else "without the tag PhotometricInterpretation"
    samples, formats = _several(page, 258), _several(page, 339)
    bits, form = samples[0] if samples else 1, formats[0] if formats else 1
    known = (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE)
    through_jpeg = page.photometric == YCBCR and int(page.compression) in JPEG
    if page.photometric not in known and not through_jpeg:
        other = "a YCbCr image" if page.photometric == YCBCR else "an image of another kind"
        kind = OTHERS.get(page.photometric, other)
        what = f"{kind} (tag PhotometricInterpretation {int(page.photometric)})"
    elif len(set(samples)) > 1:
        what = f"an image whose samples have {', '.join(map(str, samples))} bits (BitsPerSample)"
    elif len(set(formats)) > 1 or form not in (1, 3):
        signed = "signed integers" if form == 2 else "another kind of numbers"
        what = f"an image of {signed} (tag SampleFormat {form})"
    elif form == 1 and bits > 16:
        what = f"an image of {bits}-bit integers (tag BitsPerSample)"
    elif int(page.compression) not in READ:
        what = (
            f"compressed in a way that is not supported (tag Compression {int(page.compression)})"
        )
    elif int(page.compression) in CCITT and (bits, page.samplesperpixel) != (1, 1):
        what = f"an image of {bits} bits by a codec of 1 bit (tags Compression, BitsPerSample)"
    elif int(page.compression) in JPEG and bits > 12:
        what = f"a JPEG of {bits} bits, which it cannot hold (tags Compression, BitsPerSample)"
    elif form == 1 and bits not in (8, 16) and page.predictor != 1:
        what = f"an image of {bits} bits as differences (tags BitsPerSample, Predictor)"
    elif page.predictor != 1 and int(page.compression) in PLAIN:
        # Most readers take the values as they are, and tifffile adds them up.
        what = "an image of differences without compression (tags Compression, Predictor)"
    elif page.dtype is None or page.imagedepth > 1 or not page.samplesperpixel:
        what = "an image of another kind (tags BitsPerSample, ImageDepth)"
    elif int(page.planarconfig) not in (CONTIGUOUS, SEPARATE):
        what = f"an image of another kind (tag PlanarConfiguration {int(page.planarconfig)})"
    elif page.samplesperpixel > MAX_CHANNELS:
        what = f"an image of {page.samplesperpixel} samples, more than {MAX_CHANNELS}"
    elif page.photometric == PALETTE and (page.samplesperpixel > 1 or form != 1):
        what = "a palette image with other samples (tags SamplesPerPixel, SampleFormat)"
    elif page.photometric == PALETTE and np.ndim(page.colormap) != 2:
        what = "a palette image without its colours (tag ColorMap)"
    elif page.photometric == RGB and page.samplesperpixel - len(page.extrasamples) < 3:
        what = "an RGB image with fewer than three samples (tags SamplesPerPixel, ExtraSamples)"
    elif _alphas(page) and (
        len(page.extrasamples) > 1 or page.samplesperpixel != (2 if _is_gray(page) else 4)
    ):
        what = "an image with transparency and other samples (tag ExtraSamples)"
    if what:
        raise UserError(f"{name}: is {what}: {SAVE}")
    if not page.imagewidth or not page.imagelength:
        raise UserError(f"{name}: has no pixels (tags ImageWidth, ImageLength): replace it")


def _check_segments(
    page: tifffile.TiffPage, name: str, *, size: int, spans: Sequence[Span]
) -> None:
    """Raise UserError where strips or tiles are missing, cut, or within the file's tags.

    Args:
      page: Page whose tags `_check` has accepted.
      name: Path of the file.
      size: Bytes of the file.
      spans: Places of the file that hold no pixels.
    """
    starts = np.array(page.dataoffsets, np.float64)
    counts = np.array(page.databytecounts, np.float64)
    cut = starts.size != counts.size or bool(
        (counts <= 0).any() or (starts <= 0).any() or (starts + counts > size).any()
    )
    # Missing strips and tiles would be uninitialised memory.
    cut = cut or len(page.dataoffsets) < _segments(page)
    # A few bytes must not promise gigabytes.
    bits = int(np.max(page.bitspersample))
    packed = 1 if int(page.compression) == UNCOMPRESSED else MOST_PACKED
    needed = page.imagewidth * page.imagelength * page.samplesperpixel
    together = page.samplesperpixel if page.planarconfig == CONTIGUOUS else 1
    whole = page.rowsperstrip * page.imagewidth * together
    if page.is_tiled:  # which are decoded whole, and may be larger than the image
        whole = page.tilewidth * page.tilelength * together
        needed = max(needed, len(page.dataoffsets) * whole)
    if cut or needed * bits // 8 > packed * sum(page.databytecounts):
        raise UserError(
            f"{name}: cannot be decoded (the file ends before its image does): the file is broken "
            "or truncated, replace or remove it"
        )
    if packed == 1:  # what follows the last row is not read
        counts = np.minimum(counts, max(1, math.ceil(whole * bits / 8)))
    if any(((starts < span.stop) & (starts + counts > span.start)).any() for span in spans):
        raise UserError(
            f"{name}: cannot be decoded (tags StripOffsets or TileOffsets say that its pixels are "
            "its tags): the file is broken, replace or remove it"
        )


def _segments(page: tifffile.TiffPage) -> int:
    """Return the number of strips or tiles of the image."""
    planes = page.samplesperpixel if page.planarconfig == SEPARATE else 1
    if page.is_tiled:
        across = math.ceil(page.imagewidth / max(1, page.tilewidth))
        return planes * across * math.ceil(page.imagelength / max(1, page.tilelength))
    return planes * math.ceil(page.imagelength / max(1, page.rowsperstrip))


def _several(page: tifffile.TiffPage, code: int) -> tuple[int, ...]:
    value = page.tags.valueof(code, ())
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def _alphas(page: tifffile.TiffPage) -> list[int]:
    return [int(x) for x in page.extrasamples if int(x) in (ASSOCIATED, UNASSOCIATED)]


def _dtype(page: tifffile.TiffPage) -> str:
    if page.dtype.kind == "f":
        return "float32"
    return "uint8" if page.photometric == PALETTE else f"uint{max(8, page.bitspersample)}"


def _pixels(page: tifffile.TiffPage) -> Shaped[np.ndarray, "h w c"]:
    values = decoded(page) if int(page.compression) in (*IMAGES, *CCITT) else of_bytes(page)
    if values.ndim == 2:
        values = values[..., None]
    elif page.axes.startswith("S"):
        values = np.moveaxis(values, 0, 2)
    alphas = _alphas(page)
    colours = values[..., :-1] if alphas else values
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # values that are not finite are refused later
        colours = _as_gray_or_colour(page, colours)
    if alphas == [UNASSOCIATED]:
        alpha = values[..., -1].astype(colours.dtype)  # never white at zero
        colours = over_black(colours, alpha, opaque=2**page.bitspersample - 1)
    return np.ascontiguousarray(_upright(colours, _tag(page, 274, 1)))


def _as_gray_or_colour(page: tifffile.TiffPage, values: np.ndarray) -> np.ndarray:
    """Return values of which more is lighter: 8 bits, `own_range`, 16 bits or float32."""
    if page.photometric == PALETTE:
        colours = page.colormap
        colours = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
        if values.max() >= colours.shape[1]:
            raise Misfit("it has values beyond its palette, tag ColorMap")
        values = np.moveaxis(colours[:, values[..., 0].astype(int)], 0, 2)
        return values[..., :1] if (values == values[..., :1]).all() else values
    bits = 1 if values.dtype == bool else page.bitspersample
    white = 1 if values.dtype.kind == "f" else 2**bits - 1
    if values.dtype.kind == "f":
        values = values.astype(np.float32)
    elif bits < 8:
        levels = np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)
        values, white = levels[values.astype(np.uint8)], 255
    else:
        values = values.astype(np.uint8 if bits == 8 else np.uint16)
    return white - values if page.photometric == WHITE_IS_ZERO else values


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn values as a viewer shows them (TIFF 6.0, tag 274); numbers but 1 to 8 turn nothing."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values
