"""Image files to arrays: images [h, w, c] uint8, truth masks [h, w] bool, sizes in px.

PNG, JPEG, TIFF and BMP with 8 bits per channel, gray or RGB. An EXIF orientation is applied, so
that an array's rows are what a viewer shows as rows. Whatever cannot be decoded faithfully is
refused by name rather than converted silently.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError

from recon_ad.errors import UserError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
# Pillow's JPEG reader says MPO of a camera's JPEG that has a preview appended.
_JPEG = ("JPEG", "MPO")

# Pillow warns from 89 million pixels on and refuses twice that, which a line-scan camera exceeds.
# One gigapixel (1 to 3 GB decoded) is the limit here; a header that promises more is refused.
MAX_PIXELS = 2**30
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
# Pillow's remarks on files that it decodes all the same (odd EXIF fields, say). One filter for the
# process: warnings.catch_warnings is not safe in threads, and threads are where images are decoded.
warnings.filterwarnings("ignore", module=r"PIL\.")

# What Pillow's readers raise on damaged files, beside OSError.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# Pillow mode of the file -> mode whose bytes are handed out.
_MODES = {"1": "L", "L": "L", "RGB": "RGB"}
_REFUSED = {
    "P": "a palette image",
    "PA": "a palette image with transparency",
    "LA": "gray with transparency",
    "RGBA": "RGB with transparency",
    "CMYK": "a CMYK image",
    "YCbCr": "a YCbCr image",
    "LAB": "a CIELAB image",
    "F": "a floating-point image",
    "I": "an image with more than 8 bits per channel",
}

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
    path: str | os.PathLike[str], *, channels: int | None = None
) -> UInt8[np.ndarray, "h w c"]:
    """Decodes an image file to [h, w, c] uint8, c = 1 (gray) or 3 (RGB).

    Args:
      path: a PNG, JPEG, TIFF or BMP file; the content decides, not the suffix.
      channels: 1 or 3 converts: RGB to gray by Pillow's luma (ITU-R 601: 0.299 R + 0.587 G +
        0.114 B), gray to RGB by repetition. None keeps what the file has.

    Raises:
      UserError: the file is missing, broken or truncated, or its pixels are not 8-bit gray or RGB.
    """
    check_channels(channels)
    with _opened(path) as image:
        return _pixels(image, channels)


def decode_mask(path: str | os.PathLike[str]) -> Bool[np.ndarray, "h w"]:
    """Decodes a truth mask to bool [h, w], True where defective.

    Colours are turned to gray first. A file whose largest value is below 32 holds labels (0 and 1,
    or one number for each defect class): everything above 0 is defective. Other files are cut at
    half their largest value, which is 127.5 for the usual 0 and 255. JPEG is cut at 127 whatever it
    holds: its compression leaves some gray levels of noise, also in an empty mask.

    Raises:
      UserError: as `decode_image`.
    """
    with _opened(path) as image:
        lossy = image.format in _JPEG
        levels = _pixels(image, 1)[..., 0]
    largest = int(levels.max())
    if lossy:
        cut = 127.0
    elif largest < 32:
        cut = 0.0
    else:
        cut = largest / 2
    return levels > cut


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Returns (height, width) in pixels as `decode_image` will give them, from the header alone.

    Raises:
      UserError: the file is missing or its header is not that of a supported image.
    """
    with _opened(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def check_channels(channels: int | None) -> None:
    """Raises `UserError` unless `channels` is 1, 3 or None."""
    if channels not in (None, 1, 3):
        raise UserError(f"channels is {channels}: give 1 (gray), 3 (RGB) or None (as in the files)")


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Opens a supported image; what Pillow raises inside becomes a `UserError` with the path."""
    name = os.fspath(path)
    try:
        # Not by path: Pillow would map an uncompressed gray TIFF into memory, height and width
        # exchanged where its orientation is a quarter turn, and the pixels come out scrambled.
        with open(name, "rb") as file, Image.open(file, formats=_FORMATS) as image:
            _check_supported(image, name)
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{name}: there is no such file") from error
    except UnidentifiedImageError as error:
        empty = os.path.getsize(name) == 0
        what = "an empty file (0 bytes)" if empty else "not an image that can be decoded"
        raise UserError(
            f"{name}: is {what}: replace it by a PNG, JPEG, TIFF or BMP file, or remove it"
        ) from error
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
    supported = "8-bit gray and RGB are supported, convert the file"
    if image.width * image.height > MAX_PIXELS:
        raise UserError(
            f"{name}: has {image.width} × {image.height} pixels, more than the {MAX_PIXELS} that "
            "are decoded: cut it into smaller files"
        )
    # An animated PNG or a TIFF of several pages; an MPO's further pages are previews.
    if image.format not in _JPEG and getattr(image, "is_animated", False):
        raise UserError(f"{name}: holds several pages: save each as a file of its own")
    if image.mode not in _MODES:
        family = image.mode.split(";")[0]
        what = _REFUSED.get(family, "an image of another kind")
        raise UserError(f"{name}: is {what} ({image.format}, mode {image.mode}): {supported}")
    if _bits(image) > 8:
        raise UserError(f"{name}: has {_bits(image)} bits per channel: {supported}")


def _bits(image: Image.Image) -> int:
    """Bits per channel in the file, where Pillow would drop the lower half without a word (RGB)."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,)))
    if image.format == "PNG":
        return 16 if any(tile[3] == "RGB;16B" for tile in image.tile) else 8
    return 8


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, that is still to be applied."""
    if image.format == "TIFF":
        return 1  # Pillow's TIFF reader applies it itself, to the size as well
    if image.format == "PNG" and "exif" not in image.info:
        # Pillow would decode the whole file here, in search of a chunk behind the pixels.
        return 1
    return image.getexif().get(0x0112, 1)


def _pixels(image: Image.Image, channels: int | None) -> UInt8[np.ndarray, "h w c"]:
    orientation = _orientation(image)  # before loading, so that image_size agrees in every case
    image.load()
    picture: Image.Image = image
    if orientation in _TRANSPOSE:
        picture = picture.transpose(_TRANSPOSE[orientation])
    mode = "L" if channels == 1 else _MODES[image.mode]
    if picture.mode != mode:
        picture = picture.convert(mode)
    pixels = np.array(picture)  # a copy: asarray's would be read-only
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return np.repeat(pixels, 3, axis=2) if channels == 3 and pixels.shape[2] == 1 else pixels
