"""Counts what a line judges, and logs it at a rate that a log can bear."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from recon_ad.detector.image_files import GOOD, REJECT
from recon_ad.report import wording

EVERY = 60.0  # s between two lines that count
NAMED = 20  # rejects between two of these lines that have a line each

logger = logging.getLogger("recon_ad")


class Tally:
    """Counts images by what became of them; as text it is "124 images, 3 rejected".

    Each reject is logged with its name and score, but for more than `NAMED` in a minute; how many
    images were judged and rejected is logged once a minute, where there were any.

    Args:
      clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._counts = clock, Counter()
        self._spoke, self._counted = clock(), 0  # when, and how many images there were then
        self._named = 0  # rejects since then that had a line

    @property
    def judged(self) -> int:
        """How many images there were, those that could not be judged among them."""
        return self._counts.total()

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Counts an image, which has its row, and logs a reject."""
        self._counts[row["outcome"]] += 1
        if row["outcome"] != REJECT:
            return
        if self._named < NAMED:
            digits = wording.digits_apart(row["score"], row["threshold"])
            score, threshold = (wording.score(row[k], digits) for k in ("score", "threshold"))
            logger.info("%s: rejected, score %s, threshold %s", name, score, threshold)
        elif self._named == NAMED:
            logger.info("many rejects: until the next count, others are not named")
        self._named += 1

    def tell(self) -> None:
        """Logs the counts where some images have come since, and a minute has passed."""
        if self.judged > self._counted and self._clock() - self._spoke >= EVERY:
            logger.info("judged so far: %s", str(self))
            self._spoke, self._counted, self._named = self._clock(), self.judged, 0

    def __str__(self) -> str:
        rejected = self._counts[REJECT]
        lost = self.judged - rejected - self._counts[GOOD]
        images = f"{self.judged} image{'s' * (self.judged != 1)}, {rejected} rejected"
        return f"{images}, {lost} not judged" if lost else images
