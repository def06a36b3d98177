"""Timing of contenders in turns, so that other load on the machine affects all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

BURST = 0.1  # s, shortest turn if steps are short
LEAST, MOST = 5, 50  # number of turns
PAUSE = 0.02  # s, until the threads of the previous contender are asleep

# Runs so many steps one after another, and returns when the device has finished.
Runner = Callable[[int], object]


class Timing(NamedTuple):
    """Seconds per step.

    Attributes:
      median: Median over the turns.
      low: Lower quartile.
      high: Upper quartile.
      turns: Number of turns.
      steps: Steps per turn.
    """

    median: float
    low: float
    high: float
    turns: int
    steps: int


def elapsed(runner: Runner, steps: int) -> float:
    """Return the seconds that so many steps take."""
    begin = time.perf_counter()
    runner(steps)
    return time.perf_counter() - begin


def in_turns(
    runners: Mapping[str, Runner], *, seconds: float, burst: float = BURST
) -> dict[str, Timing]:
    """Time all contenders in turns and return medians and quartiles.

    Args:
      runners: Contenders by name.
      seconds: Approximate total time. At least `LEAST` turns are taken.
      burst: Shortest time of a turn in seconds, if a step is shorter.
    """
    steps = {}
    for name, runner in runners.items():
        runner(2)  # compiles; a second call may still do some work for the first time
        once = elapsed(runner, 1)
        steps[name] = max(1, round(burst / once))
        runner(steps[name])
    taken: dict[str, list[float]] = {name: [] for name in runners}
    names, begin = list(runners), time.perf_counter()
    for turn in range(MOST):
        if turn >= LEAST and time.perf_counter() - begin > seconds:
            break
        # The order alternates, so that no contender always follows the same one.
        for name in names if turn % 2 else names[::-1]:
            time.sleep(PAUSE)
            taken[name].append(elapsed(runners[name], steps[name]) / steps[name])
    timings = {}
    for name, values in taken.items():
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        timings[name] = Timing(median, low, high, len(values), steps[name])
    return timings
