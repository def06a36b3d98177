"""Disturbances of an image, from a little to a lot: light, focus, noise, pose, compression.

Images are [h, w, c] as in `recon_ad.data.arrays` and keep their type. Each disturbance has a ladder
of levels that grow, since `recon_ad.certification.envelope` looks for the first that is too much.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Shaped
from scipy import ndimage

from recon_ad.certification.defects import as_type
from recon_ad.data.arrays import to_unit

_Unit = Float[np.ndarray, "h w c"]


class Disturbance(NamedTuple):
    """A way in which images may change.

    Attributes:
      label: For people.
      unit: Of the levels; "" for a share.
      levels: In the order in which they grow worse.
      apply: (image in [0, 1], level, generator) -> disturbed image.
      bytes_only: True if it applies to 8-bit images of one or three channels alone.
    """

    label: str
    unit: str
    levels: tuple[float, ...]
    apply: Callable[[_Unit, float, np.random.Generator], _Unit]
    bytes_only: bool = False


def moved(image: _Unit, *, angle: float, shift: tuple[float, float]) -> _Unit:
    """Return the image turned about its middle by `angle` degrees, then shifted by x and y px."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    matrix[:, 2] += shift
    channels = [
        cv2.warpAffine(
            np.ascontiguousarray(image[..., i]), matrix, (width, height), flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        for i in range(image.shape[2])
    ]  # fmt: skip
    return np.stack(channels, axis=-1)


def noisy(image: _Unit, deviation: float, rng: np.random.Generator) -> _Unit:
    """Return the image with white noise."""
    return image + np.float32(deviation) * rng.standard_normal(image.shape, dtype=np.float32)


def _contrasted(image: _Unit, factor: float) -> _Unit:
    mean = image.mean()
    return mean + np.float32(factor) * (image - mean)


def _shifted(image: _Unit, pixels: float, rng: np.random.Generator) -> _Unit:
    direction = rng.uniform(0, 2 * np.pi)
    shift = pixels * np.cos(direction), pixels * np.sin(direction)
    return moved(image, angle=0.0, shift=shift)


def _turned(image: _Unit, degrees: float, rng: np.random.Generator) -> _Unit:
    return moved(image, angle=degrees if rng.random() < 0.5 else -degrees, shift=(0.0, 0.0))


def _compressed(image: _Unit, quality: float, rng: np.random.Generator) -> _Unit:
    pixels = as_type(image[..., ::-1], np.dtype(np.uint8))  # OpenCV's channels are BGR
    _, packed = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    found = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)
    return to_unit(found.reshape(image.shape)[..., ::-1])


SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
DISTURBANCES: Mapping[str, Disturbance] = {
    "brighter": Disturbance("brighter", "", SHARES, lambda i, x, _: i * np.float32(1 + x)),
    "darker": Disturbance("darker", "", SHARES, lambda i, x, _: i * np.float32(1 - x)),
    "more_contrast": Disturbance(
        "more contrast", "", SHARES, lambda i, x, _: _contrasted(i, 1 + x)
    ),
    "less_contrast": Disturbance(
        "less contrast", "", SHARES, lambda i, x, _: _contrasted(i, 1 - x)
    ),
    "blur": Disturbance(
        "blur (standard deviation)", "px", (0.4, 0.6, 0.8, 1.2, 2.0, 3.0),
        lambda i, x, _: ndimage.gaussian_filter(i, (x, x, 0)),
    ),
    "noise": Disturbance(
        "noise (standard deviation, of the range)", "", (0.005, 0.01, 0.02, 0.04, 0.08), noisy
    ),
    "shift": Disturbance("shift", "px", (1.0, 2.0, 4.0, 8.0, 16.0), _shifted),
    "rotation": Disturbance("rotation", "°", (0.25, 0.5, 1.0, 2.0, 4.0), _turned),
    "jpeg": Disturbance(
        "JPEG quality (lower is worse)", "quality", (95.0, 90.0, 80.0, 60.0, 40.0), _compressed,
        bytes_only=True,
    ),
}  # fmt: skip


def disturbed(
    image: Shaped[np.ndarray, "h w c"], name: str, level: float, rng: np.random.Generator
) -> Shaped[np.ndarray, "h w c"]:
    """Return the image with a disturbance of `DISTURBANCES` at that level, in its own type."""
    return as_type(DISTURBANCES[name].apply(to_unit(image), level, rng), image.dtype)


def applies(image: Shaped[np.ndarray, "h w c"], name: str) -> bool:
    """Return whether a disturbance can be made of such an image."""
    is_bytes = image.dtype == np.uint8 and image.shape[2] in (1, 3)
    return is_bytes or not DISTURBANCES[name].bytes_only
