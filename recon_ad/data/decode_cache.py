"""A cache of decoded images, so that a command decodes each of them once."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recon_ad.data.source import Record, Source

MEBI = 2**20
LARGE = 32

Load = Callable[[], np.ndarray]
Decode = Callable[..., np.ndarray]  # (file, channels=…) -> image


class DecodeCache:
    """Memory for decoded arrays, handed out until it is used up.

    Arrays are read-only. An array that does not fit is decoded at each use. So is an array of more
    than 1/`LARGE` of the limit: judging so large an image takes far longer than decoding it, and
    needs the memory.

    Args:
      memory_mib: Limit in MiB; 0 keeps nothing.
    """

    def __init__(self, *, memory_mib: int):
        self._left = memory_mib * MEBI
        self._largest = self._left // LARGE
        self._lock = threading.Lock()  # images are read in several threads

    def keeping(self, load: Load) -> Load:
        """Return a loader that decodes once while there is room."""
        kept: list[np.ndarray] = []

        def once() -> np.ndarray:
            return kept[0] if kept else self._kept(load(), kept.append)

        return once

    def decoding(self, decode: Decode) -> Decode:
        """Return a decoder that decodes a file once while there is room.

        An image that was decoded with its own channels also serves requests for that number of
        channels.
        """
        kept: dict[tuple[Path, int | None], np.ndarray] = {}

        def keep(file: Path, channels: int | None, image: np.ndarray) -> None:
            kept[file, channels] = kept[file, image.shape[2]] = image

        def once(file: Path, *, channels: int | None = None) -> np.ndarray:
            if (file, channels) in kept:
                return kept[file, channels]
            image = decode(file, channels=channels)
            return self._kept(image, lambda array: keep(file, channels, array))

        return once

    def _kept(self, array: np.ndarray, keep: Callable[[np.ndarray], None]) -> np.ndarray:
        array.flags.writeable = False  # callers share it, or may come to
        with self._lock:
            if array.nbytes <= min(self._left, self._largest):
                self._left -= array.nbytes
                keep(array)
        return array


def decoded_once(source: Source, cache: DecodeCache) -> Source:
    """Return the source with loaders of images, masks and regions that decode once."""

    def kept(record: Record) -> Record:
        return record._replace(
            load=cache.keeping(record.load),
            load_mask=cache.keeping(record.load_mask) if record.load_mask else None,
            load_roi=cache.keeping(record.load_roi) if record.load_roi else None,
            other_masks={name: cache.keeping(load) for name, load in record.other_masks.items()},
        )

    return source._replace(train=tuple(map(kept, source.train)), test=tuple(map(kept, source.test)))
