"""The pipeline from records to batches of patches, through Grain.

The order is a pure function of the seed: example i of the run is a patch of image i mod n of the
reshuffled records, at a position drawn from i. Global batch k holds examples [kB, (k+1)B), of which
each host reads a contiguous slice. The step number alone is enough to resume, on any number of
hosts. Patches are float32 [p, p, c] in [0, 1]. Where training uses the tiles of inference, these
replace the images, and each is one patch.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, SupportsIndex

import grain
import numpy as np
from jaxtyping import Bool, Float, PyTree, Shaped

from recon_ad.data.arrays import resize, to_unit
from recon_ad.data.decode_cache import MEBI
from recon_ad.data.source import Record
from recon_ad.errors import UserError
from recon_ad.ops import tiles
from recon_ad.runtime.progress import progress

EXAMPLES = 2**31 - 1  # the range of an int32 index: without end, for any training
# With a region of interest, positions are drawn anew until this share of the patch lies in it.
INSIDE = 0.5
DRAWS = 20
LARGER = 4  # limit of a patch's side, in longer sides of an image: the rest is mirrored


class Whole(NamedTuple):
    """An image to cut patches from, at least a patch large.

    Attributes:
      image: The image.
      roi: Its pixels that count; None where all do.
      box: First and last row, first and last column of these.
      number: Its place among the images.
    """

    image: Shaped[np.ndarray, "h w c"]
    roi: Bool[np.ndarray, "h w"] | None = None
    box: tuple[int, int, int, int] | None = None
    number: int = 0


def read_whole(record: Record, *, size: tuple[int, int] | None, patch_size: int) -> Whole:
    """Decode a record, resize it, and mirror it up to the size of a patch."""
    tile = (patch_size, patch_size)
    image = record.load()
    resized = tiles.resized_size(image.shape[:2], size)
    image = tiles.pad_to_tile(resize(image, resized), tile=tile)
    if record.load_roi is None:
        return Whole(image)
    roi = resize(record.load_roi().astype(np.float32)[..., None], resized)
    roi = tiles.pad_to_tile(roi, tile=tile)[..., 0] > 0.5
    if not roi.any():
        raise UserError(
            f"{record.name}: nothing is left of its region of interest: draw a larger one, or "
            "leave out config.data.resize."
        )
    rows, columns = (np.flatnonzero(roi.any(axis)) for axis in (1, 0))
    return Whole(image, roi, (int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])))


def check_fits(records: Sequence[Record], *, size: tuple[int, int] | None, patch_size: int) -> None:
    """Raise UserError where nearly all of every patch would be mirrored."""
    longest, where = 0, ""
    for record in records:
        side = max(tiles.resized_size(record.load().shape[:2], size))
        if patch_size <= LARGER * side:
            return  # usually the first: no other is decoded for this
        longest, where = max((longest, where), (side, record.name))
    raise UserError(
        f"config.data.patch_size is {patch_size}, and the largest good image, {where}, has "
        f"{longest} px on its longer side: choose a patch that fits into the images."
    )


class Images:
    """The records' images, or their tiles, as a random-access sequence.

    Decoded images are kept in memory while all of them fit into `memory_mib`. A larger set is kept
    in a temporary file (in the folder TMPDIR), which the system caches in free memory. A set beyond
    `disk_mib` is decoded anew at each access. So memory stays bounded for any set.

    Args:
      records: Records, at least one.
      size: Height and width in px that images are resized to, or None.
      patch_size: Side in px of the patches to come.
      memory_mib: Limit of the memory for images.
      disk_mib: Limit of the temporary file, which is deleted with the process.
      tiled: Whether each tile of an image, as inference cuts it without overlap, is an entry. Tiles
        without a pixel in the region of interest do not count.

    Attributes:
      channels: Channels of each image.
      images: Number of images.
      numbers: The place among the images of each entry of the sequence.
      tiled: As above.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        size: tuple[int, int] | None,
        patch_size: int,
        memory_mib: int,
        disk_mib: int,
        tiled: bool = False,
    ):
        if not records:
            raise UserError("no image is left to train on; add good images or hold out fewer.")
        check_fits(records, size=size, patch_size=patch_size)
        self._records = records
        self._size = size
        self._patch_size = patch_size
        self.images = len(records)
        self.tiled = tiled
        self._corners: dict[int, list[tuple[int, int]]] = {}
        self.channels = self._read(0).image.shape[2]
        self._kept = self._keep(memory_mib * MEBI, disk_mib * MEBI)
        if tiled and self._kept is None:
            for i in progress(range(self.images), "cutting images into tiles"):
                self._read(i)
        counts = [len(self._corners[i]) if tiled else 1 for i in range(self.images)]
        self.numbers = np.repeat(np.arange(self.images), counts)
        self._first = np.cumsum([0, *counts])

    def _read(self, i: int) -> Whole:
        side = self._patch_size
        whole = read_whole(self._records[i], size=self._size, patch_size=side)
        if self.tiled and i not in self._corners:
            corners = tiles.tile_corners(
                whole.image.shape[:2], tile=(side, side), stride=(side, side)
            )
            roi = whole.roi
            self._corners[i] = [
                (r, c) for r, c in corners if roi is None or roi[r : r + side, c : c + side].any()
            ]
        return whole._replace(number=i)

    def _keep(self, memory: int, disk: int) -> list[Whole] | None:
        kept: list[Whole] = []
        used = 0
        for i in progress(range(self.images), "keeping images"):
            whole = self._read(i)
            used += whole.image.nbytes + (0 if whole.roi is None else whole.roi.nbytes)
            if used > memory:
                # Estimated from the first images, so that a million are not decoded in vain.
                fits = used / (i + 1) * self.images <= disk
                return self._keep_on_disk(disk) if fits else None
            kept.append(whole)
        return kept

    def _keep_on_disk(self, disk: int) -> list[Whole] | None:
        kept: list[Whole] = []
        # It has no name, so that a killed run leaves nothing behind.
        with tempfile.TemporaryFile() as file:
            for i in progress(range(self.images), "keeping images on the disk"):
                whole = self._read(i)
                roi = None if whole.roi is None else mapped(file, whole.roi)
                kept.append(Whole(mapped(file, whole.image), roi, whole.box, i))
                if file.tell() > disk:
                    return None
        return kept

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: SupportsIndex) -> Whole:
        entry = index.__index__()
        i = int(self.numbers[entry])
        whole = self._kept[i] if self._kept is not None else self._read(i)
        if whole.image.shape[2] != self.channels:
            raise UserError(
                f"{self._records[i].name} has {whole.image.shape[2]} channels but "
                f"{self._records[0].name} has {self.channels}; set config.data.channels."
            )
        if not self.tiled:
            return whole
        row, column = self._corners[i][entry - self._first[i]]
        side = self._patch_size
        # A tile is one patch, whose place does not depend on a region.
        return Whole(whole.image[row : row + side, column : column + side], number=i)


