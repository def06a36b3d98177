"""Defects inserted into good images: what is drawn, how large, how strong, and where.

Images are [h, w, c] as in `recon_ad.data.arrays` and keep their type; what is drawn is rounded and
clipped to the type's range. Three definitions hold for all kinds:

- size: the diameter in px of the smallest circle that holds the defect at half its strength, which
  is the diameter of a spot and the length of a scratch;
- contrast: the change of the gray level as a share of the image's robust range, which is the 99th
  less the 1st percentile of its pixels (`FLATTEST` at least);
- mask: the pixels at which the defect has more than half its strength.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Shaped

from recon_ad.data.arrays import to_unit
from recon_ad.data.surface import smooth_noise, soft_step
from recon_ad.errors import UserError

FLATTEST = 1 / 32  # of the full range: a blank part has a range of nearly 0
SAMPLED = 512  # px along a side that percentiles are taken of, at most
STRENGTHS = {0.2: "faint", 0.4: "clear", 0.8: "strong"}  # contrasts, in words
CONTRASTS = tuple(STRENGTHS)

_Array = Float[np.ndarray, "h w"]
_Window = Float[np.ndarray, "h w c"]


class Place(NamedTuple):
    """Pixels around a defect, as seen from its centre.

    Attributes:
      x: To the right of the centre, px.
      y: Below it, px.
      pixels: The image there, in [0, 1].
      other: The same window elsewhere in the image.
      size: Size of the defect in px.
      change: Change of the gray level, in [0, 1].
      sign: 1 for brighter, -1 for darker.
      rng: Generator of the shape.
    """

    x: _Array
    y: _Array
    pixels: _Window
    other: _Window
    size: float
    change: float
    sign: float
    rng: np.random.Generator


class Inserted(NamedTuple):
    """An image with a defect.

    Attributes:
      image: Image with the defect, of the type of the good one.
      mask: True at the pixels of the defect.
    """

    image: Shaped[np.ndarray, "h w c"]
    mask: Bool[np.ndarray, "h w"]


class Kind(NamedTuple):
    """A kind of defect.

    Attributes:
      label: In the plural, for people.
      meaning: Real defect that it stands for.
      contrasts: Contrasts that are tested. None for a kind without contrast.
      draw: Returns the changed pixels and the strength in [0, 1].
    """

    label: str
    meaning: str
    contrasts: tuple[float | None, ...]
    draw: Callable[[Place], tuple[_Window, _Array]]


def _disc(distance: _Array, radius: float, *, softness: float = 0.3) -> _Array:
    """Return the strength at a distance: 1 inside, 0 outside, one half at the radius."""
    edge = max(1.0, softness * radius)
    return soft_step((radius - distance) / edge + 0.5)


def _turned(place: Place) -> tuple[_Array, _Array]:
    """Return the coordinates along and across a direction drawn at random."""
    angle = place.rng.uniform(0, 2 * np.pi)
    along = place.x * np.cos(angle) + place.y * np.sin(angle)
    return along, place.y * np.cos(angle) - place.x * np.sin(angle)


def _wavy(along: _Array, across: _Array, rng: np.random.Generator) -> _Array:
    """Return the distance from the centre, larger where an uneven outline draws in."""
    angle = np.arctan2(across, along)
    inward = np.zeros_like(angle)
    for waves in (2, 3, 5):
        inward += rng.uniform(0, 0.06) * (1 - np.cos(waves * angle + rng.uniform(0, 2 * np.pi)))
    return np.hypot(along, across) * (1 + inward)


def _shifted(place: Place, strength: _Array, change: _Array) -> tuple[_Window, _Array]:
    return place.pixels + change[..., None], strength


def _spot(place: Place) -> tuple[_Window, _Array]:
    strength = _disc(np.hypot(place.x, place.y), place.size / 2)
    return _shifted(place, strength, place.sign * place.change * strength)


def _scratch(place: Place) -> tuple[_Window, _Array]:
    along, across = _turned(place)
    bend = place.rng.uniform(-0.04, 0.04) * place.size
    across = across + bend * ((2 * along / place.size) ** 2 - 0.5)
    half_width = max(0.6, place.size / 30)
    strength = _disc(np.abs(across), half_width) * _disc(
        np.abs(along), place.size / 2, softness=0.1
    )
    return _shifted(place, strength, place.sign * place.change * strength)


def _dent(place: Place) -> tuple[_Window, _Array]:
    """Draw a hollow lit from one side: bright where it faces the light, dark where it does not."""
    along, _ = _turned(place)
    strength = _disc(np.hypot(place.x, place.y), place.size / 2, softness=0.6)
    shading = along * strength
    shading /= max(float(np.abs(shading).max()), 1e-6)
    return _shifted(place, strength, place.change * shading)


def _smear(place: Place) -> tuple[_Window, _Array]:
    along, across = _turned(place)
    distance = _wavy(along, 2 * across, place.rng)
    strength = _disc(distance, place.size / 2, softness=0.5)
    film = smooth_noise(place.rng, along.shape, (max(1.0, place.size / 8),) * 2)
    uneven = np.clip(0.8 + 0.2 * film, 0.4, 1.0)
    return _shifted(place, strength, place.sign * place.change * strength * uneven)


def _texture(place: Place) -> tuple[_Window, _Array]:
    strength = _disc(_wavy(place.x, place.y, place.rng), place.size / 2)
    noise = smooth_noise(place.rng, place.x.shape, (max(0.7, place.size / 20),) * 2)
    around = place.pixels.mean(axis=(0, 1))
    foreign = around + (place.change * np.clip(noise, -1, 1))[..., None]
    return _blended(place.pixels, foreign, strength), strength


def _missing(place: Place) -> tuple[_Window, _Array]:
    strength = _disc(np.hypot(place.x, place.y), place.size / 2)
    return _blended(place.pixels, place.other, strength), strength


def _blended(pixels: _Window, over: _Window, strength: _Array) -> _Window:
    return pixels + strength[..., None] * (over - pixels)


KINDS: Mapping[str, Kind] = {
    "spot": Kind("spots", "a round bright or dark stain or inclusion", CONTRASTS, _spot),
    "scratch": Kind(
        "scratches", "a thin bright or dark line, a fifteenth as wide as long", CONTRASTS, _scratch
    ),
    "dent": Kind("dents", "a hollow, bright on one side and dark on the other", CONTRASTS, _dent),
    "smear": Kind("smears", "an uneven film, half as wide as long", CONTRASTS, _smear),
    "texture": Kind(
        "foreign texture",
        "a patch of another, grainy material",
        CONTRASTS,
        _texture,
    ),
    "missing": Kind(
        "missing structure", "a place that shows another place of the part", (None,), _missing
    ),
}


def insert(
    image: Shaped[np.ndarray, "h w c"],
    region: Bool[np.ndarray, "h w"] | None,
    *,
    kind: str,
    size: float,
    contrast: float | None,
    rng: np.random.Generator,
) -> Inserted:
    """Insert a defect at a random place within the region.

    Args:
      image: Good image.
      region: Pixels that may be defective; None: all.
      kind: A name in `KINDS`.
      size: In px, as the module defines it.
      contrast: Contrast as defined by the module. None for a kind without one.
      rng: Generator of place and shape.

    Raises:
      UserError: The region has no room for a defect of this size.
    """
    height, width = image.shape[:2]
    allowed = _centres(image.shape[:2], region, size)
    row, column = (float(c) for c in divmod(int(rng.choice(allowed)), width))
    reach = int(np.ceil(0.8 * size)) + 2
    rows = slice(max(0, int(row) - reach), min(height, int(row) + reach + 1))
    columns = slice(max(0, int(column) - reach), min(width, int(column) + reach + 1))
    y, x = np.mgrid[rows, columns].astype(np.float32)
    # Between pixels, so that small defects fall on the grid of pixels in every way.
    y -= row + rng.uniform(-0.5, 0.5)
    x -= column + rng.uniform(-0.5, 0.5)
    pixels = to_unit(image[rows, columns]).copy()
    change = (contrast or 0.0) * robust_range(image)
    place = Place(
        x, y, pixels, _elsewhere(image, rows, columns, allowed, size, rng), size, change,
        _sign(float(pixels.mean()), change, rng), rng,
    )  # fmt: skip
    drawn, strength = KINDS[kind].draw(place)
    changed = image.copy()
    changed[rows, columns] = as_type(drawn, image.dtype)
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = strength > 0.5
    mask[int(row), int(column)] = True
    return Inserted(changed, mask)


def room(shape: tuple[int, int], region: Bool[np.ndarray, "h w"] | None) -> float:
    """Return the largest size in px of a defect that fits into the region."""
    if region is None:
        return float(min(shape)) - 2
    return 2 * float(_distance(region).max()) - 2


def robust_range(image: Shaped[np.ndarray, "h w c"]) -> float:
    """Return the 99th less the 1st percentile of the pixels in [0, 1], `FLATTEST` at least."""
    every = tuple(slice(None, None, -(-side // SAMPLED)) for side in image.shape[:2])
    low, high = np.percentile(to_unit(image[every]).mean(axis=2), (1, 99))
    return max(float(high - low), FLATTEST)


def as_type(pixels: Float[np.ndarray, "*d"], dtype: np.dtype) -> Shaped[np.ndarray, "*d"]:
    """Clip pixels in [0, 1] and return them in an image's type."""
    clipped = np.clip(pixels, 0, 1)
    if np.issubdtype(dtype, np.integer):
        return np.rint(clipped * np.iinfo(dtype).max).astype(dtype)
    return clipped.astype(dtype)


