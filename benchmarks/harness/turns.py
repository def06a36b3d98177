"""Times contenders in turns, so that what else happens on a machine meets all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

BURST = 0.1  # s that a turn lasts at least, where steps are short
LEAST, MOST = 5, 50  # turns
PAUSE = 0.02  # s, until the threads of whoever was before have gone to sleep

# Makes so many steps, one after the other, and returns when the device has finished.
Runner = Callable[[int], object]


class Timing(NamedTuple):
    """Seconds of a step.

    Attributes:
      median: over the turns.
      low: lower quartile.
      high: upper quartile.
      turns: how many.
      steps: in a turn.
    """

    median: float
    low: float
    high: float
    turns: int
    steps: int


def elapsed(runner: Runner, steps: int) -> float:
    """Seconds of so many steps."""
    begin = time.perf_counter()
    runner(steps)
    return time.perf_counter() - begin


def in_turns(
    runners: Mapping[str, Runner], *, seconds: float, burst: float = BURST
) -> dict[str, Timing]:
    """Medians and quartiles of all.

    Args:
      runners: what is timed, by name.
      seconds: that it takes in all, about; fewer turns than `LEAST` are never taken.
      burst: seconds that a turn lasts at least, if a step is shorter.
    """
    steps = {}
    for name, runner in runners.items():
        runner(2)  # compiles, and what a second call still does for the first time
        once = elapsed(runner, 1)
        steps[name] = max(1, round(burst / once))
        runner(steps[name])
    taken: dict[str, list[float]] = {name: [] for name in runners}
    names, begin = list(runners), time.perf_counter()
    for turn in range(MOST):
        if turn >= LEAST and time.perf_counter() - begin > seconds:
            break
        # Nobody always comes after the same one.
        for name in names if turn % 2 else names[::-1]:
            time.sleep(PAUSE)
            taken[name].append(elapsed(runners[name], steps[name]) / steps[name])
    timings = {}
    for name, values in taken.items():
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        timings[name] = Timing(median, low, high, len(values), steps[name])
    return timings
