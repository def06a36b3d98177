"""Decoding of image files to images (`recon_ad.data.arrays`), and of masks to bool [h, w].

PNG, JPEG, TIFF and BMP, gray or colour, and NumPy's .npy: 8 and 16 bits, floating point (TIFF and
.npy), palettes, transparency, any number of channels (a TIFF with a gray page for each channel, or
.npy). An EXIF orientation is applied, so that an array's rows are what a viewer shows as rows. A
file that cannot be decoded faithfully is refused by name rather than converted silently.
"""

import logging
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image, UnidentifiedImageError

from recon_ad.data import jpeg, png, tiff
from recon_ad.data.arrays import InputRange, as_image, over_black
from recon_ad.data.npy import MAGIC, MAX_CHANNELS, mapped_array
from recon_ad.errors import UserError
from recon_ad.runtime.files import NotRegularError, open_regular

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy"})
_FORMATS = ("PNG", "JPEG", "BMP")  # of Pillow; TIFF is in `data.tiff`
_WANTED = "a PNG, JPEG, TIFF, BMP or .npy file"
# Pillow's JPEG reader reports MPO for a camera's JPEG with an appended preview.
_JPEG = ("JPEG", "MPO")

# Pillow warns from 89 million pixels on and refuses twice that, which a line-scan camera exceeds.
# One gigapixel (1 to 3 GB decoded) is the limit here; a header that promises more is refused.
MAX_PIXELS = 2**30
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Pillow warns about files that it still decodes (odd EXIF fields, for example). One filter for the
# process: warnings.catch_warnings is not safe in threads, and threads are where images are decoded.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("imagecodecs").disabled = True  # silences libpng's warnings

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


def decode_image(
    path: str | os.PathLike[str],
    *,
    channels: int | None = None,
    input_range: InputRange | None = None,
) -> Shaped[np.ndarray, "h w c"]:
    """Decode an image file to [h, w, c]: uint8, uint16, or float32 in [0, 1].

    Transparency is laid over black. A palette becomes its colours, or gray if all colours that
    occur are gray. Three channels are red, green and blue, also in .npy, unless a TIFF says that
    they are gray.

    Args:
      path: File of a kind that the module's docstring lists. The content decides, not the suffix.
      channels: Number of channels that the image has to have. 1 turns RGB to gray by luma (ITU-R
        601: 0.299 R + 0.587 G + 0.114 B), and 3 repeats gray. The file has to have any other number
        itself, and it has to have one channel if its channels are not colours. None keeps the
        file's.
      input_range: Values in the file that mean black and white, see `as_image`. None uses what the
        file states: a TIFF of 12 bits has its white at 4095.

    Raises:
      UserError: If the file is missing, broken, truncated or of an unsupported kind, or if its
        values or channels are not the requested ones.
    """
    check_channels(channels)
    name = os.fspath(path)
    found = _decoded(name)
    pixels = _with_channels(found, channels, name)
    return as_image(pixels, name=name, input_range=input_range or found.own_range)


def decode_mask(path: str | os.PathLike[str]) -> Bool[np.ndarray, "h w"]:
    """Decode a truth mask or a region of interest to bool [h, w], True where marked.

    The largest channel of each pixel counts. A file whose largest value is below 32 holds labels (0
    and 1, or one number for each defect class): everything above 0 is marked. Other files are cut
    at half their largest value, which is 127.5 for the usual 0 and 255. JPEG is always cut at 127,
    since its compression leaves some gray levels of noise, also in an empty mask. In a palette
    everything but black is marked.

    Raises:
      UserError: As for `decode_image`.
    """
    return decode_mask_and_rest(path)[0]


