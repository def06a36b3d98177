import numpy as np

from recon_ad.data.decode_cache import LARGE, MEBI, DecodeCache


def counted(array):
    calls = []

    def load():
        calls.append(1)
        return array.copy()

    return load, calls


def test_arrays_are_loaded_once_until_the_memory_is_used_up():
    cache, side = DecodeCache(memory_mib=1), MEBI // LARGE
    loads = [counted(np.full(side, i, np.uint8)) for i in range(LARGE + 1)]
    kept = [cache.keeping(load) for load, _ in loads]
    for _ in range(2):
        assert [int(load()[0]) for load in kept] == list(range(LARGE + 1))
    assert [len(calls) for _, calls in loads] == [1] * LARGE + [2]


def test_a_large_array_is_loaded_at_each_use():
    load, calls = counted(np.zeros(MEBI // LARGE + 1, np.uint8))
    once = DecodeCache(memory_mib=1).keeping(load)
    assert not once().flags.writeable and once().shape == (MEBI // LARGE + 1,)
    assert len(calls) == 2
