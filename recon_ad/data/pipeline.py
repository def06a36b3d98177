"""From records to batches of random patches, through Grain.

The order is a pure function of the seed: example i of the run is a patch of image i mod n of the
reshuffled records, at a position drawn from i; global batch k holds examples [kB, (k+1)B), of which
each host reads a contiguous slice. Nothing but the step is needed to go on after a stop, on any
number of hosts. Patches are float32 [p, p, c] in [0, 1].
"""

import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple, SupportsIndex

import grain
import numpy as np
from jaxtyping import Bool, Float, Shaped

from recon_ad.data.arrays import resize, to_unit
from recon_ad.data.source import Record
from recon_ad.errors import UserError
from recon_ad.ops import tiles

EXAMPLES = 2**31 - 1  # as many as an int32 index tells apart: without end, for any training
MEBI = 2**20
# With a region of interest, positions are drawn anew until this share of the patch lies in it.
INSIDE = 0.5
DRAWS = 20  # at most; then the best of them is taken


class Whole(NamedTuple):
    """An image to cut patches from, at least a patch large, and which of its pixels count."""

    image: Shaped[np.ndarray, "h w c"]
    roi: Bool[np.ndarray, "h w"] | None


def read_whole(record: Record, *, size: tuple[int, int] | None, patch_size: int) -> Whole:
    """Decodes a record, resizes it, and mirrors what is smaller than a patch."""
    tile = (patch_size, patch_size)
    image = tiles.pad_to_tile(resize(record.load(), size), tile=tile)
    if record.load_roi is None:
        return Whole(image, None)
    roi = resize(record.load_roi().astype(np.float32)[..., None], size)
    return Whole(image, tiles.pad_to_tile(roi, tile=tile)[..., 0] > 0.5)


class Images:
    """The records' images as a random-access sequence.

    Decoded images are kept in memory while all of them fit into `memory_mib`; a larger set is kept
    in a temporary file (in the folder TMPDIR), of which the system holds in memory what it has room
    for; and one beyond `disk_mib` is decoded anew at each access. So memory stays bounded whatever
    the set.

    Args:
      records: at least one.
      size: height and width in px that images are resized to, or None.
      patch_size: side in px of the patches to come.
      memory_mib: limit of what is kept in memory.
      disk_mib: limit of the temporary file, which goes with the process.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        size: tuple[int, int] | None,
        patch_size: int,
        memory_mib: int,
        disk_mib: int,
    ):
        if not records:
            raise UserError("no image is left to train on; add good images or hold out fewer.")
        self._records = records
        self._size = size
        self._patch_size = patch_size
        self.channels = self._read(0).image.shape[2]
        self._kept = self._keep(memory_mib * MEBI, disk_mib * MEBI)

    def _read(self, i: int) -> Whole:
        return read_whole(self._records[i], size=self._size, patch_size=self._patch_size)

    def _keep(self, memory: int, disk: int) -> list[Whole] | None:
        kept: list[Whole] = []
        used = 0
        for i in range(len(self)):
            whole = self._read(i)
            used += sum(x.nbytes for x in whole if x is not None)
            if used > memory:
                # Guessed from those seen, so that a million images are not decoded in vain.
                fits = used / (i + 1) * len(self) <= disk
                return self._keep_on_disk(disk) if fits else None
            kept.append(whole)
        return kept

    def _keep_on_disk(self, disk: int) -> list[Whole] | None:
        kept: list[Whole] = []
        # It has no name, so that a killed run leaves nothing behind.
        with tempfile.TemporaryFile() as file:
            for i in range(len(self)):
                whole = self._read(i)
                kept.append(Whole(*(None if x is None else _mapped(file, x) for x in whole)))
                if file.tell() > disk:
                    return None
        return kept

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, i: SupportsIndex) -> Whole:
        i = i.__index__()
        whole = self._kept[i] if self._kept is not None else self._read(i)
        if whole.image.shape[2] != self.channels:
            raise UserError(
                f"{self._records[i].name} has {whole.image.shape[2]} channels but "
                f"{self._records[0].name} has {self.channels}; set config.data.channels."
            )
        return whole


def _mapped(file, values: np.ndarray) -> np.ndarray:
    """The values, written to the end of a file and mapped from there."""
    start = file.seek(0, 2)
    file.write(np.ascontiguousarray(values).data)
    file.flush()
    return np.memmap(file, values.dtype, "r", start, values.shape)


def _crop_at(index: int, whole: Whole, patch_size: int, seed: int) -> dict[str, np.ndarray]:
    # Keyed by the example's own index: Grain's random_map would tie it to the pipeline's shape.
    rng = np.random.default_rng((seed, index))
    best, most = np.s_[:0, :0], -1.0
    for _ in range(1 if whole.roi is None else DRAWS):
        row, column = (int(rng.integers(0, n - patch_size + 1)) for n in whole.image.shape[:2])
        here = np.s_[row : row + patch_size, column : column + patch_size]
        inside = 1.0 if whole.roi is None else float(whole.roi[here].mean())
        if inside > most:
            best, most = here, inside
        if most >= INSIDE:
            break
    return {"image": to_unit(whole.image[best]), "index": np.int32(index)}


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
        .map_with_index(lambda i, whole: _crop_at(i, whole, patch_size, seed))
        .batch(batch_size // hosts)[host + start * hosts :: hosts]
    )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
    return iter(dataset.to_iter_dataset(options))


def grid_patches(
    records: Sequence[Record], *, size: tuple[int, int] | None, patch_size: int, limit: int
) -> Float[np.ndarray, "n p p c"]:
    """Up to `limit` patches of a grid without overlap, about as many from each record.

    Which cells of the grid is drawn, the same each time: a regular choice would take the corners.
    With a region of interest, only cells that lie in it by half or more.
    """
    patches: list[np.ndarray] = []
    per_image = -(-limit // len(records))
    tile = (patch_size, patch_size)
    for i, record in enumerate(records):
        image, roi = read_whole(record, size=size, patch_size=patch_size)
        corners = tiles.tile_corners(image.shape[:2], tile=tile, stride=tile)
        if roi is not None:
            inside = tiles.cut(roi[..., None], corners, tile=tile).mean(axis=(1, 2, 3))
            corners = [c for c, share in zip(corners, inside, strict=True) if share >= INSIDE]
        rng = np.random.default_rng(i)
        chosen = rng.choice(len(corners), min(per_image, len(corners)), replace=False)
        for row, column in (corners[j] for j in chosen):
            here = np.s_[row : row + patch_size, column : column + patch_size]
            patches.append(to_unit(image[here]))
    if not patches:
        raise UserError(
            "no patch of the held-out images lies in its region of interest: draw larger regions "
            "or choose a smaller config.data.patch_size."
        )
    chosen = np.unique(np.linspace(0, len(patches) - 1, limit).astype(int))
    return np.stack([patches[i] for i in chosen])
