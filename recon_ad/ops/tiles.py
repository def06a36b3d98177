"""Cutting images into overlapping tiles and averaging tiles back. NumPy only, no JAX.

Images are [h, w, c] and maps [h, w], float32 or uint8 as they come.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

LONGEST = 1 << 16  # px, of an image that is resized to a shorter side


class Geometry(NamedTuple):
    """How an image is presented to the method.

    Attributes:
      tile: height and width of a tile in pixels.
      stride: vertical and horizontal distance of neighbouring tiles; at most `tile`.
      weights: "uniform", or "hann": how overlapping tiles are averaged.
      resize: height and width that an image is resized to before it is tiled; (n, 0) gives its
        shorter side n px and keeps the aspect ratio. None: images are tiled at their own size.
    """

    tile: tuple[int, int]
    stride: tuple[int, int]
    weights: str
    resize: tuple[int, int] | None


def resized_size(size: tuple[int, int], resize: tuple[int, int] | None) -> tuple[int, int]:
    """Returns the height and width to which an image is resized.

    Args:
      size: height and width of the image.
      resize: as in `Geometry`. The shorter side is shorter than asked for where the longer one
        would have more than `LONGEST` px.
    """
    if resize is None:
        return size
    if resize[1]:
        return resize
    # In integers, so that every program rounds alike, halves up.
    to, of = resize[0], min(size)
    if to * max(size) > LONGEST * of:
        to, of = LONGEST, max(size)
    height, width = (max(1, (2 * n * to + of) // (2 * of)) for n in size)
    return height, width


def tile_starts(length: int, *, tile: int, stride: int) -> list[int]:
    """First pixels of the tiles along one side; the last tile ends with the image."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, stride), length - tile]


def tile_corners(
    size: tuple[int, int], *, tile: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[int, int]]:
    """Top left corners of the tiles that cover an image of that height and width, row by row."""
    rows, columns = (
        tile_starts(n, tile=t, stride=s) for n, t, s in zip(size, tile, stride, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def pad_to_tile(
    image: Shaped[np.ndarray, "h w c"], *, tile: tuple[int, int]
) -> Shaped[np.ndarray, "H W c"]:
    """Mirrors a side that is shorter than a tile (after its end) until it is as long."""
    missing = [max(0, t - n) for n, t in zip(image.shape[:2], tile, strict=True)]
    if not any(missing):
        return image
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric")


def tile_weights(tile: tuple[int, int], *, kind: str) -> Float[np.ndarray, "h w"]:
    """How much each pixel of a tile counts in the average, in (0, 1].

    Args:
      tile: height and width.
      kind: "uniform", or "hann", which trusts the middle of a tile more than its border, where a
        network sees less of a pixel's surroundings.

    Raises:
      ValueError: the kind is neither.
    """
    if kind == "uniform":
        return np.ones(tile, np.float32)
    if kind != "hann":
        raise ValueError(f'tile weights are "uniform" or "hann", not {kind!r}')
    # Sampled at pixel centres, so that no weight is zero: a corner of the image has one tile only.
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in tile)
    return np.outer(rows, columns).astype(np.float32)


def cut(
    image: Shaped[np.ndarray, "h w c"],
    corners: Sequence[tuple[int, int]],
    *,
    tile: tuple[int, int],
) -> Shaped[np.ndarray, "n H W c"]:
    """The tiles at those corners, stacked."""
    return np.stack([image[r : r + tile[0], c : c + tile[1]] for r, c in corners])


def batch_for(count: int, *, limit: int) -> int:
    """Returns the size of the next compiled batch when so many tiles are left.

    Sizes are powers of two below the limit, and the limit, so that few programs are compiled. At
    least three quarters of a batch are filled: where the next larger size would be emptier, the
    next smaller one is taken, and a further batch takes the rest.

    Args:
      count: of tiles that are left, at least one.
      limit: of a batch.
    """
    larger = min(1 << (count - 1).bit_length(), limit)
    return larger if 4 * count >= 3 * larger else 1 << (count.bit_length() - 1)


def split(count: int, batch_for: Callable[[int], int]) -> Iterator[tuple[slice, int]]:
    """Gives the tiles that each batch takes and the size of the batch, which may be larger.

    Args:
      count: of all tiles.
      batch_for: (tiles that are left) -> the size of the next batch.
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
    """Weighted average of overlapping tiles.

    Args:
      tiles: in the order of `corners`; taken one at a time, so a generator keeps memory low.
      corners: top left pixel of each tile.
      size: height and width of the result, at least a tile; every pixel has to lie in a tile.
      weights: of each pixel of a tile.
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
    """The map padded with zeros to multiples of `multiple`, and which of its pixels are real.

    Images of many sizes then share few compiled programs.
    """
    padding = [(0, -n % multiple) for n in values.shape]
    valid = np.pad(np.ones(values.shape, bool), padding)
    return np.pad(values, padding), valid


def attenuate_border(values: Float[np.ndarray, "h w"], *, border: int, weight: float) -> None:
    """Multiplies, in place, what is within `border` px of the map's border by `weight`."""
    if not border:
        return
    # Strips that do not overlap, where the map is narrower than two borders too.
    bottom, right = (max(border, n - border) for n in values.shape)
    for strip in (
        values[:border],
        values[bottom:],
        values[border:bottom, :border],
        values[border:bottom, right:],
    ):
        strip *= values.dtype.type(weight)
