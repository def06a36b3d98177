"""How far a command is that goes through many things: a line of the log now and then."""

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

EVERY = 10.0  # s between two lines; what is done sooner says nothing

logger = logging.getLogger("recon_ad")

_Item = TypeVar("_Item")


def told(items: Iterable[_Item], what: str, *, total: int | None = None) -> Iterator[_Item]:
    """The items, one after the other, while the log has how many of them are done.

    Args:
      items: images, or what stands for them.
      what: is done to them, as "evaluation".
      total: how many there are, where the items cannot tell.
    """
    if total is None:
        assert isinstance(items, Sized)
        total = len(items)
    last, said = time.monotonic(), False
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last >= EVERY:
            last, said = now, True
            logger.info("%s: %d of %d", what, done, total)
        yield item
    if said:
        logger.info("%s: all %d", what, total)
