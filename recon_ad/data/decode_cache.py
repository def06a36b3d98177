"""Decoded images kept in memory from one use to the next, so that a command decodes each once."""

import threading
from collections.abc import Callable

import numpy as np

from recon_ad.data.source import Record, Source

MEBI = 2**20

Load = Callable[[], np.ndarray]


class _Room:
    """Memory for decoded arrays, handed out until it is used up."""

    def __init__(self, size: int):
        self._left = size
        self._lock = threading.Lock()  # training reads images in several threads

    def keeping(self, load: Load) -> Load:
        """Returns a loader that decodes once while there is room, and anew each time after that."""
        kept: list[np.ndarray] = []

        def once() -> np.ndarray:
            with self._lock:
                if kept:
                    return kept[0]
            array = load()
            array.flags.writeable = False  # it is everyone's, also where it is not kept
            with self._lock:
                if not kept and array.nbytes <= self._left:
                    self._left -= array.nbytes
                    kept.append(array)
            return array

        return once


def decoded_once(source: Source, *, memory_mib: int) -> Source:
    """Returns the source with loaders that keep what they decode: images, masks and regions.

    Arrays are read-only. What does not fit into the memory is decoded at each use.

    Args:
      source: any.
      memory_mib: limit of what is kept, in MiB.
    """
    room = _Room(memory_mib * MEBI)

    def kept(record: Record) -> Record:
        return record._replace(
            load=room.keeping(record.load),
            load_mask=room.keeping(record.load_mask) if record.load_mask else None,
            load_roi=room.keeping(record.load_roi) if record.load_roi else None,
            other_masks={name: room.keeping(load) for name, load in record.other_masks.items()},
        )

    return source._replace(train=tuple(map(kept, source.train)), test=tuple(map(kept, source.test)))