def mapped(file, values: np.ndarray) -> np.ndarray:
    """Write the values to the end of a file and return them mapped from there."""
    start = file.seek(0, 2)
    file.write(np.ascontiguousarray(values).data)
    file.flush()
    return np.memmap(file, values.dtype, "r", start, values.shape)


def _crop_at(index: int, whole: Whole, patch_size: int, seed: int) -> dict[str, np.ndarray]:
    # Keyed by the example's own index: Grain's random_map would tie it to the pipeline's shape.
    rng = np.random.default_rng((seed, index))
    row, column = _position(rng, whole, patch_size)
    patch = whole.image[row : row + patch_size, column : column + patch_size]
    return {
        "image": to_unit(patch),
        "index": np.int32(index),
        "number": np.int32(whole.number),
    }


def _position(rng: np.random.Generator, whole: Whole, patch_size: int) -> tuple[int, int]:
    """Return the top left corner of a patch.

    Any corner is as likely as any other. With a region of interest, a patch around a random pixel
    of it is drawn again until at least half of it lies in the region: patches deep in the region
    are likelier than those at its edge. Where the region is too small, the best of a few patches is
    taken.
    """
    last = [n - patch_size for n in whole.image.shape[:2]]
    if whole.roi is None or whole.box is None:
        return int(rng.integers(0, last[0] + 1)), int(rng.integers(0, last[1] + 1))
    best, most = (0, 0), -1.0
    for _ in range(DRAWS):
        pixel = _pixel(rng, whole.roi, whole.box)
        offset = rng.integers(0, patch_size, 2)
        row, column = (int(x) for x in np.clip(np.subtract(pixel, offset), 0, last))
        inside = float(whole.roi[row : row + patch_size, column : column + patch_size].mean())
        if inside > most:
            best, most = (row, column), inside
        if most >= INSIDE:
            break
    return best


