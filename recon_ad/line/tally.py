"""Counts of a line's images, and a log of limited length."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from recon_ad.detector.image_files import GOOD, REJECT
from recon_ad.report import wording

EVERY = 60.0  # s between two log lines with counts
NAMED = 20  # rejects between two of these lines that get a line each

logger = logging.getLogger("recon_ad")


class Tally:
    """Counts of images by their outcome. As text it reads "124 images, 3 rejected".

    Each reject is logged with its name and score, up to `NAMED` per minute. The counts of judged
    and rejected images are logged once a minute if new images have arrived.

    Args:
      clock: Monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._counts = clock, Counter()
        self._spoke, self._counted = clock(), 0  # time and images of the last line with counts
        self._named = 0  # rejects since then that got a line

    @property
    def judged(self) -> int:
        """Number of images, including those that could not be judged."""
        return self._counts.total()

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Count an image that has its row, and log it if it was rejected."""
        self._counts[row["outcome"]] += 1
        if row["outcome"] != REJECT:
            return
        if self._named < NAMED:
            digits = wording.digits_apart(row["score"], row["threshold"])
            score, threshold = (wording.score(row[k], digits) for k in ("score", "threshold"))
            logger.info("%s: rejected, score %s, threshold %s", name, score, threshold)
        elif self._named == NAMED:
            logger.info("many rejects: no more are named until the next count")
        self._named += 1

    def tell(self) -> None:
        """Log the counts if images have arrived since the last time and a minute has passed."""
        if self.judged > self._counted and self._clock() - self._spoke >= EVERY:
            logger.info("judged so far: %s", str(self))
            self._spoke, self._counted, self._named = self._clock(), self.judged, 0

    def __str__(self) -> str:
        rejected = self._counts[REJECT]
        lost = self.judged - rejected - self._counts[GOOD]
        images = f"{self.judged} image{'s' * (self.judged != 1)}, {rejected} rejected"
        return f"{images}, {lost} not judged" if lost else images
