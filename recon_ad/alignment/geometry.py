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
    """Error for a template that shows too little to find a part."""


class Template(NamedTuple):
    """Reference that parts are aligned to.

    Attributes:
      gray: Gray image, float32 [h, w] in [0, 1].
      mask: Mask of the pixels that belong to the part.
    """

    gray: Gray
    mask: Mask


def corners(matrix: Matrix, shape: tuple[int, int]) -> Float[np.ndarray, "4 2"]:
    """Return the positions of the template's corners in the image, (x, y) in px."""
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
    """Return the matrix that rotates the template about its middle, scales it, and shifts it.

    Args:
      angle: Rotation in degrees, counter-clockwise as the image is viewed.
      scale: Scale of the part in the image, 1 for the template's own.
      shift: Shift of its middle, (x, y) in px.
      shape: Height and width of the template.
    """
    middle = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    a, b = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    turned = np.array([[a, b], [-b, a]])
    return np.column_stack([turned, middle + shift - turned @ middle])


def angle_of(matrix: Matrix) -> float:
    """Return the rotation in degrees, counter-clockwise as the image is viewed."""
    return float(np.degrees(np.arctan2(-matrix[1, 0], matrix[0, 0])))


def scale_of(matrix: Matrix) -> float:
    """Return the scale of the part in the image, 1 for the template's own."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def align(
    image: Shaped[np.ndarray, "h w c"],
    matrix: Matrix,
    shape: tuple[int, int],
    *,
    valid: Mask | None = None,
) -> tuple[Shaped[np.ndarray, "h2 w2 c"], Bool[np.ndarray, "h2 w2"]]:
    """Return the image in the template's frame, and the mask of the pixels that lie in the image.

    Args:
      image: Registered image, whose type is kept.
      matrix: Matrix from the template to the image.
      shape: Height and width of the template.
      valid: Mask of the image's pixels that show something. None counts all.
    """
    seen = within(np.ones(image.shape[:2], bool) if valid is None else valid, 1)
    channels = [  # beyond the border, the image continues with its border pixels
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
    """Return a map of the aligned image in the frame of the original image.

    Args:
      anomaly_map: Map of the template's size.
      matrix: Matrix from the template to the image.
      shape: Height and width of the image.
      fill: Value of pixels outside the template.
    """
    return cv2.warpAffine(
        anomaly_map, matrix, shape[::-1], flags=cv2.INTER_LINEAR, borderValue=float(fill)
    )


def warp(
    image: Float[np.ndarray, "h w"], matrix: Matrix, shape: tuple[int, int]
) -> Float[np.ndarray, "h2 w2"]:
    """Sample the image at the points that the matrix maps to, with 0 outside the image."""
    return cv2.warpAffine(image, matrix, shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def within(valid: Mask, reach: int) -> Mask:
    """Return pixels without an invalid pixel or the image's border within `reach` px."""
    around = np.ones((2 * reach + 1,) * 2)
    eroded = cv2.erode(
        valid.astype(np.uint8), around, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    return eroded > 0


def seen_by(valid: Mask, matrix: Matrix, shape: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """Return the pixels whose neighbours in the image are all valid."""
    return warp(valid.astype(np.float32), matrix, shape) > 0.999


def resized(image: Shaped[np.ndarray, "h w"], factor: float | int) -> Shaped[np.ndarray, "h2 w2"]:
    """Resize an image or a mask; pixels of a mask that are only partly inside count as outside."""
    if factor == 1:
        return image
    # Uses the factor itself, because a rounded size would scale rows and columns differently.
    small = cv2.resize(
        image.astype(np.float32), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA
    )
    return small > 0.999 if image.dtype == bool else small


def shrunk(template: Template, side: int) -> tuple[Template, float]:
    """Return the template, reduced to this longer side unless it is shorter, and the factor."""
    factor = min(1.0, side / max(template.gray.shape))
    return Template(resized(template.gray, factor), resized(template.mask, factor)), factor


def scaled(matrix: Matrix, factor: float | int) -> Matrix:
    """Return the matrix between a template and an image that are both scaled by the factor."""
    # Pixel centres are at whole numbers, so the image's corner is at −½.
    turned, shift = matrix[:, :2], matrix[:, 2]
    half = (factor - 1) / 2
    return np.column_stack([turned, factor * shift + half - turned @ np.full(2, half)])


def size_text(shape: tuple[int, ...]) -> str:
    """Return width and height as text, such as 640x480."""
    return f"{shape[1]}x{shape[0]}"
