"""Cutting of images into overlapping tiles and averaging of tiles back, with NumPy and without JAX.

Images are [h, w, c] and maps [h, w], float32 or uint8; the dtype is kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from recon_ad.limits import MAX_SIDE


class Geometry(NamedTuple):
    """Settings that define how an image is presented to the method.

    Attributes:
      tile: Height and width of a tile in pixels.
      stride: Vertical and horizontal distance of neighbouring tiles, at most `tile`.
      weights: Weighting of overlapping tiles in their average, "uniform" or "hann".
      resize: Height and width that an image is resized to before it is tiled. (n, 0) resizes its
        shorter side to n px and keeps the aspect ratio. None tiles images at their own size.
    """

    tile: tuple[int, int]
    stride: tuple[int, int]
    weights: str
    resize: tuple[int, int] | None

    @property
    def resolution(self) -> str:
        """The resolution of the tiled image in words, "native" for the image's own."""
        if self.resize is None:
            return "native"
        height, width = self.resize
        if not width:
            return f"{height} px along the shorter side, aspect ratio kept"
        return f"{height} × {width} px, aspect ratio not kept"


def resized_size(size: tuple[int, int], resize: tuple[int, int] | None) -> tuple[int, int]:
    """Return the height and width to which an image is resized.

    Args:
      size: Height and width of the image.
      resize: Setting as in `Geometry`. The shorter side becomes shorter than requested if the
        longer side would exceed `MAX_SIDE` px.
    """
    if resize is None:
        return size
    if resize[1]:
        return resize
    # Integer arithmetic, so that every program rounds in the same way: halves up.
    to, of = resize[0], min(size)
    if to * max(size) > MAX_SIDE * of:
        to, of = MAX_SIDE, max(size)
    height, width = (max(1, (2 * n * to + of) // (2 * of)) for n in size)
    return height, width


def tile_starts(length: int, *, tile: int, stride: int) -> list[int]:
    """Return the first pixels of the tiles along one side; the last tile ends with the image."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, stride), length - tile]


def tile_corners(
    size: tuple[int, int], *, tile: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return the top left corners of the tiles that cover an image of this size, row by row."""
    rows, columns = (
        tile_starts(n, tile=t, stride=s) for n, t, s in zip(size, tile, stride, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def pad_to_tile(
    image: Shaped[np.ndarray, "h w c"], *, tile: tuple[int, int]
) -> Shaped[np.ndarray, "H W c"]:
    """Pad each side that is shorter than a tile to its length, by mirroring beyond the end."""
    missing = [max(0, t - n) for n, t in zip(image.shape[:2], tile, strict=True)]
    if not any(missing):
        return image
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")


def tile_weights(tile: tuple[int, int], *, kind: str) -> Float[np.ndarray, "h w"]:
    """Return the weight of each pixel of a tile in the average, in (0, 1].

    Args:
      tile: Height and width.
      kind: "uniform" or "hann". The latter weights the middle of a tile more than its border, where
        a network sees less of a pixel's surroundings.

    Raises:
      ValueError: If the kind is neither.
    """
    if kind == "uniform":
        return np.ones(tile, np.float32)
    if kind != "hann":
        raise ValueError(f"unknown tile weights {kind!r}; choose one of: uniform, hann")
    # Sampled at pixel centres, so that no weight is zero: a corner of the image has only one tile.
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in tile)
    return np.outer(rows, columns).astype(np.float32)


def cut(
    image: Shaped[np.ndarray, "h w c"],
    corners: Sequence[tuple[int, int]],
    *,
    tile: tuple[int, int],
) -> Shaped[np.ndarray, "n H W c"]:
    """Cut tiles at these corners and stack them."""
    return np.stack([image[r : r + tile[0], c : c + tile[1]] for r, c in corners])


def batch_for(count: int, *, limit: int) -> int:
    """Return the size of the next compiled batch for this number of remaining tiles.

    Sizes are powers of two below the limit, and the limit itself, so that few programs are
    compiled. At least three quarters of a batch are filled: if the next larger size would be
    emptier, the next smaller one is used, and a further batch takes the rest.

    Args:
      count: Number of remaining tiles, at least one.
      limit: Largest size of a batch.
    """
    larger = min(1 << (count - 1).bit_length(), limit)
    return larger if 4 * count >= 3 * larger else 1 << (count.bit_length() - 1)


def split(count: int, batch_for: Callable[[int], int]) -> Iterator[tuple[slice, int]]:
    """Yield the tiles of each batch and the size of the batch, which may be larger.

    Args:
      count: Number of all tiles.
      batch_for: Function from the number of remaining tiles to the size of the next batch.
    """
    first = 0
    while first < count:
        size = batch_for(count - first)
        yield slice(first, min(first + size, count)), size
        first += size


def stitch(
    tiles: Iterable[Float[np.ndarray, "H W c"]],
    corners: Sequence[tuple[int, int]],
    *,
    size: tuple[int, int],
    weights: Float[np.ndarray, "H W"],
) -> Float[np.ndarray, "h w c"]:
    """Average overlapping tiles with weights.

    Args:
      tiles: Tiles in the order of `corners`. They are taken one at a time, so a generator saves
        memory.
      corners: Top left pixel of each tile.
      size: Height and width of the result, at least a tile. Every pixel has to lie in a tile.
      weights: Weight of each pixel of a tile.
    """
    total: np.ndarray | None = None
    weight = np.zeros((*size, 1), np.float32)
    height, width = weights.shape
    for values, (row, column) in zip(tiles, corners, strict=True):
        if total is None:
            total = np.zeros((*size, values.shape[2]), np.float32)
        here = np.s_[row : row + height, column : column + width]
        total[here] += values * weights[..., None]
        weight[here] += weights[..., None]
    assert total is not None, "an image has at least one tile"
    total /= weight
    return total


def pad_map(
    values: Float[np.ndarray, "h w"], *, multiple: int
) -> tuple[Float[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Pad a map with zeros to multiples of `multiple`, and return the mask of its real pixels too.

    Images of many sizes then share few compiled programs.
    """
    padding = [(0, -n % multiple) for n in values.shape]
    valid = np.pad(np.ones(values.shape, bool), padding)
    return np.pad(values, padding), valid


def attenuate_border(values: Float[np.ndarray, "h w"], *, border: int, weight: float) -> None:
    """Multiply the pixels within `border` px of the map's border by `weight`, in place."""
    if not border:
        return
    # The strips do not overlap, even if the map is narrower than two borders.
    bottom, right = (max(border, n - border) for n in values.shape)
    for strip in (
        values[:border],
        values[bottom:],
        values[border:bottom, :border],
        values[border:bottom, right:],
    ):
        strip *= values.dtype.type(weight)
