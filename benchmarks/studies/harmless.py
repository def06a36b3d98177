"""Harmless anomalies drawn on good images, like those caused by light, dust and lint.

Each image gets anomalies of one kind with random number, size, contrast and position. Lengths are
fractions of the image's shorter side, and contrasts are fractions of the range from black to white.

    spots    1 to 4 highlights: soft ellipses with a longer radius of 0.01 to 0.04 and an axis ratio
             of 1 to 2, brighter by 0.15 to 0.6
    dust     2 to 12 specks with a radius of 0.002 to 0.007, brighter or darker by 0.15 to 0.5
    fibres   1 to 3 curved threads, 0.05 to 0.25 long and 0.002 to 0.005 wide, brighter or darker by
             0.1 to 0.4

No constant was tuned to the results of a detector or a classifier.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from jaxtyping import Float

FINE = 4  # resolution at which shapes are drawn, as a multiple of the image's
SHIFT = 4  # fractional bits of OpenCV's coordinates

Layer = Float[np.ndarray, "h w"]


def _points(points: Float[np.ndarray, "n 2"]) -> np.ndarray:
    return np.rint(points * FINE * 2**SHIFT).astype(np.int32)


def _drawn(shape: tuple[int, int], draw: Callable[[np.ndarray], None], *, blur: float) -> Layer:
    """Return a shape's coverage in [0, 1], softened by a Gaussian of `blur` px."""
    fine = np.zeros((shape[0] * FINE, shape[1] * FINE), np.uint8)
    draw(fine)
    covered = cv2.resize(fine, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return cv2.GaussianBlur(covered, (0, 0), blur)


def _place(random: np.random.Generator, shape: tuple[int, int]) -> Float[np.ndarray, " 2"]:
    return random.uniform(0.05, 0.95, 2) * shape[::-1]


def _sign(random: np.random.Generator) -> float:
    return float(random.choice([-1.0, 1.0]))


def spots(random: np.random.Generator, shape: tuple[int, int]) -> Layer:
    """Return the brightness that highlights add."""
    side, added = min(shape), np.zeros(shape, np.float32)
    for _ in range(random.integers(1, 5)):
        radius = side * random.uniform(0.01, 0.04)
        axes = radius * np.array([1.0, 1 / random.uniform(1, 2)])
        centre, angle = _place(random, shape), random.uniform(0, 180)
        box = (centre * FINE, 2 * axes * FINE, angle)

        def draw(fine: np.ndarray, box: tuple = box) -> None:
            cv2.ellipse(fine, box, 255, -1, cv2.LINE_AA)

        covered = _drawn(shape, draw, blur=radius / 3)
        added += random.uniform(0.15, 0.6) * covered / covered.max()
    return added


def dust(random: np.random.Generator, shape: tuple[int, int]) -> Layer:
    """Return the brightness that specks of dust add."""
    side, added = min(shape), np.zeros(shape, np.float32)
    for _ in range(random.integers(2, 13)):
        radius = side * random.uniform(0.002, 0.007)
        # A grain is an uneven polygon with corners at different distances.
        angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
        distances = radius * random.uniform(0.6, 1.2, 8)
        corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * distances[:, None]
        polygon = _points(_place(random, shape) + corners)

        def draw(fine: np.ndarray, polygon: np.ndarray = polygon) -> None:
            cv2.fillPoly(fine, [polygon], 255, cv2.LINE_AA, SHIFT)

        added += _sign(random) * random.uniform(0.15, 0.5) * _drawn(shape, draw, blur=0.6)
    return added


def fibres(random: np.random.Generator, shape: tuple[int, int]) -> Layer:
    """Return the brightness that fibres add, drawn as quadratic Bézier curves."""
    side, added = min(shape), np.zeros(shape, np.float32)
    for _ in range(random.integers(1, 4)):
        length, angle = side * random.uniform(0.05, 0.25), random.uniform(0, 2 * np.pi)
        along = length * np.array([np.cos(angle), np.sin(angle)])
        bent = length * random.uniform(-0.4, 0.4) * np.array([-np.sin(angle), np.cos(angle)])
        start = _place(random, shape)
        t = np.linspace(0, 1, 40)[:, None]
        curve = start + 2 * t * (1 - t) * (along / 2 + bent) + t**2 * along
        width = max(1, round(FINE * side * random.uniform(0.002, 0.005)))
        line = _points(curve)

        def draw(fine: np.ndarray, line: np.ndarray = line, width: int = width) -> None:
            cv2.polylines(fine, [line], False, 255, width, cv2.LINE_AA, SHIFT)

        added += _sign(random) * random.uniform(0.1, 0.4) * _drawn(shape, draw, blur=0.6)
    return added


KINDS: Mapping[str, Callable[[np.random.Generator, tuple[int, int]], Layer]] = {
    "spots": spots,
    "dust": dust,
    "fibres": fibres,
}


def harmless(image: np.ndarray, kind: str, random: np.random.Generator) -> np.ndarray:
    """Return the image with anomalies of one kind, in its own type, uint8 or uint16 [h, w, c]."""
    white = np.iinfo(image.dtype).max
    added = KINDS[kind](random, image.shape[:2])[..., None]
    return np.rint(np.clip(image / white + added, 0, 1) * white).astype(image.dtype)
