"""Checks that sources of every kind have to pass."""

import pickle

import numpy as np

from recon_ad.data.source import Record, Source


def by_name(source: Source) -> dict[str, Record]:
    """Returns all records by their names."""
    return {record.name: record for record in (*source.train, *source.test)}


def channels_of(source: Source) -> set[int]:
    """Returns the numbers of channels that occur."""
    return {record.load().shape[2] for record in (*source.train, *source.test)}


def assert_same(ours: Source, theirs: Source, *, every: int = 1) -> None:
    """Compares names, types, images and masks; the pixels of every so many records only."""
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
    """Sends the source as to a worker process, and compares."""
    again = pickle.loads(pickle.dumps(source))
    assert_same(again, source)
    for a, b in zip(again.test, source.test, strict=True):
        assert a.other_masks.keys() == b.other_masks.keys()
        for truth in a.other_masks:
            np.testing.assert_array_equal(a.other_masks[truth](), b.other_masks[truth]())
