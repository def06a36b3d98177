"""The line's loop: each arriving image is judged once, and its row is committed."""

import enum
import errno
import functools
import hashlib
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recon_ad.data.exposure import brightness, sharpness
from recon_ad.data.truth import Regions
from recon_ad.detector.image_files import BROKEN, judge_file, overlay_error, overlay_path
from recon_ad.detector.inference import Inference
from recon_ad.line.arrivals import Arrival, Arrivals
from recon_ad.line.store import TRIED, Store
from recon_ad.line.tally import Tally
from recon_ad.runtime import memory
from recon_ad.runtime.files import open_regular
from recon_ad.runtime.stopping import Stop
from recon_ad.runtime.waiting import Retry, opened

SECONDS = 600.0  # longest time that judging an image may take; a large one takes tens of seconds

MEMORY = 4.0  # GiB by which an image may grow the process; 20 million pixels need one GiB

LOOK = 0.1  # s between two checks of the time and memory that judging takes

POLL = 0.2  # s between two scans of an idle folder

SETTLE = 1.0  # s for which a file must stay unchanged

LONG = 100  # waiting images above which a growing queue is logged

UNREADABLE, AGAIN = 60.0, 2.0  # s for which an unreadable file is retried, s between two tries

PASSING = (errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY)

ENDED = (
    "the process ended twice while judging this image: it is damaged, or needs more memory than "
    "is available. Change the file to have it tried again."
)

logger = logging.getLogger("recon_ad")


def row_of(
    detector: Inference, arrival: Arrival, *, regions: Regions
) -> tuple[dict[str, Any], bytes, Exception | None]:
    """Judge an image and return its row without times, its overlay (b"" if none) and its error."""
    try:
        judged = judge_file(detector, arrival.key.name, arrival.file, regions=regions)
        row = {k: v for k, v in judged.row.items() if k != "path"}
        row |= {"outcome": judged.outcome, "registration": judged.confidence}
        if judged.image is not None:
            row |= {"brightness": brightness(judged.image), "sharpness": sharpness(judged.image)}
        return row, judged.overlay, judged.cause
    except Exception as error:  # one image must not block all later ones
        logger.exception("%s could not be judged", arrival.key.name)
        row = {"outcome": BROKEN, "error": f"{type(error).__name__}: {error}"}
        return row, b"", error


def is_transient(error: BaseException | None) -> bool:
    """Return whether the error, or a cause of it, is a read error that may soon pass."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in PASSING:
            return True
        error = error.__cause__
    return False


def overlay_of(output: Path, name: str, *, anomalous: bool) -> Path:
    """Return the path of an image's overlay."""
    return overlay_path(output / ("reject" if anomalous else "good"), name)


def give_up_and_restart(path: Path, arrival: Arrival, reason: str) -> None:
    """Commit an error row for an image that exceeds its limits, and restart this process.

    Nothing but a restart ends a running decoder.
    """
    error = f"judging it took {reason}: it was given up."
    latency = time.monotonic() - arrival.seen
    row = {"outcome": BROKEN, "error": error, "latency": latency, "waiting": 0}
    try:
        Store(path).commit(arrival.key, row)
        logger.error("%s: %s Restarting.", arrival.key.name, error)
    finally:  # the recorded attempt counts even if the row could not be written
        os.execv(sys.executable, sys.orig_argv)


@contextmanager
def limited(seconds: float, gib: float, give_up: Callable[[str], None]) -> Iterator[None]:
    """Call `give_up` from another thread with the reason if the block exceeds its limits.

    Args:
      seconds: Longest time that the block may take.
      gib: GiB by which the process may grow meanwhile.
      give_up: Function that is called at most once.
    """
    done, start, before = threading.Event(), time.monotonic(), memory.resident()

    def watch() -> None:
        while not done.wait(LOOK):
            if time.monotonic() - start > seconds:
                return give_up(f"longer than {seconds:g} s")
            if memory.resident() - before > gib * 2**30:
                return give_up(f"more than {gib:g} GiB of memory")
        return None

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def content_of(file: Path) -> str:
    """Return the SHA-256 of a file, or "" if it is unreadable or not a regular file.

    Reading a pipe would block, and reading a device would never end.
    """
    try:
        with open_regular(file) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return ""


