"""Measurements of single files of a folder: images, truth masks and regions of interest.

Gray means the mean of the channels, float32 in [0, 1] from `to_unit`. A thumbnail is gray, in gray
levels from 0 to 255, each value the mean of its cell.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from jaxtyping import Float32, Shaped

from recon_ad.data import truth
from recon_ad.data.arrays import to_unit
from recon_ad.data.decode import (
    are_colours,
    decode_image,
    decode_mask_and_rest,
    image_size,
    stored_type,
)
from recon_ad.errors import UserError

THUMB = 32  # cells along a side; from 256 px on a cell spans at least one 8 × 8 block of a JPEG

_THREADS = 4
_PIXELS_AT_A_TIME = 50_000_000  # of all threads together; a colour pixel takes up to 20 bytes
_LABELS = 32  # a mask of lower values holds class numbers, see decode_mask

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class ImageLook(NamedTuple):
    """Measurements of an image that can be decoded.

    Attributes:
      file: Path of the file.
      name: Path relative to the folder that is checked.
      defect: Folder under `test/`, "" for a training image.
      size: (height, width), px.
      channels: Number of channels of the file.
      dtype: Type of the image: uint8, uint16, float32, or uint12 for a TIFF with 12 bits.
      highest: Largest value of the decoded image, in the unit of its type.
      colourless: True if the image has several channels and all are equal.
      stored: Size of the file in bytes.
      brightness: Mean of all pixels, in [0, 1].
      contrast: Standard deviation of the gray pixels, in [0, 0.5].
      sharpness: Standard deviation of the Laplacian divided by that of the image; 0 for a constant
        image.
      digest: Digest of size, type and pixels.
      thumb: Thumbnail as in the module's docstring, resized to a square of any proportions.
      white: Value in [0, 1] that counts as 1 in brightness and contrast and as 255 in the
        thumbnail; below 1 for 12 bits stored in 16.
      colours: True if three channels are red, green and blue.
    """

    file: Path
    name: str
    defect: str
    size: tuple[int, int]
    channels: int
    dtype: str
    highest: float
    colourless: bool
    stored: int
    brightness: float
    contrast: float
    sharpness: float
    digest: bytes
    thumb: Float32[np.ndarray, "t t"]
    white: float = 1.0
    colours: bool = True

    @property
    def training(self) -> bool:
        """True for a training image."""
        return not self.defect

    def with_white(self, white: float) -> "ImageLook":
        """Return the measurements for the given white; the present white must be 1."""
        return self._replace(
            brightness=self.brightness / white,
            contrast=self.contrast / white,
            thumb=self.thumb / np.float32(white),
            white=white,
        )


class MaskLook(NamedTuple):
    """Measurements of a truth mask that can be decoded.

    Attributes:
      name: Path relative to the folder that is checked.
      size: (height, width), px.
      share: Marked share of all pixels.
      rim: Marked share of the pixels at the border.
      between: Number of pixels that are neither 0 nor the largest value, except class labels.
      lost: Number of pixels above 0 that do not count as marked.
    """

    name: str
    size: tuple[int, ...]
    share: float
    rim: float
    between: int
    lost: int


def gray(image: Shaped[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w"]:
    """Return the mean of the channels in [0, 1], one channel at a time to save memory."""
    total = to_unit(image[..., :1])[..., 0]
    if image.shape[2] == 1:
        return total
    total = total.copy()
    for channel in range(1, image.shape[2]):
        total += to_unit(image[..., channel : channel + 1])[..., 0]
    return total / np.float32(image.shape[2])


def look_at_image(file: Path, name: str, defect: str) -> ImageLook | UserError:
    """Decode and measure an image, or return the error if it cannot be decoded."""
    try:
        image = decode_image(file)
    except UserError as error:
        return error
    plane = gray(image)
    brightness, contrast = _mean_and_deviation(plane)
    edges = _mean_and_deviation(cv2.Laplacian(plane, cv2.CV_32F))[1]
    digest = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return ImageLook(
        file=file,
        name=name,
        defect=defect,
        size=image.shape[:2],
        channels=image.shape[2],
        dtype=stored_type(file) if image.dtype == np.uint16 else str(image.dtype),
        highest=float(image.max()),
        colourless=image.shape[2] > 1 and _is_colourless(image[::16]) and _is_colourless(image),
        stored=file.stat().st_size,
        brightness=brightness,
        contrast=contrast,
        sharpness=edges / contrast if contrast > 1e-6 else 0.0,
        digest=digest.digest(),
        thumb=255 * cv2.resize(plane, (THUMB, THUMB), interpolation=cv2.INTER_AREA),
        colours=are_colours(file),
    )


def look_at_mask(file: Path, name: str) -> MaskLook | UserError:
    """Decode and measure a mask, or return the error if it cannot be decoded."""
    try:
        marked, rest = decode_mask_and_rest(file)
    except UserError as error:
        return error
    lost = int(np.count_nonzero(rest))
    share, rim = float(marked.mean()), truth.rim_share(marked)
    return MaskLook(name, marked.shape, share, rim, _between(file, lost), lost)


def look_at_region(load: Callable[[], Any]) -> UserError | None:
    """Return the error of an image's region of interest, or None if it can be loaded."""
    try:
        load()
    except UserError as error:
        return error
    return None


def side_by_side(function: Callable[[_In], _Out], files: Sequence[tuple[Path, _In]]) -> list[_Out]:
    """Apply a function to each file's argument, in as many threads as memory allows.

    Args:
      function: Function of one argument that decodes the file.
      files: Each file with the function's argument.
    """
    largest = max((_pixels(file) for file, _ in files), default=0)
    threads = min(_THREADS, os.cpu_count() or 1, _PIXELS_AT_A_TIME // max(largest, 1))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        return list(pool.map(function, [argument for _, argument in files]))


def _mean_and_deviation(plane: Float32[np.ndarray, "h w"]) -> tuple[float, float]:
    """Return mean and deviation in double precision, without a double-precision copy."""
    mean, deviation = cv2.meanStdDev(plane)
    return float(mean[0, 0]), float(deviation[0, 0])


def _is_colourless(image: Shaped[np.ndarray, "h w c"]) -> bool:
    return bool((image == image[..., :1]).all())


def _pixels(file: Path) -> int:
    """Return the number of pixels by the header; 0 for a broken file, reported when decoded."""
    try:
        height, width = image_size(file)
    except UserError:
        return 0
    return height * width


def _between(file: Path, lost: int) -> int:
    """Count the pixels of `MaskLook.between`."""
    try:
        image = decode_image(file)
    except UserError:  # values that only a mask may have, such as wide integers
        return lost
    levels = image.max(axis=2)
    if not lost and (levels.max() < _LABELS or image.shape[2] > 1):  # numbers or colours of classes
        return 0
    return int(np.count_nonzero((levels > 0) & (levels < levels.max())))
