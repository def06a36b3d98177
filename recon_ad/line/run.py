"""The line's loop: each image that arrives is judged once, and its row is committed."""

import errno
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from scipy import ndimage

from recon_ad.data.arrays import to_unit
from recon_ad.data.truth import Regions
from recon_ad.detector.image_files import BROKEN, judge_file, overlay_path
from recon_ad.detector.inference import Inference
from recon_ad.line.arrivals import Arrival, Arrivals
from recon_ad.line.store import Store
from recon_ad.runtime import files
from recon_ad.runtime.stopping import Stop
from recon_ad.runtime.waiting import Retry

POLL = 0.2  # s between two looks at a folder in which nothing waits

SETTLE = 1.0  # s for which a file has to stay as it is

LONG = 100  # images waiting, at which a growing queue is told

UNREADABLE, AGAIN = 60.0, 2.0  # s for which a file is tried again, s between two tries

PASSING = (errno.EIO, errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY)


logger = logging.getLogger("recon_ad")


def brightness(image: Shaped[np.ndarray, "h w c"]) -> float:
    """The mean, in [0, 1]."""
    return float(to_unit(image).mean(dtype=np.float64))


def sharpness(image: Shaped[np.ndarray, "h w c"]) -> float:
    """The variance of the Laplacian of the gray image in [0, 1]."""
    gray = to_unit(image).mean(axis=2)
    return float(ndimage.laplace(gray, mode="nearest").var(dtype=np.float64))


def described(
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


def may_pass(error: BaseException | None) -> bool:
    """Whether the error, or what it came from, is one of reading that may be over soon."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in PASSING:
            return True
        error = error.__cause__
    return False


def overlay_of(output: Path, name: str, *, anomalous: bool) -> Path:
    """Returns where an image's overlay goes."""
    return overlay_path(output / ("reject" if anomalous else "good"), name)


def inspect_one(
    detector: Inference,
    arrival: Arrival,
    *,
    arrivals: Arrivals,
    store: Store,
    output: Path,
    regions: Regions,
    waiting: int,
) -> bool:
    """Judges an image, writes its overlay, and commits its row; False if there is none to commit:
    the file has become another, is gone, or is to be tried again.

    Raises:
      OSError, sqlite3.OperationalError: something cannot be written; there is no row then.
    """
    begin = time.monotonic()
    if arrivals.key_of(arrival.file) != arrival.key:
        return False
    row, overlay, error = described(detector, arrival, regions=regions)
    if arrivals.key_of(arrival.file) != arrival.key:
        return False
    if may_pass(error) and arrivals.put_off(arrival.key, pause=AGAIN, most=UNREADABLE):
        return False
    if overlay:
        anomalous = bool(row["anomalous"])
        files.write_bytes(overlay_of(output, arrival.key.name, anomalous=anomalous), overlay)
        # A name that is used again may have had the other verdict before.
        overlay_of(output, arrival.key.name, anomalous=not anomalous).unlink(missing_ok=True)
    # From when the file was whole: how long it waited is part of it.
    row |= {"waiting": waiting, "latency": time.monotonic() - min(arrival.seen + SETTLE, begin)}
    store.commit(arrival.key, row)
    if row["error"]:
        logger.warning("%s: %s", arrival.key.name, row["error"])
    return True


def run_line(detector: Inference, folder: Path, output: Path, *, stop: Stop) -> int:
    """Judges until it is to stop; returns how many images it was."""
    regions = Regions(folder)
    retry = Retry(output, stop)
    store = None
    while store is None and not stop.asked:
        try:
            store = Store(output / "line.sqlite")
        except sqlite3.OperationalError as error:
            retry.wait(error)
    if store is None:
        return 0
    arrivals = Arrivals(folder, store.known(), settle=SETTLE, clock=time.monotonic)
    count, longest = 0, LONG
    while not stop.asked:
        begin = time.monotonic()
        ready = [a for a in arrivals.ready() if not regions.is_region(a.file)]
        if len(ready) > longest:
            logger.warning("%d images are waiting", len(ready))
            longest = 2 * len(ready)
        elif not ready:
            longest = LONG
        for place, arrival in enumerate(ready):
            while not stop.asked:
                try:
                    whole = inspect_one(
                        detector, arrival, arrivals=arrivals, store=store, output=output,
                        regions=regions, waiting=len(ready) - place - 1,
                    )  # fmt: skip
                except (OSError, sqlite3.OperationalError) as error:
                    retry.wait(error)
                    continue
                retry.over()
                if whole:
                    arrivals.done(arrival.key)
                    count += 1
                break
        if not ready:
            stop.wait(max(POLL, time.monotonic() - begin))  # half of the time at most
    store.close()
    return count