class Outcome(enum.Enum):
    """Outcome of an attempt on an arrived image."""

    JUDGED = enum.auto()
    KNOWN = enum.auto()  # the image already has a row, under another inode
    LATER = enum.auto()  # the file has changed or is gone, or is to be tried again


def inspect_one(
    detector: Inference,
    arrival: Arrival,
    *,
    arrivals: Arrivals,
    store: Store,
    output: Path,
    regions: Regions,
    waiting: int,
    tally: Tally,
) -> Outcome:
    """Judge an image, write its overlay, commit its row, and count it.

    Raises:
      OSError, sqlite3.OperationalError: If something cannot be written. No row is committed then.
    """
    begin = time.monotonic()
    if arrivals.key_of(arrival.file) != arrival.key:
        return Outcome.LATER
    with store.attempt(arrival.key) as ended:
        sha256 = content_of(arrival.file)
        if store.has(arrival.key, sha256):
            return Outcome.KNOWN
        if ended < TRIED:
            row, overlay, error = row_of(detector, arrival, regions=regions)
        else:
            row, overlay, error = {"outcome": BROKEN, "error": ENDED}, b"", None
        if arrivals.key_of(arrival.file) != arrival.key:
            return Outcome.LATER
        if is_transient(error) and arrivals.put_off(arrival.key, pause=AGAIN, most=UNREADABLE):
            return Outcome.LATER
        if overlay:
            name, anomalous = arrival.key.name, row["anomalous"]
            reason = overlay_error(overlay_of(output, name, anomalous=anomalous), overlay)
            # A reused name may have had the other verdict before.
            other = overlay_of(output, name, anomalous=not anomalous)
            if reason:
                row |= {"outcome": BROKEN, "error": reason}
            elif other.is_file():
                other.unlink()
        # Measured from when the file was complete, so it includes the waiting time.
        latency = time.monotonic() - min(arrival.seen + SETTLE, begin)
        row |= {"waiting": waiting, "latency": latency, "sha256": sha256}
        store.commit(arrival.key, row)
    if row["error"]:
        logger.warning("%s: %s", arrival.key.name, row["error"])
    tally.add(arrival.key.name, row)
    return Outcome.JUDGED


def run_line(
    detector: Inference,
    folder: Path,
    output: Path,
    *,
    stop: Stop,
    seconds: float = SECONDS,
    gib: float = MEMORY,
) -> Tally:
    """Judge arriving images until a stop is requested.

    Args:
      detector: A calibrated detector.
      folder: Folder in which images arrive.
      output: Folder of the table and the overlays.
      stop: Stop request, checked between two images.
      seconds: Longest time that judging one image may take.
      gib: GiB by which one image may grow the process.

    Returns:
      The counts of judged and rejected images.

    Raises:
      UserError: If the table's file is not a line's table, or was moved or deleted.
    """
    regions = Regions(folder)
    retry = Retry(output, stop)
    table = output / "line.sqlite"
    tally = Tally()
    store = opened(lambda: Store(table), retry=retry, stop=stop)
    if store is None:
        return tally
    arrivals = Arrivals(folder, store.known(), settle=SETTLE, clock=time.monotonic)
    longest = LONG
    while not stop.asked:
        begin = time.monotonic()
        ready = [a for a in arrivals.ready() if not regions.is_region(a.file)]
        if len(ready) > longest:
            logger.warning("%d images are waiting", len(ready))
            longest = 2 * len(ready)
        elif not ready:
            longest = LONG
        for place, arrival in enumerate(ready):
            give_up = functools.partial(give_up_and_restart, table, arrival)
            while not stop.asked:
                try:
                    with limited(seconds, gib, give_up):
                        outcome = inspect_one(
                            detector, arrival, arrivals=arrivals, store=store, output=output,
                            regions=regions, waiting=len(ready) - place - 1, tally=tally,
                        )  # fmt: skip
                except (OSError, sqlite3.OperationalError) as error:
                    retry.wait(error)
                    continue
                retry.over()
                if outcome is not Outcome.LATER:
                    arrivals.done(arrival.key)
                break
            tally.tell()
        if not ready:
            tally.tell()
            stop.wait(max(POLL, time.monotonic() - begin))  # scanning takes half the time at most
    store.close()
    return tally
