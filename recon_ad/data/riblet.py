"""Material 1 of Schneider et al. 2022 (VISAPP), section 3.2: generated riblet foil on a plate.

The paper's images are not public. Here they are rendered from a height field: ridges of a rounded
trapezoid profile that run across the image as horizontal tracks, each a little off its place and
height. Images are 3672 × 5496 px, uint8:
- "albedo", 1 channel: what light from four sides shows on average, with the ridges bright and the
  grooves dark;
- "normals", 3 channels: (n + 1) / 2 of the unit surface normal, x (right), y (down), z (towards
  the camera).
Every surface is a function of (seed, split, index) alone, whichever of the two is shown of it, and
is drawn when it is loaded.

The paper has 10 good and 4 damaged albedo images, 3 good and 2 damaged images of normals. It tests
on no good image; so that image-level metrics exist, 2 of the 10 and 1 of the 3 are tests here.
Good surfaces need not be spotless: those of an even index have darker stretches along the tracks
(the green box of the paper's figure 7), in the reflectance only, so that the normals do not show
them. They are in the training images as well as in the good and the damaged test images, and in
no truth mask.

Truth is what the damage changed: the height, and for the albedo also the reflectance. Where
ridges are broken out or worn, the bottoms of the grooves between are still good in the normals.
Images show slopes, which change up to a pixel beyond where the height does: that rim is not in
the truth.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from recon_ad.data import surface
from recon_ad.data.source import Source
from recon_ad.data.surface import Window, bands, slopes, slow_noise, smooth_noise, stream
from recon_ad.errors import UserError

# Chosen by the look of the pictures, before a model was trained on them; never tuned to a score,
# and fixed since.
SIZE = (3672, 5496)  # px, height and width
PERIOD = 18.0  # px, from ridge to ridge
PERIOD_SPREAD = 0.005  # of it, standard deviation from image to image
TILT = 0.004  # px down per px right, at most: the foil lies almost straight
HEIGHT = 4.0  # px, of a ridge over the groove
TOP, FLANK = 0.26, 0.24  # of the period, widths of the flat top and of either flank
RIDGE_OFFSET = 0.02  # of the period, standard deviation of a ridge's place
RIDGE_HEIGHT = 0.04  # of HEIGHT, standard deviation from ridge to ridge
RIDGE_SHADE = 0.03  # of the reflectance, standard deviation from ridge to ridge
WAVES, WAVINESS, WAVE_LENGTH = 3, 1.2, 350.0  # products of slow noises; px of shift, px of sigma
TEXTURE, TEXTURE_GRAIN = 0.15, (1.3, 2.0)  # px of height, px of sigma down and across
STREAK, STREAK_GRAIN = 0.07, (0.8, 5.0)  # of the reflectance, px of sigma down and across
REFLECTANCE = 0.95
FALL_OFF = 0.05  # of the light, slow changes over the image
DARK_STRETCHES = (2, 4)  # in an image that has any, both included
DARK_DEPTH = (0.18, 0.35)  # of the reflectance
LIGHT_HEIGHT = 55.0  # degrees over the plate
# Strength by azimuth, degrees from x over y. Unequal: an even light would show no side of a ridge.
LIGHTS = {45.0: 0.20, 135.0: 0.23, 225.0: 0.30, 315.0: 0.27}
OCCLUSION = 0.45  # of the light, lost at the bottom of a groove
SENSOR = 0.008  # of white, standard deviation of the camera's noise
DAMAGES = (7, 11)  # in a damaged image, both included; every kind at least once
STRENGTH = (0.3, 1.0)  # of a damage, spread evenly in its logarithm: some are faint
CHANGED_HEIGHT = 0.15  # px, truth: more than this, which the texture could hide
CHANGED_REFLECTANCE = 0.05  # of it, truth: more than this

_KINDS = {
    "albedo": {"train": 8, "test_good": 2, "test_damaged": 4},
    "normals": {"train": 2, "test_good": 1, "test_damaged": 2},
}
# Parts of the random key: they must stay, or the images change. synthetic.py has 0 and 1.
_MATERIAL = 2
_FOIL, _TEXTURE, _STREAKS, _SENSOR, _DAMAGE = range(5)
_BAND = 128  # rows rendered at a time; no pixel depends on it


class _Foil(NamedTuple):
    phase: np.ndarray  # [h] periods down each row, before the shift
    shift_down: np.ndarray  # [WAVES + 1, h], whose products with
    shift_along: np.ndarray  # [WAVES + 1, w] add up to the shift in periods
    offset: np.ndarray  # [ridges] in periods
    height: np.ndarray  # [ridges] in px
    shade: np.ndarray  # [ridges] reflectance
    light_down: np.ndarray  # [h]
    light_along: np.ndarray  # [w]
    dark: tuple[tuple[np.ndarray, np.ndarray], ...]  # [h] and [w], their product is the loss


class _Site(NamedTuple):
    ridge: Int[np.ndarray, "r c"]  # which one each pixel of the window belongs to
    profile: Float32[np.ndarray, "r c"]  # px, undamaged height


class _Change(NamedTuple):
    height: Float32[np.ndarray, "r c"]  # px, added
    reflectance: Float32[np.ndarray, "r c"]  # factor


def riblet_source(kind: str, *, seed: int = 0) -> Source:
    """Make the riblet foil: for albedo 8 training, 4 damaged, 2 good tests; for normals 2, 2, 1.

    Args:
      kind: "albedo" or "normals" (module docstring).
      seed: Non-negative number; another seed gives other images of the same kind.

    Returns:
      Records that load [3672, 5496, 1] or [3672, 5496, 3] uint8, and for damaged images bool
      [3672, 5496]. Drawing an image takes seconds and about 250 MiB; the last images are kept.

    Raises:
      UserError: If the kind is unknown or the seed is negative.
    """
    if kind not in _KINDS:
        raise UserError(f'unknown riblet set "{kind}": give {" or ".join(_KINDS)}')
    if seed < 0:
        raise UserError(f"the seed of a riblet set is {seed}: give 0 or more")
    return surface.material_source(
        _KINDS[kind], partial(_load, kind, seed), partial(_load_truth, kind, seed)
    )


@surface.kept
def _load(kind: str, seed: int, split: str, index: int) -> UInt8[np.ndarray, "h w c"]:
    return _draw(kind, seed, split, index, damaged=split == "test_damaged")


def _load_truth(kind: str, seed: int, index: int) -> Bool[np.ndarray, "h w"]:
    truth = np.zeros(SIZE, bool)
    foil = _foil(seed, "test_damaged", index, SIZE)
    for window, change in _damages(foil, seed, index, SIZE):
        changed = np.abs(change.height) > CHANGED_HEIGHT
        if kind == "albedo":
            changed |= np.abs(change.reflectance - 1) > CHANGED_REFLECTANCE
        truth[window.slices] = changed
    return truth


def _draw(
    kind: str,
    seed: int,
    split: str,
    index: int,
    *,
    damaged: bool,
    size: tuple[int, int] = SIZE,
    band: int = _BAND,
) -> UInt8[np.ndarray, "h w c"]:
    foil = _foil(seed, split, index, size)
    height = smooth_noise(stream(seed, _MATERIAL, split, index, _TEXTURE), size, TEXTURE_GRAIN)
    height *= np.float32(TEXTURE)
    reflectance = None
    if kind == "albedo":
        streaks = stream(seed, _MATERIAL, split, index, _STREAKS)
        reflectance = smooth_noise(streaks, size, STREAK_GRAIN)
        reflectance *= np.float32(STREAK)
        reflectance += 1
    everywhere = slice(0, size[1])
    for rows in bands(size[0], band):
        ridge, within = _tracks(foil, rows, everywhere)
        height[rows] += _profile(foil, ridge, within)
        if reflectance is not None:
            reflectance[rows] *= _reflectance(foil, ridge, rows)
    if damaged:
        for window, change in _damages(foil, seed, index, size):
            height[window.slices] += change.height
            if reflectance is not None:
                reflectance[window.slices] *= change.reflectance
    if reflectance is None:
        return _normals(height, band)
    sensor = stream(seed, _MATERIAL, split, index, _SENSOR)
    return _albedo(sensor, height, reflectance, band)


def _normals(height: Float32[np.ndarray, "h w"], band: int) -> UInt8[np.ndarray, "h w 3"]:
    image = np.empty((*height.shape, 3), np.uint8)
    for rows in bands(len(height), band):
        right, down = slopes(height, rows)
        up = 1 / np.sqrt(1 + right * right + down * down)
        for channel, n in enumerate((-right * up, -down * up, up)):
            image[rows, :, channel] = surface.to_8_bits((n + 1) / 2)
    return image


def _albedo(
    sensor: np.random.Generator,
    height: Float32[np.ndarray, "h w"],
    reflectance: Float32[np.ndarray, "h w"],
    band: int,
) -> UInt8[np.ndarray, "h w 1"]:
    image = np.empty((*height.shape, 1), np.uint8)
    level = np.deg2rad(LIGHT_HEIGHT)
    for rows in bands(len(height), band):
        right, down = slopes(height, rows)
        light = np.zeros_like(right)
        for azimuth, strength in LIGHTS.items():
            x, y = strength * np.cos(level) * np.array(_direction(azimuth))
            facing = np.float32(strength * np.sin(level)) - np.float32(x) * right
            facing -= np.float32(y) * down
            light += np.maximum(facing, 0, out=facing)
        light /= np.sqrt(1 + right * right + down * down)
        # How far a pixel lies below the tops stands for how much of the sky its groove hides.
        depth = np.clip(1 - height[rows] / np.float32(HEIGHT), 0, 1.5)
        light *= 1 - np.float32(OCCLUSION) * depth
        light *= reflectance[rows]
        light += np.float32(SENSOR) * sensor.standard_normal(light.shape, dtype=np.float32)
        image[rows, :, 0] = surface.to_8_bits(light)
    return image


def _direction(azimuth: float) -> tuple[float, float]:
    return float(np.cos(np.deg2rad(azimuth))), float(np.sin(np.deg2rad(azimuth)))


def _foil(seed: int, split: str, index: int, size: tuple[int, int]) -> _Foil:
    rng = stream(seed, _MATERIAL, split, index, _FOIL)
    h, w = size
    period = PERIOD * (1 + PERIOD_SPREAD * rng.standard_normal())
    # Some ridges more than the image holds, since tilt and waves bring in others.
    spare = 8
    phase = (np.arange(h) / period + rng.uniform(spare / 2, spare / 2 + 1)).astype(np.float32)
    ridges = int(h / period) + 2 * spare
    tilt = rng.uniform(-TILT, TILT) * (np.arange(w) - w / 2) / period
    down = [np.ones(h, np.float32)]
    along = [tilt.astype(np.float32)]
    for _ in range(WAVES):
        down.append(slow_noise(rng, h, WAVE_LENGTH))
        along.append(slow_noise(rng, w, WAVE_LENGTH) * np.float32(WAVINESS / WAVES**0.5 / period))
    offset, height, shade = rng.standard_normal((3, ridges)).astype(np.float32)
    light_down, light_along = (
        1 + np.float32(FALL_OFF) * slow_noise(rng, n, 2 * WAVE_LENGTH) for n in size
    )
    stretches = rng.integers(*DARK_STRETCHES, endpoint=True) if index % 2 == 0 else 0
    return _Foil(
        phase,
        np.stack(down),
        np.stack(along),
        np.clip(np.float32(RIDGE_OFFSET) * offset, -0.06, 0.06),  # stays off the next ridge
        np.float32(HEIGHT) * (1 + np.float32(RIDGE_HEIGHT) * height),
        np.float32(REFLECTANCE) * (1 + np.float32(RIDGE_SHADE) * shade),
        light_down,
        light_along,
        tuple(_dark_stretch(rng, size) for _ in range(stretches)),
    )


def _dark_stretch(
    rng: np.random.Generator, size: tuple[int, int]
) -> tuple[Float32[np.ndarray, " h"], Float32[np.ndarray, " w"]]:
    """Return a loss of reflectance as a factor down the rows and one along the tracks."""
    factors = []
    # The long side lies along the tracks and fades out slowly.
    for n, (least, most), soft in ((size[0], (0.02, 0.08), 0.5), (size[1], (0.15, 0.6), 0.5)):
        half = rng.uniform(least, most) * n / 2
        middle = rng.uniform(0.1 * n, 0.9 * n)
        inside = 1 - np.abs(np.arange(n) - middle) / half
        factors.append(surface.soft_step(inside / soft).astype(np.float32))
    uneven = np.clip(0.9 + 0.4 * slow_noise(rng, size[0], PERIOD), 0, 1.4)
    return factors[0] * uneven * np.float32(rng.uniform(*DARK_DEPTH)), factors[1]


def _tracks(
    foil: _Foil, rows: slice, columns: slice
) -> tuple[Int[np.ndarray, "r c"], Float32[np.ndarray, "r c"]]:
    """Return the ridge of each pixel, and the pixel's place in the ridge's period (0 … 1)."""
    # Element by element, so that a window has the very numbers of the whole image.
    within = foil.phase[rows, None] + np.zeros_like(foil.shift_along[:1, columns])
    for down, along in zip(foil.shift_down, foil.shift_along, strict=True):
        within += down[rows, None] * along[None, columns]
    ridge = np.floor(within).astype(np.intp)
    within -= ridge
    return ridge, within


def _profile(
    foil: _Foil, ridge: Int[np.ndarray, "r c"], within: Float32[np.ndarray, "r c"]
) -> Float32[np.ndarray, "r c"]:
    """Return the height of the undamaged, untextured ridges in px."""
    from_middle = np.abs(within - np.float32(0.5) + foil.offset[ridge])
    rise = (np.float32(TOP / 2 + FLANK) - from_middle) / np.float32(FLANK)
    return surface.soft_step(rise) * foil.height[ridge]


def _reflectance(
    foil: _Foil, ridge: Int[np.ndarray, "r w"], rows: slice
) -> Float32[np.ndarray, "r w"]:
    reflectance = foil.shade[ridge]
    reflectance *= foil.light_down[rows, None]
    reflectance *= foil.light_along[None, :]
    for down, along in foil.dark:
        if down[rows].any():
            reflectance *= 1 - down[rows, None] * along[None, :]
    return reflectance


def _damages(
    foil: _Foil, seed: int, index: int, size: tuple[int, int]
) -> list[tuple[Window, _Change]]:
    """Return all defects of the damaged foil with this index, in windows that do not overlap."""
    rng = stream(seed, _MATERIAL, "test_damaged", index, _DAMAGE)
    number = int(rng.integers(*DAMAGES, endpoint=True))
    damages = []
    for damage, window in surface.place_kinds(rng, _DAMAGE_KINDS, number, size):
        ridge, within = _tracks(foil, *window.slices)
        strength = np.float32(np.exp(rng.uniform(*np.log(STRENGTH))))
        site = _Site(ridge, _profile(foil, ridge, within))
        damages.append((window, damage(rng, strength, site)))
    return damages


def _scratch(rng: np.random.Generator, strength: np.float32, site: _Site) -> _Change:
    """Make a groove across the tracks with a burr on either side."""
    distance, pressure = surface.scratch_line(rng, site.profile.shape, float(rng.uniform(2.5, 6)))
    pressure = pressure * strength
    groove = pressure * np.maximum(1 - distance * distance, 0)
    burr = pressure * np.maximum(1 - np.square((np.abs(distance) - 1.3) / 0.5), 0)
    height = -groove * (0.9 * site.profile + np.float32(0.4 * HEIGHT))
    height += burr * np.float32(0.25 * HEIGHT)
    return _Change(height, 1 + np.float32(rng.choice([-0.45, 0.4])) * groove)


def _dent(rng: np.random.Generator, strength: np.float32, site: _Site) -> _Change:
    """Press the ridges flat and bend the foil in."""
    pressed = strength * surface.soft_step(1.6 * surface.blob(rng, site.profile.shape))
    height = -pressed * (0.85 * site.profile + np.float32(0.5 * HEIGHT))
    return _Change(height, 1 - 0.1 * pressed)


def _missing(rng: np.random.Generator, strength: np.float32, site: _Site) -> _Change:
    """Break one to three neighbouring ridges out over part of their length, with ragged ends."""
    width = site.profile.shape[1]
    number = int(rng.integers(1, 3, endpoint=True))
    middle = site.ridge[len(site.ridge) // 2, width // 2]
    columns = np.arange(width)
    gone = np.zeros_like(site.profile)
    for k in range(middle - number // 2, middle - number // 2 + number):
        ends = rng.uniform(0.02, 0.2, 2) * width
        soft = rng.uniform(3, 12)
        along = np.minimum(columns - ends[0], width - ends[1] - columns) / soft
        gone += np.where(site.ridge == k, surface.soft_step(along)[None, :], 0).astype(np.float32)
    gone *= 0.4 + 0.6 * strength  # a ridge hardly broken is none of this kind
    return _Change(-gone * site.profile, 1 - 0.15 * gone)


def _particle(rng: np.random.Generator, strength: np.float32, site: _Site) -> _Change:
    """Put a cluster of dust grains on the foil."""
    height, reflectance = np.zeros_like(site.profile), np.ones_like(site.profile)
    tone = rng.choice([-0.65, 0.25])
    for _ in range(int(rng.integers(2, 7, endpoint=True))):
        shape = tuple(int(s) for s in rng.integers(9, 40, 2, endpoint=True))
        (spot,) = surface.place(rng, [shape], site.profile.shape)
        grain = surface.blob(rng, shape)
        bump = np.float32(0.35 * min(shape)) * grain
        height[spot.slices] = np.maximum(height[spot.slices], strength * bump)
        reflectance[spot.slices] *= 1 + np.float32(tone) * strength * surface.soft_step(5 * grain)
    return _Change(height, reflectance)


def _abrasion(rng: np.random.Generator, strength: np.float32, site: _Site) -> _Change:
    """Wear the ridges of a patch down in fine parallel lines."""
    rows, columns = site.profile.shape
    x, y = _direction(rng.uniform(0, 180))
    reach = rows + columns
    lines = slow_noise(rng, 2 * reach, 1.2)
    across = x * np.arange(rows)[:, None] + y * np.arange(columns)[None, :] + reach
    worn = np.clip(0.5 + 0.5 * np.interp(across, np.arange(2 * reach), lines), 0, 1)
    patch = strength * surface.soft_step(2 * surface.blob(rng, site.profile.shape))
    worn = patch * worn.astype(np.float32)
    return _Change(-0.9 * worn * site.profile, 1 + 0.35 * worn)


# Function that draws each kind, and the least and most height and width of its window in px.
_DAMAGE_KINDS = (
    (_scratch, (400, 1500), (60, 300)),
    (_dent, (70, 240), (90, 360)),
    (_missing, (90, 90), (120, 700)),
    (_particle, (80, 160), (80, 200)),
    (_abrasion, (180, 450), (250, 700)),
)