def decode_mask_and_rest(
    path: str | os.PathLike[str],
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Decode a mask as `decode_mask` does, and the pixels that are neither black nor marked.

    Such gray levels may have been meant as marked.
    """
    name = os.fspath(path)
    found = _decoded(name)
    levels = found.pixels.max(axis=2)
    if not np.isfinite(levels).all():
        raise UserError(f"{name}: the mask holds NaN or infinite values: draw it anew")
    if found.kind in _JPEG:
        marked = levels > 127
    elif found.kind == "P" or levels.max() < 32:
        marked = levels > 0
    else:
        marked = levels > levels.max() / 2
    return marked, (levels > 0) & ~marked


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return (height, width) in pixels as `decode_image` gives them, from the header alone.

    Raises:
      UserError: If the file is missing or its header is not that of a supported image.
    """
    name = os.fspath(path)
    magic = _magic(name)
    if magic.startswith(MAGIC):
        height, width = mapped_array(name).shape[:2]
        return height, width
    if magic.startswith(tiff.MAGICS):
        with tiff.opened(name, max_pixels=MAX_PIXELS) as header:
            return header.height, header.width
    with _opened(name) as image:
        width, height = image.size
        return (width, height) if _orientation(image) in (5, 6, 7, 8) else (height, width)


def are_colours(path: str | os.PathLike[str]) -> bool:
    """Return whether three channels of a file are red, green and blue, from the header.

    Raises:
      UserError: As for `image_size`.
    """
    name = os.fspath(path)
    if not _magic(name).startswith(tiff.MAGICS):
        return True
    with tiff.opened(name, max_pixels=MAX_PIXELS) as header:
        return tiff.are_colours(header)


def stored_type(path: str | os.PathLike[str]) -> str:
    """Return the type of an image's values in its file, from the header.

    It is "uint8", "uint16", "float32", …, or "uint12" for a TIFF of 12 bits.

    Raises:
      UserError: As for `image_size`.
    """
    name = os.fspath(path)
    magic = _magic(name)
    if magic.startswith(MAGIC):
        return str(mapped_array(name).dtype)
    if magic.startswith(tiff.MAGICS):
        with tiff.opened(name, max_pixels=MAX_PIXELS) as header:
            return header.dtype
    with _opened(name) as image:
        deep = image.mode.startswith("I;16") or png.has_16_bit_colour(image)
        return "uint16" if deep else "uint8"


def check_channels(channels: int | None) -> None:
    """Raise `UserError` for a number of channels that no image has."""
    if channels is not None and not 1 <= channels <= MAX_CHANNELS:
        raise UserError(
            f"channels is {channels}: give 1 (gray), 3 (RGB), the number that all files have (up "
            f"to {MAX_CHANNELS}), or none to go by the files"
        )


class _Decoded(NamedTuple):
    """The content of an image file.

    Attributes:
      pixels: The file's own values, all channels.
      kind: "P" for a palette, else the format.
      own_range: Values that mean black and white, where the file states them.
      colours: Whether three channels are red, green and blue.
    """

    pixels: Shaped[np.ndarray, "h w c"]
    kind: str
    own_range: InputRange | None = None
    colours: bool = True


def _decoded(name: str) -> _Decoded:
    magic = _magic(name)
    if magic.startswith(MAGIC):
        return _Decoded(np.array(mapped_array(name)), "NPY")
    if magic.startswith(tiff.MAGICS):
        with tiff.opened(name, max_pixels=MAX_PIXELS) as header:
            kind = "P" if tiff.is_palette(header) else "TIFF"
            pixels, colours = tiff.pixels_of(header), tiff.are_colours(header)
            return _Decoded(pixels, kind, tiff.own_range(header), colours)
    with _opened(name) as image:
        if _least_bytes(image, name) > os.path.getsize(name):
            # Checked before memory for the promised pixels is allocated.
            raise SyntaxError("image file is truncated")
        kind = "P" if image.mode == "P" else str(image.format)
        return _Decoded(_pixels(image, name), kind)


def _with_channels(found: _Decoded, channels: int | None, name: str) -> Shaped[np.ndarray, "h w k"]:
    pixels, have = found.pixels, found.pixels.shape[2]
    if channels in (None, have):
        return pixels
    if (have, channels) == (1, 3):
        return np.repeat(pixels, 3, axis=2)
    if (have, channels) != (3, 1):
        raise UserError(f"{name}: has {have} channels and not {channels}: give images of one kind")
    if not found.colours:
        raise UserError(
            f"{name}: has 3 channels of gray, which are no colours and cannot become one gray: "
            "save the channel that is meant, or set config.data.channels=3"
        )
    if pixels.dtype == np.uint8:
        return np.array(Image.fromarray(pixels).convert("L"))[..., None]
    with np.errstate(invalid="ignore"):  # NaN is refused later
        luma = pixels @ np.array([0.299, 0.587, 0.114])
    # The weights add up to a little more than 1 in binary, and white must not become whiter.
    luma = np.clip(luma, pixels.min(axis=2), pixels.max(axis=2))
    if np.issubdtype(pixels.dtype, np.integer):
        luma = np.rint(luma)
    return luma.astype(pixels.dtype)[..., None]


def _magic(name: str) -> bytes:
    """Return the first bytes of a regular file that can be read."""
    try:
        with open_regular(name) as file:
            return file.read(8)
    except NotRegularError as error:
        raise UserError(f"{name}: is not a regular file: give an image file") from error
    except FileNotFoundError as error:
        if os.path.islink(name):
            raise UserError(
                f"{name}: is a link to {os.readlink(name)}, which does not exist: mend or remove it"
            ) from error
        raise UserError(f"{name}: file not found: check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{name}: is a folder with the name of an image: rename it") from error
    except OSError as error:
        raise UserError(
            f"{name}: cannot be read ({error.strerror}): give a file that you may read"
        ) from error


@contextmanager
def _opened(name: str) -> Iterator[Image.Image]:
    """Open a supported image; Pillow's errors become a `UserError` with the path."""
    try:
        png.check_chunks(name)
        with open(name, "rb") as file, Image.open(file, formats=_FORMATS) as image:
            _check_supported(image, name)
            yield image
    except UnidentifiedImageError as error:
        magic = _magic(name)
        what = "not an image that can be decoded" if magic else "an empty file (0 bytes)"
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
    if "progressive" in image.info and (scans := jpeg.scans(name)) > jpeg.MAX_SCANS:
        raise UserError(
            f"{name}: is a JPEG of {scans} scans, more than the {jpeg.MAX_SCANS} that are decoded: "
            "each takes as long as a whole image; save it anew"
        )
    # Pages of an animated PNG; a JPEG's further pages are previews.
    pages = 1 if image.format in _JPEG else getattr(image, "n_frames", 1)
    if pages > 1:
        raise UserError(
            f"{name}: holds {pages} pages, which is supported for gray TIFF (a page for each "
            "channel): save each page as a separate file"
        )


def _least_bytes(image: Image.Image, name: str) -> int:
    """Return the least length in bytes of a complete file with that header."""
    if image.format in _JPEG:
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


def _pixels(image: Image.Image, name: str) -> Shaped[np.ndarray, "h w c"]:
    """Decode an opened image, upright, with transparency over black and a gray palette as gray."""
    # Before loading: image_size has to agree, and chunks behind the pixels do not count.
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
    if image.format in _JPEG:
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
