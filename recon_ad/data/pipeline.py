"""From records to batches of random patches, through Grain.

The order is a pure function of the seed: example i of the run is a patch of image i mod n of the
reshuffled records, at a position drawn from i; global batch k holds examples [kB, (k+1)B), of which
each host reads a contiguous slice. Nothing but the step is needed to go on after a stop, on any
number of hosts. Patches are float32 [p, p, c] in [0, 1].
"""

from collections.abc import Iterator, Sequence
from typing import SupportsIndex

import grain
import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from recon_ad.data.source import Record
from recon_ad.errors import UserError
from recon_ad.ops import tiles


def to_unit(image: Shaped[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w c"]:
    """uint8 to float32 in [0, 1]; floats pass."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / np.float32(255)
    return image.astype(np.float32)


def resize(
    image: Shaped[np.ndarray, "h w c"], size: tuple[int, int] | None
) -> Shaped[np.ndarray, "H W c"]:
    """Bilinear with antialiasing, float32 in [0, 1]; unchanged where no size is asked for."""
    if size is None or image.shape[:2] == size:
        return image
    unit = to_unit(image)
    planes = [
        np.asarray(
            Image.fromarray(unit[..., i]).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        )
        for i in range(unit.shape[2])
    ]
    return np.stack(planes, axis=-1)


EXAMPLES = 2**31 - 1  # as many as an int32 index tells apart: without end, for any training


class Images:
    """The records' images as a random-access sequence, resized, at least a patch large.

    Decoded images are kept while all of them fit into `cache_mib`; a larger set is decoded anew at
    each access, so memory stays bounded.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        size: tuple[int, int] | None,
        patch_size: int,
        cache_mib: int,
    ):
        if not records:
            raise UserError("no image is left to train on; add good images or hold out fewer.")
        self._records = records
        self._size = size
        self._patch = (patch_size, patch_size)
        first = self._read(0)
        self.channels = first.shape[2]
        self._cache: list[np.ndarray] | None = []
        left = cache_mib * 2**20
        for i in range(len(records)):
            image = first if i == 0 else self._read(i)
            left -= image.nbytes
            if left < 0:
                self._cache = None
                break
            self._cache.append(image)

    def _read(self, i: int) -> np.ndarray:
        image = resize(self._records[i].load(), self._size)
        return tiles.pad_to_tile(image, tile=self._patch)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: SupportsIndex) -> np.ndarray:
        i = i.__index__()
        image = self._cache[i] if self._cache is not None else self._read(i)
        if image.shape[2] != self.channels:
            raise UserError(
                f"{self._records[i].name} has {image.shape[2]} channels but "
                f"{self._records[0].name} has {self.channels}; set config.data.channels."
            )
        return image


def _crop_at(
    index: int, image: Shaped[np.ndarray, "h w c"], patch_size: int, seed: int
) -> dict[str, np.ndarray]:
    # Keyed by the example's own index: Grain's random_map would tie it to the pipeline's shape.
    rng = np.random.default_rng((seed, index))
    row, column = (int(rng.integers(0, n - patch_size + 1)) for n in image.shape[:2])
    patch = image[row : row + patch_size, column : column + patch_size]
    return {"image": to_unit(patch), "index": np.int32(index)}


def patch_batches(
    images: Images,
    *,
    seed: int,
    batch_size: int,
    patch_size: int,
    start: int,
    host: int = 0,
    hosts: int = 1,
    threads: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """This host's slices of the global batches `start`, `start` + 1, … without end.

    Args:
      images: where patches come from, every image equally often.
      seed: of the order and of the positions.
      batch_size: of the global batch; a multiple of `hosts`.
      patch_size: side in px.
      start: first global batch, i.e. the number of steps already done.
      host: index of this host.
      hosts: their number.
      threads: that cut patches ahead of time; the order does not depend on it.

    Returns:
      An iterator of {"image": float32 [b, p, p, c], "index": int32 [b]}, b = batch_size / hosts;
      `index` is the example's global index.
    """
    dataset = (
        grain.MapDataset.source(images)
        .seed(seed)
        .shuffle()
        .repeat(EXAMPLES // len(images) + 1)
        .map_with_index(lambda i, image: _crop_at(i, image, patch_size, seed))
        .batch(batch_size // hosts)[host + start * hosts :: hosts]
    )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
    return iter(dataset.to_iter_dataset(options))


def grid_patches(
    records: Sequence[Record], *, size: tuple[int, int] | None, patch_size: int, limit: int
) -> Float[np.ndarray, "n p p c"]:
    """Up to `limit` patches of a grid without overlap, about as many from each record.

    Which cells of the grid is drawn, the same each time: a regular choice would take the corners.
    """
    patches: list[np.ndarray] = []
    per_image = -(-limit // len(records))
    for i, record in enumerate(records):
        tile = (patch_size, patch_size)
        image = tiles.pad_to_tile(resize(record.load(), size), tile=tile)
        corners = tiles.tile_corners(image.shape[:2], tile=tile, stride=tile)
        rng = np.random.default_rng(i)
        chosen = rng.choice(len(corners), min(per_image, len(corners)), replace=False)
        patches.extend(tiles.cut(to_unit(image), [corners[j] for j in chosen], tile=tile))
    chosen = np.unique(np.linspace(0, len(patches) - 1, limit).astype(int))
    return np.stack([patches[i] for i in chosen])
