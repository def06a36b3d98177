"""Shared parts of the two generated materials: random streams, noise, slopes, damage windows.

Height fields are float32 [h, w] in px, positive towards the camera; x runs right and y down.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial, wraps
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Float32, UInt8
from scipy import ndimage

from recon_ad.data.source import GOOD, Record, Source

DAMAGED = "damaged"  # the defect type: a damaged image shows several kinds at once
# Parts of the random key: the order must stay, or the images change.
_SPLIT_KEYS = {"train": 0, "test_good": 1, "test_damaged": 2}

KEPT = 16  # images of each material that stay in memory, as drawing one takes seconds

_Kind = TypeVar("_Kind")


class Window(NamedTuple):
    """A rectangle of an image, in px."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an image with."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


def kept(draw: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Return `draw` with a cache of the last images, which are read-only as they are shared."""

    @lru_cache(maxsize=KEPT)
    @wraps(draw)
    def load(*args: str | int) -> np.ndarray:
        image = draw(*args)
        image.setflags(write=False)
        return image

    return load


def material_source(
    counts: Mapping[str, int],
    load: Callable[[str, int], np.ndarray],
    load_mask: Callable[[int], np.ndarray],
) -> Source:
    """Name the images of a material as in the MVTec layout.

    Args:
      counts: Number of images of each split, "train", "test_good" and "test_damaged".
      load: Draws the image of a split and an index.
      load_mask: Draws the truth of a damaged image.

    Returns:
      Records that call `load` and `load_mask`; the damaged images come first in the test split.
    """
    train, good = (
        tuple(
            Record(f"{folder}/{GOOD}/{i:03d}.png", partial(load, split, i))
            for i in range(counts[split])
        )
        for folder, split in (("train", "train"), ("test", "test_good"))
    )
    damaged = tuple(
        Record(
            f"test/{DAMAGED}/{i:03d}.png",
            partial(load, "test_damaged", i),
            DAMAGED,
            partial(load_mask, i),
        )
        for i in range(counts["test_damaged"])
    )
    return Source(train, damaged + good)


def stream(seed: int, material: int, split: str, index: int, part: int) -> np.random.Generator:
    """Return the random numbers of one part of one surface.

    Each part has its own, so that the damage is known without drawing the texture.
    """
    key = (material, _SPLIT_KEYS[split], index, part)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def smooth_noise(
    rng: np.random.Generator, size: tuple[int, int], sigma: tuple[float, float]
) -> Float32[np.ndarray, "h w"]:
    """Return white noise of unit variance, smoothed by a Gaussian of `sigma` px down and across."""
    noise = rng.standard_normal(size, dtype=np.float32)
    for axis, s in enumerate(sigma):
        # In place, as `ndimage.gaussian_filter` does between its axes. Wrapped, so that the
        # noise is as strong at the border as inside.
        ndimage.gaussian_filter1d(noise, s, axis, output=noise, mode="wrap", truncate=3.0)
        noise *= _gain(s)
    return noise


def slow_noise(
    rng: np.random.Generator, length: int, sigma: float
) -> Float32[np.ndarray, " length"]:
    """Return `smooth_noise` along one line."""
    noise = rng.standard_normal(length)
    noise = ndimage.gaussian_filter1d(noise, sigma, mode="wrap", truncate=3.0)
    return (noise * _gain(sigma)).astype(np.float32)


def _gain(sigma: float) -> np.float32:
    """Return the factor that restores unit variance to the smoothed noise."""
    reach = int(3.0 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    return np.float32(kernel.sum() / np.sqrt((kernel**2).sum()))


def slopes(
    height: Float32[np.ndarray, "h w"], rows: slice
) -> tuple[Float32[np.ndarray, "r w"], Float32[np.ndarray, "r w"]]:
    """Return central differences to the right and down; one-sided at the image border."""
    top, bottom = max(rows.start - 1, 0), min(rows.stop + 1, len(height))
    inner = slice(rows.start - top, rows.stop - top)
    down, right = np.gradient(height[top:bottom])
    return right[inner], down[inner]


def bands(length: int, band: int) -> list[slice]:
    """Yield the rows 0 … length in groups of `band`, so that temporary arrays stay small."""
    return [slice(top, min(top + band, length)) for top in range(0, length, band)]


def to_8_bits(intensity: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Round [0, 1] to 0 … 255, clipping values outside."""
    return np.rint(np.clip(intensity, 0, 1) * 255).astype(np.uint8)


def soft_step(x: Float[np.ndarray, "*d"]) -> Float[np.ndarray, "*d"]:
    """Return 0 up to 0, 1 from 1 on, and a smooth rise between."""
    s = np.clip(x, 0, 1)
    return s * s * (3 - 2 * s)


def place(
    rng: np.random.Generator, shapes: Sequence[tuple[int, int]], size: tuple[int, int]
) -> list[Window]:
    """Place windows of the given shapes at random places where they do not overlap."""
    windows: list[Window] = []
    for height, width in shapes:
        while True:
            top = int(rng.integers(0, size[0] - height, endpoint=True))
            left = int(rng.integers(0, size[1] - width, endpoint=True))
            if all(
                top + height <= w.top
                or w.top + w.height <= top
                or left + width <= w.left
                or w.left + w.width <= left
                for w in windows
            ):
                windows.append(Window(top, left, height, width))
                break
    return windows


def place_kinds(
    rng: np.random.Generator,
    kinds: Sequence[tuple[_Kind, tuple[int, int], tuple[int, int]]],
    number: int,
    size: tuple[int, int],
) -> list[tuple[_Kind, Window]]:
    """Draw `number` kinds, none twice before each was drawn once, and a window for each.

    Args:
      rng: Random numbers of the damage.
      kinds: Each kind, and the least and most height and width of its window in px.
      number: Number of windows.
      size: Size of the image.
    """
    drawn, shapes = [], []
    while len(drawn) < number:
        for i in rng.permutation(len(kinds))[: number - len(drawn)]:
            kind, heights, widths = kinds[i]
            drawn.append(kind)
            height, width = (rng.integers(*side, endpoint=True) for side in (heights, widths))
            shapes.append((int(height), int(width)))
    return list(zip(drawn, place(rng, shapes, size), strict=True))


def blob(rng: np.random.Generator, shape: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """Return a dome that fills the window: 1 in the middle, 0 outside a wavy, elliptic outline."""
    rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    angle = np.arctan2(rows[:, None], columns[None, :])
    outline = np.float32(0.82)
    for waves in (2, 3, 5):
        amplitude, turn = rng.uniform(0, 0.06), rng.uniform(0, 2 * np.pi)
        outline = outline + np.float32(amplitude) * np.cos(waves * angle + np.float32(turn))
    distance = np.sqrt(rows[:, None] ** 2 + columns[None, :] ** 2) / outline
    return np.maximum(1 - distance * distance, 0)


def scratch_line(
    rng: np.random.Generator, shape: tuple[int, int], half_width: float
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h 1"]]:
    """Return a slightly bent line from the top to the bottom of the window.

    Returns:
      The distance of every pixel from the line's middle, in half widths (across the window, which
      for these steep lines is close to square to them), negative to the left; and the pressure of
      the tool, 0 … 1 down the rows, which fades at both ends and in places on the way.
    """
    height, width = shape
    margin = 3 * half_width
    start, end = rng.uniform(margin, width - margin, 2)
    bend = 0.15 * (width - 2 * margin) * slow_noise(rng, height, height / 8)
    centre = np.clip(np.linspace(start, end, height) + bend, margin, width - margin)
    distance = (np.arange(width)[None, :] - centre[:, None]) / half_width
    row = np.arange(height)
    ends = soft_step(np.minimum(row, height - 1 - row) / (0.15 * height))
    pressure = ends * np.clip(0.75 + 0.4 * slow_noise(rng, height, height / 20), 0, 1)
    return distance.astype(np.float32), pressure[:, None].astype(np.float32)
