"""Ending a command that runs until it is told to stop, or whose machine a scheduler takes back."""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STEP = 0.1  # s, after which a request is heard at the latest
# Exit status of a run that was asked to end and goes on when it is started again: EX_TEMPFAIL of
# sysexits.h. Launchers put the run into the queue again where they see it.
REQUEUE = 75


class Stop:
    """Whether to stop.

    Not `threading.Event`: its lock may be held by the very thread that a signal's handler
    interrupts, and then neither goes on.
    """

    def __init__(self) -> None:
        self.asked = False

    def ask(self, *_: object) -> None:
        """Also as a signal's handler."""
        self.asked = True

    def wait(self, seconds: float) -> bool:
        """Sleeps so long, or until it is asked for; returns whether it is."""
        end = time.monotonic() + seconds
        while not self.asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(STEP, left))
        return self.asked


def on_signals() -> Stop:
    """Returns a `Stop` that SIGTERM and SIGINT ask for."""
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.ask)
    return stop


def requeue(*_: object) -> None:
    """Ends the program with `REQUEUE`; also as a signal's handler, where nothing is to be saved."""
    sys.exit(REQUEUE)


@contextmanager
def on_sigterm(handler: Any) -> Iterator[None]:
    """SIGTERM is handled so while the block runs.

    Signals reach the main thread only: in any other nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        # None where it was not Python that set it: JAX does so where there are several hosts.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


@contextmanager
def deferred() -> Iterator[Stop]:
    """SIGTERM only asks to stop while the block runs: who is in it has something to save.

    In another such block it is that one's `Stop`, so that no request is lost between two of them.
    """
    outer = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    stop = outer if isinstance(outer, Stop) else Stop()
    with on_sigterm(stop.ask):
        yield stop
