"""Test images judged by several hosts at once, with the same metrics as by one."""

import functools
import itertools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from helpers.detectors import make_detector, plain_detector

from recon_ad.alignment.part import NotRegistered
from recon_ad.data import GOOD, Record, Source
from recon_ad.evaluation import judge as judging
from recon_ad.evaluation import run as evaluation
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime import stopping

TEST = 11


@functools.cache
def detector_between():
    """Return a detector whose thresholds some images and some pixels exceed."""
    return make_detector(**{"inference.sigma": 1.0})


def record(i, *, truths=True, sizes=((50, 60),)):
    image = np.random.default_rng(i).random((*sizes[i % len(sizes)], 1), np.float32)
    mask = np.zeros(image.shape[:2], bool)
    kind = (GOOD, "bar", "dot")[i % 3]
    if kind != GOOD:
        mask[10:20, 10:40] = True
        image[mask] = 1 if kind == "bar" else 0
    other = {"B": lambda: ~mask} if i % 4 == 1 else {}
    known = (lambda: mask) if truths or i % 2 else None
    return Record(f"{i:02d}.png", lambda: image, kind, known, other)


def source_of(**options):
    train = tuple(record(3 * i)._replace(name=f"good{i}.png") for i in range(4))
    return Source(train, tuple(record(i, **options) for i in range(TEST)))


class Hosts:
    """Threads instead of processes: `work` runs in each of them as that host.

    JAX's functions and the network are replaced, but not `recon_ad.runtime.mesh` itself.
    """

    def __init__(self, count, monkeypatch):
        self.count, self.here = count, threading.local()
        self.barrier, self.given = threading.Barrier(count, timeout=60), [None] * count
        self.gathered = [0] * count  # calls by each host
        monkeypatch.setattr(meshes.jax, "process_count", lambda: count)
        monkeypatch.setattr(meshes.jax, "process_index", lambda: self.here.index)
        monkeypatch.setattr(meshes.multihost_utils, "process_allgather", self.allgather)
        monkeypatch.setattr(meshes, "wait_for_all", self.barrier.wait)
        monkeypatch.setattr(meshes, "requeue_all", self.requeue_all)

    def allgather(self, array):
        self.given[self.here.index] = np.asarray(array)
        self.gathered[self.here.index] += 1
        self.barrier.wait()
        everyone = np.stack(self.given)  # of one shape and type, as with JAX
        assert len({one.dtype for one in self.given}) == 1
        self.barrier.wait()
        return everyone

    def requeue_all(self):
        self.barrier.wait()
        raise SystemExit(stopping.REQUEUE)

    def run(self, work):
        def one(index):
            self.here.index = index
            return work()

        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(one, range(self.count)))


@pytest.mark.parametrize("count", [2, 3, 12])  # the last one has a host without an image
@pytest.mark.parametrize(
    "options", [{}, {"truths": False}, {"sizes": ((50, 60), (40, 40))}], ids=["", "some", "sizes"]
)
def test_several_hosts_find_what_one_finds(count, options, monkeypatch):
    detector, source = detector_between(), source_of(**options)
    expected = evaluation.judge_source(detector, source)
    judged, pooled = expected.parts[""]
    assert len(judged) == TEST and list(pooled.defects) == ["bar", "dot"]
    for seen in Hosts(count, monkeypatch).run(lambda: evaluation.judge_source(detector, source)):
        ours, pixels = seen.parts[""]
        bare = ([one._replace(pixels=None) for one in rows] for rows in (ours, judged))
        assert next(bare) == next(bare)
        assert list(pixels.defects) == list(pooled.defects)
        # Shares of regions are added in another order.
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), pixels, pooled)
        jax.tree.map(np.testing.assert_array_equal, pixels.patches, pooled.patches)
        assert seen.baselines == expected.baselines
        assert seen.images <= TEST and (seen.images > 0 or count == 12)


def test_images_without_the_part_are_named_in_their_order(monkeypatch):
    detector, source = detector_between(), source_of()
    lost = ("03.png", "04.png", "08.png")
    decide = judging._decide

    def at_times(detector, image, roi):
        if any(np.array_equal(image, r.load()) for r in source.test if r.name in lost):
            raise NotRegistered.__new__(NotRegistered)
        return decide(detector, image, roi)

    monkeypatch.setattr(judging, "_decide", at_times)
    left = sorted({record.name for record in source.test} - set(lost))
    for seen in Hosts(2, monkeypatch).run(lambda: evaluation.judge_source(detector, source)):
        assert tuple(seen.lost) == lost
        assert [one.name for one in seen.parts[""][0]] == left


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_each_item_is_one_hosts(count, monkeypatch):
    hosts, items = Hosts(count, monkeypatch), list(range(TEST))

    def work():
        mine = list(meshes.host_share(items, stopping.Stop()))
        assert len(mine) == meshes.host_share_length(items)
        return mine

    shares = hosts.run(work)
    assert sorted(itertools.chain(*shares)) == items
    assert shares[0] == items[::count]
    assert len(set(hosts.gathered)) == 1  # otherwise one of them would wait forever


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 30])
def test_what_is_gathered_may_be_larger_than_a_piece(size, monkeypatch):
    monkeypatch.setattr(meshes, "PIECE", 8 + len(pickle.dumps(b"")))
    hosts, given = Hosts(3, monkeypatch), [bytes([i]) * size * i for i in range(3)]
    for found in hosts.run(lambda: meshes.all_gather(given[hosts.here.index])):
        assert found == given


@pytest.mark.parametrize("asked_at", [2, 4])
def test_who_is_asked_to_stop_ends_between_two_images_or_after_the_last(asked_at):
    stop, found = stopping.Stop(), []
    with pytest.raises(SystemExit, match=f"^{stopping.REQUEUE}$"):
        for item in meshes.host_share(range(5), stop):
            found.append(item)
            if item == asked_at:
                stop.ask()
    assert found == list(range(asked_at + 1))


@pytest.mark.parametrize("items", [0, 5, 6])
def test_a_host_that_is_asked_to_stop_ends_all(items, monkeypatch):
    hosts = Hosts(2, monkeypatch)

    def work():
        stop = stopping.Stop()
        if hosts.here.index == 1:
            stop.ask()
        with pytest.raises(SystemExit, match=f"^{stopping.REQUEUE}$"):
            list(meshes.host_share(range(items), stop))

    hosts.run(work)


@pytest.mark.parametrize("moment", ["mean", "last image"])
def test_a_request_to_stop_is_never_lost(moment):
    stop, source = stopping.Stop(), source_of()
    asking = source.train[1] if moment == "mean" else source.test[-1]

    def load():
        stop.ask()
        return asking.load()

    changed = {asking.name: asking._replace(load=load)}
    if moment == "mean":  # it is to stop before the next image
        changed[source.train[2].name] = source.train[2]._replace(load=None)
    parts = [[changed.get(r.name, r) for r in half] for half in source[:2]]
    with pytest.raises(SystemExit, match=f"^{stopping.REQUEUE}$"):
        evaluation.judge_source(plain_detector(), Source(*map(tuple, parts)), stop=stop)