def _distance(region: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Return the distance in px of each pixel from the region's edge and the image's."""
    padded = np.pad(region.astype(np.uint8), 1)
    return cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]


def _centres(
    shape: tuple[int, ...], region: Bool[np.ndarray, "h w"] | None, size: float
) -> Shaped[np.ndarray, " n"]:
    """Return the places, as indices of the flattened image, where such a defect fits."""
    needed = size / 2 + 1
    if region is None:
        margin = int(np.ceil(needed)) - 1
        inner = np.zeros(shape, bool)
        inner[margin : shape[0] - margin, margin : shape[1] - margin] = True
    else:
        inner = _distance(region) >= needed
    found = np.flatnonzero(inner)
    if not len(found):
        raise UserError(
            f"the region of interest leaves no room for a defect of {size:.3g} px: draw it larger."
        )
    return found


def _elsewhere(
    image: Shaped[np.ndarray, "h w c"],
    rows: slice,
    columns: slice,
    allowed: Shaped[np.ndarray, " n"],
    size: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "p q c"]:
    """Return a window of the same shape around another place, a size away where there is one."""
    height, width = image.shape[:2]
    shape = rows.stop - rows.start, columns.stop - columns.start
    tops, lefts = np.divmod(rng.choice(allowed, 64), width)
    tops = np.clip(tops - shape[0] // 2, 0, height - shape[0])
    lefts = np.clip(lefts - shape[1] // 2, 0, width - shape[1])
    apart = np.hypot(tops - rows.start, lefts - columns.start)
    far = np.flatnonzero(apart >= size)
    chosen = int(far[0]) if len(far) else int(apart.argmax())
    top, left = int(tops[chosen]), int(lefts[chosen])
    return to_unit(image[top : top + shape[0], left : left + shape[1]])


def _sign(level: float, change: float, rng: np.random.Generator) -> float:
    """Return 1 for a brighter defect, -1 for a darker one: at random where the range has room."""
    drawn = 1.0 if rng.random() < 0.5 else -1.0
    up, down = level + change <= 1, level - change >= 0
    return drawn if up == down else (1.0 if up else -1.0)
