"""Similarities between a template and images of the same part, and resampling by them.

Images are [h, w, c] as in `recon_ad.data.arrays`, gray ones float32 [h, w] in [0, 1]; masks are
bool [h, w], True where pixels count. A matrix is float64 [2, 3] and maps (x, y, 1) of the template
to (x, y) of the image, in px, pixel centres at whole numbers.
"""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Shaped

from recon_ad.errors import UserError

Gray = Float[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]
Matrix = Float[np.ndarray, "2 3"]


class TooLittle(UserError):
    """What a template shows is too little to find a part by."""


class Template(NamedTuple):
    """What parts are aligned to.

    Attributes:
      gray: float32 [h, w] in [0, 1].
      mask: pixels that belong to the part.
    """

    gray: Gray
    mask: Mask


def corners(matrix: Matrix, shape: tuple[int, int]) -> Float[np.ndarray, "4 2"]:
    """Where the template's corners are in the image, (x, y) in px."""
    h, w = shape
    points = np.array([[0, 0, 1], [w - 1, 0, 1], [0, h - 1, 1], [w - 1, h - 1, 1]], float)
    return points @ matrix.T


def similarity(
    *,
    angle: float | int,
    scale: float | int,
    shift: tuple[float | int, float | int],
    shape: tuple[int, int],
) -> Matrix:
    """The matrix that turns the template about its middle, scales it, and shifts it.

    Args:
      angle: degrees, counter-clockwise as one sees the image.
      scale: of the part in the image, 1 for the template's own.
      shift: of its middle, (x, y) in px.
      shape: the template's height and width.
    """
    middle = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    a, b = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    turned = np.array([[a, b], [-b, a]])
    return np.column_stack([turned, middle + shift - turned @ middle])


def angle_of(matrix: Matrix) -> float:
    """Degrees, counter-clockwise as one sees the image."""
    return float(np.degrees(np.arctan2(-matrix[1, 0], matrix[0, 0])))


def scale_of(matrix: Matrix) -> float:
    """Of the part in the image, 1 for the template's own."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def align(
    image: Shaped[np.ndarray, "h w c"],
    matrix: Matrix,
    shape: tuple[int, int],
    *,
    valid: Mask | None = None,
) -> tuple[Shaped[np.ndarray, "h2 w2 c"], Bool[np.ndarray, "h2 w2"]]:
    """The image as the template shows it, and which pixels of that were in the picture.

    Args:
      image: that was registered; its type stays.
      matrix: from the template to the image.
      shape: the template's height and width.
      valid: pixels of the image that are of the picture; None: all are.
    """
    seen = within(np.ones(image.shape[:2], bool) if valid is None else valid, 1)
    channels = [  # behind the image's border it goes on as it ends
        cv2.warpAffine(
            np.ascontiguousarray(image[..., c]),
            matrix,
            shape[::-1],
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for c in range(image.shape[2])
    ]
    aligned = np.stack(channels, axis=-1)
    if aligned.dtype == np.float32:  # cubic interpolation overshoots
        aligned = np.clip(aligned, 0, 1)
    return aligned, seen_by(seen, matrix, shape)


def unalign(
    anomaly_map: Float[np.ndarray, "h w"],
    matrix: Matrix,
    shape: tuple[int, int],
    *,
    fill: float | int,
) -> Float[np.ndarray, "h2 w2"]:
    """A map of the aligned image as one of the image itself.

    Args:
      anomaly_map: of the template's size.
      matrix: from the template to the image.
      shape: the image's height and width.
      fill: value where the template is not.
    """
    return cv2.warpAffine(
        anomaly_map, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderValue=float(fill)
    )


def warp(
    image: Float[np.ndarray, "h w"], matrix: Matrix, shape: tuple[int, int]
) -> Float[np.ndarray, "h2 w2"]:
    """What the matrix maps to, 0 where nothing is."""
    return cv2.warpAffine(image, matrix, shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def within(valid: Mask, reach: int) -> Mask:
    """Pixels with none so near that is not valid, or beyond the image's border."""
    around = np.ones((2 * reach + 1,) * 2)
    eroded = cv2.erode(
        valid.astype(np.uint8), around, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    return eroded > 0


def seen_by(valid: Mask, matrix: Matrix, shape: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """Pixels all of whose neighbours in the image are of the picture."""
    return warp(valid.astype(np.float32), matrix, shape) > 0.999


def resized(image: Shaped[np.ndarray, "h w"], factor: float | int) -> Shaped[np.ndarray, "h2 w2"]:
    """A mask stays one: what is partly outside is outside."""
    if factor == 1:
        return image
    # By the factor itself: a size that is rounded would scale rows and columns differently.
    small = cv2.resize(
        image.astype(np.float32), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA
    )
    return small > 0.999 if image.dtype == bool else small


def shrunk(template: Template, side: int) -> tuple[Template, float]:
    """The template with that longer side, if its own is not shorter, and the factor."""
    factor = min(1.0, side / max(template.gray.shape))
    return Template(resized(template.gray, factor), resized(template.mask, factor)), factor


def scaled(matrix: Matrix, factor: float | int) -> Matrix:
    """The matrix between template and image that are both smaller by that factor."""
    # Pixel centres are at whole numbers, so that the picture's corner is at −½.
    turned, shift = matrix[:, :2], matrix[:, 2]
    half = (factor - 1) / 2
    return np.column_stack([turned, factor * shift + half - turned @ np.full(2, half)])


def size_text(shape: tuple[int, ...]) -> str:
    """Width and height, as 640x480."""
    return f"{shape[1]}x{shape[0]}"
