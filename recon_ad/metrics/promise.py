"""Decisions on test images in counts, and whether they keep the promise of the threshold.

The false-positive rate is promised for good images like those that the threshold rests on. Test
images that are stopped significantly more often are of another kind, or the held-out images were
more alike than they seemed; no other figure of an evaluation shows that.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recon_ad.metrics.conformal import surprising
from recon_ad.metrics.summary import ImageResult

LEVEL = 0.05  # of the test


class Decisions(NamedTuple):
    """Decisions at the calibrated threshold.

    Attributes:
      found: defective images that score above it.
      defective: defective images.
      stopped: good images that score above it.
      good: good images.
      promised: false-positive rate; None where the threshold was given.
      units: independent units that the promise rests on.
      p_value: chance of so many stopped ones or more if the promise held; None without a promise
        or good images.
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
        """Whether significantly more good images are stopped than promised."""
        return self.p_value is not None and self.p_value < LEVEL

    def described(self) -> dict[str, Any]:
        """Returns all of it for metrics.json."""
        return self._asdict() | {"promise_broken": self.broken, "sentence": self.sentence()}

    def sentence(self) -> str:
        """Returns the decisions in a sentence."""
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
        """Returns a sentence for a reader where the promise is broken, else ""."""
        if not self.broken:
            return ""
        assert self.promised is not None
        return (
            f"{self.stopped} of {self.good} good test images are stopped by mistake, significantly "
            f"more than the {percent(self.promised)} that the threshold promises (p = "
            f"{self.p_value:.1g}, exact test). They may be of other days, lots or lighting than "
            "the good images that it rests on, or those come in series that nobody named "
            "(config.holdout.group). Calibrate with good images of the time and place of use."
        )


def decisions(
    categories: Mapping[str, Sequence[ImageResult]],
    promised: Mapping[str, tuple[float | None, float]],
) -> Decisions:
    """Counts the decisions over all categories.

    Args:
      categories: each with what the detector said of its images.
      promised: false-positive rate of each, None where its threshold was given, and the independent
        units that it rests on. Of several the rate is the mean over the good images, and the units
        are the fewest: the sum of their counts varies less than that, so that the test is then too
        careful.
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
    """Returns what a detector's calibration promises for each category, and the independent units
    that it rests on.

    A detector of before says nothing of units: its images counted as independent.
    """
    units = calibration["images"] / calibration["regions_per_image"]
    overall = calibration["fpr_supported"], calibration.get("independent_units", units)
    each = calibration.get("by_category", {})
    return {name: tuple(each.get(name, overall)) for name in names}


def percent(rate: float) -> str:
    """Returns a rate in per cent, in two digits."""
    return f"{100 * rate:.2g}\u00a0%" if rate < 0.995 else "100\u00a0%"
