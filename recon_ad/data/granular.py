"""Material 2 of Schneider et al. 2022 (VISAPP), section 3.2: generated granular steel.

The paper's images are not public. Here they are computed from a random rough height field of fine
grains without any regularity, on which the paper's autoencoders learn nothing but the mean.
Images are 2336 × 4000 px, 1 channel, uint8:
- "gradient": the length of the surface's gradient, black where it is level, white at GRADIENT_MAX;
- "curvature": the mean curvature, mid-gray where it is none, black at -CURVATURE_MAX (a peak) and
  white at CURVATURE_MAX (a pit).
Every surface is a function of (seed, split, index) alone, whichever of the two is shown of it, and
is drawn when it is loaded.

The paper has one good and one damaged pair. It tests on no good image; so that image-level metrics
exist, there is a second good surface as a test here.

Truth is where the grains were pressed or rubbed flat, or the surface was bent in. Images show
slopes and bends, which change up to a pixel beyond: that rim is not in the truth.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from recon_ad.data import surface
from recon_ad.data.source import Source
from recon_ad.data.surface import Window, bands, slopes, smooth_noise, stream
from recon_ad.errors import UserError

# Chosen by the look of the pictures, before a model was trained on them; never tuned to a score,
# and fixed since.
SIZE = (2336, 4000)  # px, height and width
GRAINS = ((1.8, 1.3), (3.2, 0.8))  # px of sigma, px of height: small grains and larger ones
GRADIENT_MAX = 1.8  # px per px
CURVATURE_MAX = 0.75  # per px
DAMAGES = (6, 9)  # in the damaged image, both included; every kind at least once
STRENGTH = (0.35, 1.0)  # of a damage, spread evenly in its logarithm: some are faint
CHANGED_GRAIN = 0.1  # of the grains' height, truth: more than this
CHANGED_HEIGHT = 0.15  # px, truth: more than this

_KINDS = ("gradient", "curvature")
_COUNTS = {"train": 1, "test_good": 1, "test_damaged": 1}
# Parts of the random key: they must stay, or the images change. synthetic.py has 0 and 1, riblet 2.
_MATERIAL = 3
_GRAINS, _DAMAGE = range(2)
_BAND = 128  # rows computed at a time; no pixel depends on it


class _Change(NamedTuple):
    flat: Float32[np.ndarray, "r c"]  # share of the grains' height that is gone
    height: Float32[np.ndarray, "r c"]  # px, added


def granular_source(kind: str, *, seed: int = 0) -> Source:
    """Make the granular steel: one good image for training, one damaged and one good as tests.

    Args:
      kind: "gradient" or "curvature" (module docstring).
      seed: Non-negative number; another seed gives other images of the same kind.

    Returns:
      Records that load [2336, 4000, 1] uint8, and for the damaged image bool [2336, 4000].

    Raises:
      UserError: If the kind is unknown or the seed is negative.
    """
    if kind not in _KINDS:
        raise UserError(f'unknown granular set "{kind}": give {" or ".join(_KINDS)}')
    if seed < 0:
        raise UserError(f"the seed of a granular set is {seed}: give 0 or more")
    return surface.material_source(_COUNTS, partial(_load, kind, seed), partial(_load_truth, seed))


@surface.kept
def _load(kind: str, seed: int, split: str, index: int) -> UInt8[np.ndarray, "h w 1"]:
    return _draw(kind, seed, split, index, damaged=split == "test_damaged")


def _load_truth(seed: int, index: int) -> Bool[np.ndarray, "h w"]:
    truth = np.zeros(SIZE, bool)
    for window, change in _damages(seed, index, SIZE):
        changed = (change.flat > CHANGED_GRAIN) | (np.abs(change.height) > CHANGED_HEIGHT)
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
) -> UInt8[np.ndarray, "h w 1"]:
    rng = stream(seed, _MATERIAL, split, index, _GRAINS)
    height = np.zeros(size, np.float32)
    for sigma, amplitude in GRAINS:
        height += np.float32(amplitude) * smooth_noise(rng, size, (sigma, sigma))
    if damaged:
        for window, change in _damages(seed, index, size):
            height[window.slices] *= 1 - change.flat
            height[window.slices] += change.height
    image = np.empty((*size, 1), np.uint8)
    for rows in bands(size[0], band):
        if kind == "gradient":
            shown = np.hypot(*slopes(height, rows)) / GRADIENT_MAX
        else:
            shown = 0.5 + 0.5 * _mean_curvature(height, rows) / CURVATURE_MAX
        image[rows, :, 0] = surface.to_8_bits(shown)
    return image


def _mean_curvature(height: Float32[np.ndarray, "h w"], rows: slice) -> Float32[np.ndarray, "r w"]:
    """Return the mean curvature of the height's graph per px: 1 / r in a bowl of radius r.

    Do Carmo, Differential Geometry of Curves and Surfaces, section 3-3, for a graph.
    """
    # Beyond its border the surface goes on level.
    top, bottom = rows.start - 1, rows.stop + 1
    part = height[max(top, 0) : bottom]
    around = np.pad(part, ((top < 0, bottom > len(height)), (1, 1)), mode="edge")
    middle = around[1:-1, 1:-1]
    x = (around[1:-1, 2:] - around[1:-1, :-2]) / 2
    y = (around[2:, 1:-1] - around[:-2, 1:-1]) / 2
    xx = around[1:-1, 2:] - 2 * middle + around[1:-1, :-2]
    yy = around[2:, 1:-1] - 2 * middle + around[:-2, 1:-1]
    xy = (around[2:, 2:] - around[2:, :-2] - around[:-2, 2:] + around[:-2, :-2]) / 4
    above = (1 + x * x) * yy - 2 * x * y * xy + (1 + y * y) * xx
    return above / (2 * (1 + x * x + y * y) ** np.float32(1.5))


def _damages(seed: int, index: int, size: tuple[int, int]) -> list[tuple[Window, _Change]]:
    """Return all damages of the damaged steel, in windows that do not overlap."""
    rng = stream(seed, _MATERIAL, "test_damaged", index, _DAMAGE)
    number = int(rng.integers(*DAMAGES, endpoint=True))
    damages = []
    for damage, window in surface.place_kinds(rng, _DAMAGE_KINDS, number, size):
        strength = np.float32(np.exp(rng.uniform(*np.log(STRENGTH))))
        damages.append((window, damage(rng, strength, (window.height, window.width))))
    return damages


def _dent(rng: np.random.Generator, strength: np.float32, shape: tuple[int, int]) -> _Change:
    """Make a hollow in which the grains are pressed."""
    dome = surface.blob(rng, shape)
    depth = np.float32(0.12 * min(shape))
    return _Change(0.7 * strength * surface.soft_step(2 * dome), -strength * depth * dome * dome)


def _rubbed(rng: np.random.Generator, strength: np.float32, shape: tuple[int, int]) -> _Change:
    """Make a patch that is rubbed smooth."""
    flat = np.float32(0.9) * strength * surface.soft_step(3 * surface.blob(rng, shape))
    return _Change(flat, np.zeros(shape, np.float32))


def _scratch(rng: np.random.Generator, strength: np.float32, shape: tuple[int, int]) -> _Change:
    """Make a groove with a burr on either side, along the longer side of its window."""
    half_width = float(rng.uniform(3, 7))
    down = shape[0] >= shape[1]
    distance, pressure = surface.scratch_line(rng, shape if down else shape[::-1], half_width)
    groove = strength * pressure * np.maximum(1 - distance * distance, 0)
    burr = strength * pressure * np.maximum(1 - np.square((np.abs(distance) - 1.3) / 0.5), 0)
    flat, height = 0.9 * groove, np.float32(half_width) * (0.4 * burr - 1.1 * groove)
    return _Change(flat, height) if down else _Change(flat.T, height.T)


# Function that draws each kind, and the least and most height and width of its window in px.
_DAMAGE_KINDS = (
    (_dent, (70, 260), (70, 260)),
    (_rubbed, (120, 380), (120, 500)),
    (_scratch, (400, 1000), (60, 300)),
    (_scratch, (60, 300), (500, 1400)),
)
