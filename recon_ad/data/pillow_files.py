"""PNG, JPEG and BMP files, which Pillow reads: what is supported, and their pixels."""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Shaped
from PIL import Image, UnidentifiedImageError

from recon_ad.data import jpeg, png
from recon_ad.data.arrays import over_black
from recon_ad.errors import UserError
from recon_ad.limits import MAX_PIXELS

_FORMATS = ("PNG", "JPEG", "BMP")
_WANTED = "a PNG, JPEG, TIFF, BMP or .npy file"
# Pillow's JPEG reader reports MPO for a camera's JPEG with an appended preview.
JPEGS = ("JPEG", "MPO")
# px of a BMP of run lengths, which Pillow decodes in Python; a file of 5 kB may promise a gigapixel
MAX_OF_RUNS = 1 << 23

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Pillow warns about files that it still decodes (odd EXIF fields, for example). One filter for the
# process: warnings.catch_warnings is not safe in threads, and threads are where images are decoded.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Exceptions of Pillow's readers for damaged files, beside OSError.
_BROKEN = (
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

_GRAY = ("1", "L", "I;16", "I;16B")
# Pillow mode of the file -> mode that holds all of it, 8 bits per channel.
_COLOUR = {"RGB": "RGB", "RGBA": "RGBA", "LA": "LA", "P": "RGB", "PA": "RGBA"}
_REFUSED = {"CMYK": "a CMYK image", "I": "an image of 32-bit integers"}

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def opened(name: str) -> Iterator[Image.Image]:
    """Open a supported image; Pillow's errors become a `UserError` with the path."""
    try:
        png.check_chunks(name)
        jpeg.check_header(name)
        with open(name, "rb") as file, Image.open(file, formats=_FORMATS) as image:
            _check_supported(image, name)
            yield image
    except UnidentifiedImageError as error:
        what = "an empty file (0 bytes)"
        if os.path.getsize(name):
            what = "not an image that can be decoded"
        raise UserError(f"{name}: is {what}: replace it by {_WANTED}, or remove it") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not Pillow's
            raise UserError(
                f"{name}: cannot be read ({error.strerror}): give a file that you may read"
            ) from error
        raise UserError(
            f"{name}: cannot be decoded ({error}): the file is broken or truncated, replace or "
            "remove it"
        ) from error


def _check_supported(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{name}: has {image.width} × {image.height} pixels, more than the {MAX_PIXELS} that "
            "are decoded: cut it into smaller files"
        )
    if image.mode not in (*_GRAY, *_COLOUR):
        family = image.mode.split(";")[0]
        what = _REFUSED.get(family, "an image of another kind")
        raise UserError(
            f"{name}: is {what} ({image.format}, mode {image.mode}): save it as gray or RGB of 8 "
            "or 16 bits, or as floats"
        )
    png.check_side(image, name)
    _check_runs(image, name)
    # Pages of an animated PNG; a JPEG's further pages are previews.
    pages = 1 if image.format in JPEGS else getattr(image, "n_frames", 1)
    if pages > 1:
        raise UserError(
            f"{name}: holds {pages} pages, which is supported for gray TIFF (a page for each "
            "channel): save each page as a separate file"
        )


def _check_runs(image: Image.Image, name: str) -> None:
    """Raise UserError for a BMP whose run lengths take long to decode."""
    if all(tile[0] != "bmp_rle" for tile in image.tile):
        return
    pixels = image.width * image.height
    if pixels > MAX_OF_RUNS:
        raise UserError(
            f"{name}: is a BMP of run lengths with {pixels} pixels, more than the {MAX_OF_RUNS} "
            "that are decoded: save it as PNG"
        )
    # Two bytes for each pixel and for the end of each row; a megabyte of others takes no time.
    if os.path.getsize(name) > 2 * (pixels + image.height) + (1 << 20):
        raise SyntaxError("it has more run lengths than pixels")


def _least_bytes(image: Image.Image, name: str) -> int:
    """Return the least length in bytes of a complete file with that header."""
    if image.format in JPEGS:
        return image.width * image.height // jpeg.BLOCK_BITS
    if image.format == "BMP":  # run lengths can skip any number of pixels
        bits = 16 if image.mode.startswith("RGB") else 1
        return image.width * image.height * bits // 8 if image.tile[0][0] == "raw" else 0
    return png.least_bytes(image, name)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, that still has to be applied."""
    if image.format == "PNG" and "exif" not in image.info:
        # Pillow would decode the whole file here, in search of a chunk behind the pixels.
        return 1
    found = image.getexif().get(0x0112, 1)
    return found if isinstance(found, int) else 1  # a text, for example, turns nothing


def size_of(image: Image.Image) -> tuple[int, int]:
    """Return the height and width of an opened image as `pixels_of` gives them, from the header."""
    width, height = image.size
    return (width, height) if _orientation(image) in (5, 6, 7, 8) else (height, width)


def _entries(image: Image.Image) -> int:
    """Return the number of colours in the palette of an image that is not yet loaded."""
    if image.mode != "P" or image.palette is None:
        return 256
    return len(image.palette.palette) // len(image.palette.rawmode or "RGB")


def _check_palette(image: Image.Image, entries: int, name: str) -> None:
    """Raise UserError if pixels of a loaded image are beyond its palette, which Pillow fills up."""
    most = image.getextrema()[1] if image.mode == "P" and entries < 256 else 0
    if most >= entries:
        raise UserError(
            f"{name}: cannot be decoded (its palette has {entries} colours, and a pixel has number "
            f"{most}): save the image anew"
        )


def pixels_of(image: Image.Image, name: str) -> Shaped[np.ndarray, "h w c"]:
    """Decode an opened image, upright, with transparency over black and a gray palette as gray."""
    if _least_bytes(image, name) > os.path.getsize(name):
        # Checked before memory for the promised pixels is allocated.
        raise SyntaxError("image file is truncated")
    png.check_count(name)
    # Before loading: `size_of` has to agree, and chunks behind the pixels do not count.
    orientation, clear = _orientation(image), png.clear_colour(image)
    has_alphas = image.mode == "P" and "transparency" in image.info
    if png.has_16_bit_colour(image):
        if orientation in _TRANSPOSE:
            raise UserError(
                f"{name}: is turned by its EXIF orientation, which is not supported for colour of "
                "16 bits: save it upright"
            )
        image.load()  # reports a truncated file more clearly
        return png.deep_colour(name)
    if image.format in JPEGS:
        jpeg.load_file(image, name)
    entries = _entries(image)
    image.load()
    _check_palette(image, entries, name)
    picture: Image.Image = image
    if orientation in _TRANSPOSE:
        picture = picture.transpose(_TRANSPOSE[orientation])
    if image.mode in _GRAY:
        values = np.array(picture.convert("L") if image.mode == "1" else picture)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return png.clear_to_black(values[..., None], clear)
    mode = _COLOUR[image.mode]
    if image.format == "BMP" and mode == "RGBA" and not np.asarray(picture)[..., 3].any():
        # Frame grabbers leave the fourth byte at 0, and viewers show the picture.
        mode = "RGB"
    if has_alphas:
        mode = "RGBA"
    pixels = np.array(picture.convert(mode) if picture.mode != mode else picture)
    if mode in ("RGBA", "LA"):
        pixels = over_black(pixels[..., :-1], pixels[..., -1])
    if image.mode in ("P", "PA") and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    return png.clear_to_black(np.ascontiguousarray(pixels), clear)
