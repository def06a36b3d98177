"""Progress of a command that processes many items: a bar on a terminal, lines in a log.

A line gives the count, the rate and the remaining time: "step 350 of 800: train_loss 0.0151,
12.3 steps/s, 37 s left".
"""

import io
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm

EVERY = 10.0  # s between two lines; shorter work logs none

logger = logging.getLogger("recon_ad")

_Item = TypeVar("_Item")


def pace(done: int, left: int, seconds: float, *, what: str = "") -> str:
    """Return the rate and the remaining time, such as "12.3 steps/s, 37 s left".

    Args:
      done: Number of items done in these seconds. 0 returns "".
      left: Number of remaining items. 0 returns "".
      seconds: Time spent so far.
      what: Name of an item in the singular. "" stands for items without a name.
    """
    if not done or not left or seconds <= 0:
        return ""
    rate = done / seconds
    if rate >= 1:
        plural = f"{what}es" if what.endswith("ch") else f"{what}s"
        fast = f"{_digits(rate)} {plural}/s" if what else f"{_digits(rate)}/s"
    else:
        fast = f"{_digits(1 / rate)} s/{what}" if what else f"{_digits(1 / rate)} s each"
    return f"{fast}, {duration(left / rate)} left"


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"


def duration(seconds: float) -> str:
    """Return a time in a suitable unit: "37 s", "12 min", "3.4 h"."""
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    if seconds < 100 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


class _Lines(tqdm):
    """Progress bar for a log file, where each redrawing is a line."""

    monitor_interval = 0  # no monitoring thread

    def __init__(self, **options: Any):
        self._last = 0  # count in the last line; the bar would otherwise draw a line at 0
        super().__init__(file=io.StringIO(), mininterval=EVERY, miniters=1, leave=False, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Log the number of items done."""
        if msg is None and self.n > self._last:
            self._last = self.n
            done = f"all {self.n}" if self.n == self.total else f"{self.n} of {self.total}"
            fast = pace(self.n, self.total - self.n, self.format_dict["elapsed"])
            logger.info("%s: %s", self.desc, ", ".join(filter(None, [done, fast])))

    def close(self) -> None:
        """Log that all items are done, if lines came before."""
        if self._last > 0 and self.n == self.total:
            self.display()
        super().close()


def progress(items: Iterable[_Item], what: str, *, total: int | None = None) -> Iterator[_Item]:
    """Yield the items while the terminal or the log shows how many of them are done.

    Args:
      items: Images, or items that represent them.
      what: Name of the work, such as "evaluation".
      total: Number of items, if they have no length.
    """
    if total is None:
        assert isinstance(items, Sized)
        total = len(items)
    if not logger.isEnabledFor(logging.INFO):  # all hosts but the first are silent
        yield from items
        return
    if sys.stderr.isatty():
        bar = tqdm(desc=what, total=total, delay=EVERY / 5, leave=False)
    else:
        bar = _Lines(desc=what, total=total)
    with bar:
        for item in items:
            yield item
            bar.update()
