"""Decoding of image files to images (`recon_ad.data.arrays`), and of masks to bool [h, w].

PNG, JPEG, TIFF and BMP, gray or colour, and NumPy's .npy: 8 and 16 bits, floating point (TIFF and
.npy), palettes, transparency, any number of channels (a TIFF with a gray page for each channel, or
.npy). An EXIF orientation is applied, so that an array's rows are what a viewer shows as rows. A
file that cannot be decoded faithfully is refused by name rather than converted silently.
"""

import logging
import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image

from recon_ad.data import pillow_files, png, tiff
from recon_ad.data.arrays import InputRange, as_image
from recon_ad.data.npy import MAGIC, MAX_CHANNELS, mapped_array
from recon_ad.errors import UserError
from recon_ad.limits import MAX_PIXELS
from recon_ad.runtime.files import NotRegularError, open_regular

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npy"})
logging.getLogger("imagecodecs").disabled = True  # silences libpng's warnings


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
    if found.kind in pillow_files.JPEGS:
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
    with pillow_files.opened(name) as image:
        return pillow_files.size_of(image)


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
    with pillow_files.opened(name) as image:
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
    with pillow_files.opened(name) as image:
        kind = "P" if image.mode == "P" else str(image.format)
        return _Decoded(pillow_files.pixels_of(image, name), kind)


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
