"""Requests to end a command, from its user or from a scheduler that takes its machine back."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STEP = 0.1  # s until a request is noticed at the latest
# Exit status of a run that was asked to end and resumes when it is started again: EX_TEMPFAIL of
# sysexits.h. Launchers put a run with this status into the queue again.
REQUEUE = 75


class Stop:
    """Request to stop.

    It is not a `threading.Event`, whose lock may be held by the very thread that a signal's handler
    interrupts; neither could then continue.
    """

    def __init__(self) -> None:
        self.asked = False

    def ask(self, *_: object) -> None:
        """Request the stop; also usable as a signal's handler."""
        self.asked = True

    def wait(self, seconds: float) -> bool:
        """Sleep for this time or until a stop is requested, and return whether it is."""
        end = time.monotonic() + seconds
        while not self.asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(STEP, left))
        return self.asked


def on_signals() -> Stop:
    """Return a `Stop` that SIGTERM and SIGINT request."""
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.ask)
    return stop


def requeue(*_: object) -> None:
    """End the program with `REQUEUE`; also a signal's handler if there is nothing to save."""
    sys.exit(REQUEUE)


@contextmanager
def on_sigterm(handler: Any) -> Iterator[None]:
    """Handle SIGTERM with this handler while the block runs.

    Signals reach only the main thread; in any other thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        # None if it was not set by Python: JAX sets one if there are several hosts.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def deferred() -> Iterator[Stop]:
    """Turn SIGTERM into a request to stop while the block runs, so that it can save its work.

    Inside another such block, the outer block's `Stop` is used, so that no request is lost between
    two blocks.
    """
    outer = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    stop = outer if isinstance(outer, Stop) else Stop()
    with on_sigterm(stop.ask):
        yield stop
