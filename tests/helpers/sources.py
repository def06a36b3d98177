"""Checks that sources of every kind must pass."""

import pickle

import numpy as np

from recon_ad.data.source import Record, Source


def by_name(source: Source) -> dict[str, Record]:
    """Return all records by their names."""
    return {record.name: record for record in (*source.train, *source.test)}


def channels_of(source: Source) -> set[int]:
    """Return the numbers of channels that occur."""
    return {record.load().shape[2] for record in (*source.train, *source.test)}


def assert_same(ours: Source, theirs: Source, *, every: int = 1) -> None:
    """Compare names, kinds and masks of all records, and the pixels of one in `every`."""
    for both in ((ours.train, theirs.train), (ours.test, theirs.test)):
        by_names = [sorted(records, key=lambda record: record.name) for records in both]
        for i, (a, b) in enumerate(zip(*by_names, strict=True)):
            assert (a.name, a.defect) == (b.name, b.defect)
            assert (a.load_mask is None) == (b.load_mask is None)
            if i % every == 0:
                np.testing.assert_array_equal(a.load(), b.load())
                if a.load_mask:
                    np.testing.assert_array_equal(a.load_mask(), b.load_mask())


def assert_picklable(source: Source) -> None:
    """Pickle the source, as for a worker process, and compare."""
    again = pickle.loads(pickle.dumps(source))
    assert_same(again, source)
    for a, b in zip(again.test, source.test, strict=True):
        assert a.other_masks.keys() == b.other_masks.keys()
        for truth in a.other_masks:
            np.testing.assert_array_equal(a.other_masks[truth](), b.other_masks[truth]())