def _pixel(
    rng: np.random.Generator, roi: Bool[np.ndarray, "h w"], box: tuple[int, int, int, int]
) -> tuple[int, int]:
    """Return a random pixel of the region in the box (first and last row, and column)."""
    top, bottom, left, right = box
    for _ in range(100):
        row, column = int(rng.integers(top, bottom + 1)), int(rng.integers(left, right + 1))
        if roi[row, column]:
            return row, column
    chosen = int(rng.choice(np.flatnonzero(roi)))  # a sparse region: exact, but slow
    return divmod(chosen, roi.shape[1])


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
    """Yield this host's slices of the global batches `start`, `start` + 1, … without end.

    Args:
      images: Source of the patches, every image equally often.
      seed: Seed of the order and of the positions.
      batch_size: Size of the global batch, a multiple of `hosts`.
      patch_size: Side in px.
      start: First global batch, i.e. the number of steps already done.
      host: Index of this host.
      hosts: Number of hosts.
      threads: Number of threads that cut patches ahead of time; the order does not depend on it.

    Returns:
      An iterator of {"image": float32 [b, p, p, c], "index": int32 [b], "number": int32 [b]}, b =
      batch_size / hosts; `index` is the example's global index, `number` its image's place.
    """
    slices = slice(host + start * hosts, None, hosts)
    return _batches(
        images,
        lambda i, whole: _crop_at(i, whole, patch_size, seed),
        seed=seed,
        size=batch_size // hosts,
        slices=slices,
        threads=threads,
    )


def prepared_batches(
    prepared: Sequence[PyTree[np.ndarray]],
    *,
    numbers: Sequence[int] | np.ndarray,
    seed: int,
    batch_size: int,
    start: int,
) -> Iterator[dict[str, Any]]:
    """Yield {"prepared", "index", "number"} in the order of `patch_batches`.

    `prepared` holds a value for each entry of `Images`, whose `numbers` are given.
    """
    return _batches(
        list(zip(numbers, prepared, strict=True)),
        lambda i, row: {"prepared": row[1], "index": np.int32(i), "number": np.int32(row[0])},
        seed=seed,
        size=batch_size,
        slices=slice(start, None),
        threads=1,
    )


def _batches(
    source: Sequence[Any] | Images,
    example: Callable[[int, Any], dict[str, Any]],
    *,
    seed: int,
    size: int,
    slices: slice,
    threads: int,
) -> Iterator[dict[str, Any]]:
    dataset = (
        grain.MapDataset.source(source)
        .seed(seed)
        .shuffle()
        .repeat(EXAMPLES // len(source) + 1)
        .map_with_index(example)
        .batch(size)[slices]
    )
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=8)
    return iter(dataset.to_iter_dataset(options))


def grid_patches(
    records: Sequence[Record], *, size: tuple[int, int] | None, patch_size: int, limit: int
) -> Float[np.ndarray, "n p p c"]:
    """Return up to `limit` patches of a grid, about as many from each record.

    The grid's last row and column end with the image, so they may overlap those before.

    The cells are drawn at random, the same each time: a regular choice would take the corners. With
    a region of interest, only cells with at least half of their pixels in it count.
    """
    patches: list[np.ndarray] = []
    per_image = -(-limit // len(records))
    tile = (patch_size, patch_size)
    for i, record in enumerate(records):
        whole = read_whole(record, size=size, patch_size=patch_size)
        image, roi = whole.image, whole.roi
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
