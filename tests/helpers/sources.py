"""Checks that sources of every kind have to pass."""

import pickle
from collections.abc import Sequence

import numpy as np

from recon_ad.data.pipeline import Images, patch_batches
from recon_ad.data.source import Record, Source


def by_name(source: Source) -> dict[str, Record]:
    """Returns all records by their names."""
    return {record.name: record for record in (*source.train, *source.test)}


def channels_of(source: Source) -> set[int]:
    """Returns the numbers of channels that occur."""
    return {record.load().shape[2] for record in (*source.train, *source.test)}


def assert_same(ours: Source, theirs: Source, *, every: int = 1) -> None:
    """Compares names, types, images and masks; the pixels of every so many records only."""
    for mine, others in ((ours.train, theirs.train), (ours.test, theirs.test)):
        others = sorted(others, key=lambda record: record.name)
        for i, (a, b) in enumerate(
            zip(sorted(mine, key=lambda record: record.name), others, strict=True)
        ):
            assert (a.name, a.defect) == (b.name, b.defect)
            assert (a.load_mask is None) == (b.load_mask is None)
            if i % every == 0:
                np.testing.assert_array_equal(a.load(), b.load())
                if a.load_mask:
                    np.testing.assert_array_equal(a.load_mask(), b.load_mask())


def assert_picklable(source: Source) -> None:
    """Sends the source as to a worker process, and compares."""
    again = pickle.loads(pickle.dumps(source))
    assert_same(again, source)
    for a, b in zip(again.test, source.test, strict=True):
        assert a.other_masks.keys() == b.other_masks.keys()
        for truth in a.other_masks:
            np.testing.assert_array_equal(a.other_masks[truth](), b.other_masks[truth]())


def assert_patches_are_cut_from(records: Sequence[Record]) -> None:
    """Cuts patches of RGB records, in the same order again from a later start."""
    images = Images(records, size=None, patch_size=32, memory_mib=0, disk_mib=0)
    first, later = (
        patch_batches(images, seed=0, batch_size=6, patch_size=32, start=start) for start in (0, 2)
    )
    seen = [next(first)["image"] for _ in range(3)]
    assert {batch.shape for batch in seen} == {(6, 32, 32, 3)}
    np.testing.assert_array_equal(next(later)["image"], seen[2])
    windows = [
        np.lib.stride_tricks.sliding_window_view(record.load(), (32, 32), axis=(0, 1))
        for record in records
    ]
    for patch in np.rint(seen[0] * 255).astype(np.uint8):
        moved = np.moveaxis(patch, 2, 0)
        assert any((w == moved).all(axis=(2, 3, 4)).any() for w in windows)
