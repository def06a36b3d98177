"""Counts of the decisions on test images, and a test of the promised false-positive rate.

The false-positive rate is promised for good images like those from which the threshold was
calibrated. If significantly more test images are stopped, they are of another kind, or the held-out
images were more alike than they seemed. No other figure of an evaluation shows this.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recon_ad.metrics.conformal import surprising
from recon_ad.metrics.summary import ImageResult

LEVEL = 0.05  # of the test


class Decisions(NamedTuple):
    """Counts of the decisions at the calibrated threshold.

    Attributes:
      found: Number of defective images that score above the threshold.
      defective: Number of defective images.
      stopped: Number of good images that score above the threshold.
      good: Number of good images.
      promised: Promised false-positive rate. None where the config gives the threshold.
      units: Number of independent units behind the promise.
      p_value: Chance of that many stopped good images or more if the promise held. None without a
        promise or without good images.
    """

    found: int
    defective: int
    stopped: int
    good: int
    promised: float | None
    units: float | None
    p_value: float | None

    @property
    def broken(self) -> bool:
        """True if significantly more good images are stopped than promised."""
        return self.p_value is not None and self.p_value < LEVEL

    def described(self) -> dict[str, Any]:
        """Return all fields for metrics.json."""
        return self._asdict() | {"promise_broken": self.broken, "sentence": self.sentence()}

    def sentence(self) -> str:
        """Return the decisions as a sentence."""
        parts = []
        if self.defective:
            parts.append(f"found {self.found} of {self.defective} defective images")
        if self.good:
            promise = (
                "with a threshold given in the config"
                if self.promised is None
                else f"promised: {percent(self.promised)}"
            )
            parts.append(
                f"stopped {self.stopped} of {self.good} good images by mistake ({promise})"
            )
        return ", ".join(parts)

    def warning(self) -> str:
        """Return a warning for the reader if the promise is broken, else ""."""
        if not self.broken:
            return ""
        assert self.promised is not None
        return (
            f"{self.stopped} of {self.good} good test images are stopped by mistake, significantly "
            f"more than the {percent(self.promised)} that the threshold promises (p = "
            f"{self.p_value:.1g}, exact test). They may come from other days, lots or lighting "
            "than the good images that the threshold was calibrated on. Or those images come in "
            "series that are not named in config.holdout.group. Calibrate with good images from "
            "the time and place of use."
        )


def decisions(
    categories: Mapping[str, Sequence[ImageResult]],
    promised: Mapping[str, tuple[float | None, float]],
) -> Decisions:
    """Count the decisions over all categories.

    Args:
      categories: Results of the test images of each category.
      promised: Promised false-positive rate of each category (None where the config gives the
        threshold) and the number of independent units behind it. For several categories the rate
        is the mean over the good images and the units are the fewest of any category. The sum of
        their counts varies less than that implies, so the test is then conservative.
    """
    judged = [(name, j) for name, rows in categories.items() for j in rows]
    good = [(name, j) for name, j in judged if not j.anomalous]
    defective = [j for _, j in judged if j.anomalous]
    stopped = sum(j.label for _, j in good)
    rates = [promised[name][0] for name, _ in good] or [each for each, _ in promised.values()]
    units = min((each for _, each in promised.values()), default=None)
    known = [rate for rate in rates if rate is not None]
    rate = math.fsum(known) / len(known) if known and len(known) == len(rates) else None
    p_value = None
    if good and rate is not None and units is not None:
        p_value = surprising(stopped, len(good), promised=rate, units=units)
    found = sum(j.label for j in defective)
    return Decisions(found, len(defective), stopped, len(good), rate, units, p_value)


def promised_rates(
    calibration: Mapping[str, Any], names: Sequence[str]
) -> dict[str, tuple[float | None, float]]:
    """Return each category's promised false-positive rate and the units behind it.

    Older detectors record no independent units: their images counted as independent.
    """
    units = calibration["images"] / calibration["regions_per_image"]
    overall = calibration["fpr_supported"], calibration.get("independent_units", units)
    each = calibration.get("by_category", {})
    return {name: tuple(each.get(name, overall)) for name in names}


def percent(rate: float) -> str:
    """Return a rate in per cent, with two significant digits."""
    return f"{100 * rate:.2g}\u00a0%" if rate < 0.995 else "100\u00a0%"
