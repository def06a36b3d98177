"""The line's loop: each image that arrives is judged once, and its row is committed."""

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

import numpy as np
from jaxtyping import Shaped
from scipy import ndimage

from recon_ad.data.arrays import to_unit
from recon_ad.data.truth import Regions
from recon_ad.detector.image_files import BROKEN, judge_file, overlay_error, overlay_path
from recon_ad.detector.inference import Inference
from recon_ad.line.arrivals import Arrival, Arrivals
from recon_ad.line.store import TRIED, Store
from recon_ad.line.tally import Tally
from recon_ad.runtime import memory
from recon_ad.runtime.stopping import Stop
from recon_ad.runtime.waiting import Retry, opened

SECONDS = 600.0  # that judging an image may take; a large one takes tens

MEMORY = 4.0  # GiB by which it may make the process grow; 20 million pixels take one

LOOK = 0.1  # s between two looks at what judging an image takes

POLL = 0.2  # s between two looks at a folder in which nothing waits

SETTLE = 1.0  # s for which a file has to stay as it is

LONG = 100  # images waiting, at which a growing queue is told

UNREADABLE, AGAIN = 60.0, 2.0  # s for which a file is tried again, s between two tries

PASSING = (errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY)

ENDED = (
    "the process ended twice while it judged this image: it is damaged, or takes more memory than "
    "there is. Change the file to have it tried again."
)

logger = logging.getLogger("recon_ad")


def brightness(image: Shaped[np.ndarray, "h w c"]) -> float:
    """The mean, in [0, 1]."""
    return float(to_unit(image).mean(dtype=np.float64))


def sharpness(image: Shaped[np.ndarray, "h w c"]) -> float:
    """The variance of the Laplacian of the gray image in [0, 1]."""
    gray = to_unit(image).mean(axis=2)
    return float(ndimage.laplace(gray, mode="nearest").var(dtype=np.float64))


def row_of(
    detector: Inference, arrival: Arrival, *, regions: Regions
) -> tuple[dict[str, Any], bytes, Exception | None]:
    """The row of an image but for its times, its overlay, b"" if there is none, and its error."""
    try:
        judged = judge_file(detector, arrival.key.name, arrival.file, regions=regions)
        row = {k: v for k, v in judged.row.items() if k != "path"}
        row |= {"outcome": judged.outcome, "registration": judged.confidence}
        if judged.image is not None:
            row |= {"brightness": brightness(judged.image), "sharpness": sharpness(judged.image)}
        return row, judged.overlay, judged.cause
    except Exception as error:  # one image must not hold up all that come after it
        logger.exception("%s could not be judged", arrival.key.name)
        row = {"outcome": BROKEN, "error": f"{type(error).__name__}: {error}"}
        return row, b"", error


def is_transient(error: BaseException | None) -> bool:
    """Whether the error, or what it came from, is one of reading that may be over soon."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in PASSING:
            return True
        error = error.__cause__
    return False


def overlay_of(output: Path, name: str, *, anomalous: bool) -> Path:
    """Returns where an image's overlay goes."""
    return overlay_path(output / ("reject" if anomalous else "good"), name)


def give_up_and_restart(path: Path, arrival: Arrival, reason: str) -> None:
    """Commits the row of an image that takes too much, and starts this process anew: nothing else
    ends a decoder that is at work."""
    error = f"judging it took {reason}: it was given up."
    latency = time.monotonic() - arrival.seen
    row = {"outcome": BROKEN, "error": error, "latency": latency, "waiting": 0}
    try:
        Store(path).commit(arrival.key, row)
        logger.error("%s: %s Starting anew.", arrival.key.name, error)
    finally:  # without a row the attempt is known all the same
        os.execv(sys.executable, sys.orig_argv)


@contextmanager
def limited(seconds: float, gib: float, give_up: Callable[[str], None]) -> Iterator[None]:
    """Calls `give_up` in another thread, with the reason, where the block takes more.

    Args:
      seconds: that it may take.
      gib: GiB by which the process may grow meanwhile.
      give_up: is called once at most.
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
    """Returns the SHA-256 of a file's content; "" where it cannot be read or is no regular file.

    A pipe would be waited for, and a device has no end.
    """
    try:
        if not file.is_file():
            return ""
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return ""


class Outcome(enum.Enum):
    """What became of an image that arrived."""

    JUDGED = enum.auto()
    KNOWN = enum.auto()  # it has a row, under another inode
    LATER = enum.auto()  # the file has become another, is gone, or is to be tried again


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
    """Judges an image, writes its overlay, commits its row, and counts it.

    Raises:
      OSError, sqlite3.OperationalError: something cannot be written; there is no row then.
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
            # A name that is used again may have had the other verdict before.
            other = overlay_of(output, name, anomalous=not anomalous)
            if reason:
                row |= {"outcome": BROKEN, "error": reason}
            elif other.is_file():
                other.unlink()
        # From when the file was whole: how long it waited is part of it.
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
    """Judges until it is to stop; returns how many images it was, and how many were rejected.

    Args:
      detector: calibrated.
      folder: in which images arrive.
      output: folder of the table and the overlays.
      stop: asked for between two images.
      seconds: the most that judging an image may take.
      gib: the most GiB by which the process may grow for it.

    Raises:
      UserError: the table is none, or was taken away.
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
            stop.wait(max(POLL, time.monotonic() - begin))  # half of the time at most
    store.close()
    return tally
