"""What one file of a folder holds, in a few figures: images, truth masks and regions.

Gray means the mean of the channels, float32 in [0, 1] as `to_unit` has it. A thumbnail is gray, in
gray levels from 0 to 255, each value the mean of its cell.
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

THUMB = 32  # cells a side: with 256 px or more a cell holds whole 8 × 8 blocks of a JPEG

_THREADS = 4
_PIXELS_AT_A_TIME = 50_000_000  # of all threads; colour takes up to some 20 bytes for each
_LABELS = 32  # a mask of lower values holds class numbers, see decode_mask

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class ImageLook(NamedTuple):
    """An image that can be decoded.

    Attributes:
      file: where it is.
      name: relative to the folder that is checked.
      defect: the folder under `test/`, "" for a training image.
      size: (height, width), px.
      channels: of the file.
      dtype: of the image: uint8, uint16, float32, or uint12 where a TIFF has 12 bits.
      highest: the largest value of the decoded image, in the unit of its type.
      colourless: several channels, and all of them the same.
      stored: bytes of the file.
      brightness: mean of all pixels, in [0, 1].
      contrast: standard deviation of the gray pixels, in [0, 0.5].
      sharpness: standard deviation of the Laplacian over that of the image, 0 for a constant image.
      digest: of size, type and pixels.
      thumb: see the module; squeezed to a square, whatever the image's proportions.
      white: what stands for 1 in brightness and contrast and for 255 in the thumbnail, in [0, 1];
        less than 1 where 12 bits are kept in 16.
      colours: whether three channels are red, green and blue.
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
        """Whether it is a training image."""
        return not self.defect

    def with_white(self, white: float) -> "ImageLook":
        """The same look where `white` is white; it has to have been 1."""
        return self._replace(
            brightness=self.brightness / white,
            contrast=self.contrast / white,
            thumb=self.thumb / np.float32(white),
            white=white,
        )


class MaskLook(NamedTuple):
    """A truth mask that can be decoded.

    Attributes:
      name: relative to the folder that is checked.
      size: (height, width), px.
      share: marked pixels of all pixels.
      rim: marked pixels of those at the border.
      between: how many pixels are neither 0 nor of the largest value, labels apart.
      lost: how many are above 0 and do not count as marked.
    """

    name: str
    size: tuple[int, ...]
    share: float
    rim: float
    between: int
    lost: int


def gray(image: Shaped[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w"]:
    """The mean of the channels in [0, 1]; one channel at a time, since images can be large."""
    total = to_unit(image[..., :1])[..., 0]
    if image.shape[2] == 1:
        return total
    total = total.copy()
    for channel in range(1, image.shape[2]):
        total += to_unit(image[..., channel : channel + 1])[..., 0]
    return total / np.float32(image.shape[2])


def look_at_image(file: Path, name: str, defect: str) -> ImageLook | UserError:
    """Decodes an image and looks at it; the error where it cannot be decoded."""
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
    """Decodes a mask and looks at it; the error where it cannot be decoded."""
    try:
        marked, rest = decode_mask_and_rest(file)
    except UserError as error:
        return error
    lost = int(np.count_nonzero(rest))
    share, rim = float(marked.mean()), truth.rim_share(marked)
    return MaskLook(name, marked.shape, share, rim, _between(file, lost), lost)


def look_at_region(load: Callable[[], Any]) -> UserError | None:
    """What is wrong with an image's region of interest, if anything."""
    try:
        load()
    except UserError as error:
        return error
    return None


def side_by_side(function: Callable[[_In], _Out], files: Sequence[tuple[Path, _In]]) -> list[_Out]:
    """Applies a function to what belongs to each file, in threads: as many as memory is for.

    Args:
      function: of one argument; decodes the file.
      files: each file and the argument.
    """
    largest = max((_pixels(file) for file, _ in files), default=0)
    threads = min(_THREADS, os.cpu_count() or 1, _PIXELS_AT_A_TIME // max(largest, 1))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        return list(pool.map(function, [argument for _, argument in files]))


def _mean_and_deviation(plane: Float32[np.ndarray, "h w"]) -> tuple[float, float]:
    """In double precision, without a copy of the image in it."""
    mean, deviation = cv2.meanStdDev(plane)
    return float(mean[0, 0]), float(deviation[0, 0])


def _is_colourless(image: Shaped[np.ndarray, "h w c"]) -> bool:
    return bool((image == image[..., :1]).all())


def _pixels(file: Path) -> int:
    """By the header; 0 for a broken file, of which the looking itself will tell."""
    try:
        height, width = image_size(file)
    except UserError:
        return 0
    return height * width


def _between(file: Path, lost: int) -> int:
    """`MaskLook.between`."""
    try:
        image = decode_image(file)
    except UserError:  # values that only a mask may have, such as wide integers
        return lost
    levels = image.max(axis=2)
    if not lost and (levels.max() < _LABELS or image.shape[2] > 1):  # numbers or colours of classes
        return 0
    return int(np.count_nonzero((levels > 0) & (levels < levels.max())))
