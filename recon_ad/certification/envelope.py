"""Operating envelope: how far images may change before a certificate no longer holds.

Good images and images with inserted defects are disturbed, level by level, until

- more good images are stopped than chance explains if the false-reject rate were kept: the promised
  rate, or without a promise the undisturbed one; or
- fewer defects are found than chance explains if nine in ten were: each has a size a quarter above
  the a90 of its kind, so that a90 has then grown by more than a quarter.

Both are tests at 5 %. The first level that fails is found by bisection, which assumes that more of
a disturbance is never better.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from recon_ad.certification.detection import WANTED, WITHIN
from recon_ad.certification.disturb import DISTURBANCES
from recon_ad.certification.rejects import rate_of
from recon_ad.certification.trials import Row
from recon_ad.metrics.conformal import surprising
from recon_ad.metrics.promise import LEVEL

GOOD = 20  # good images that are disturbed, at most
DEFECTS = 24  # inserted defects that are disturbed
GROWTH = 1.25  # of a90
MIDDLE = 0.4  # contrast of the defects, where a kind has an a90 at it
UNDISTURBED = "none"


class Target(NamedTuple):
    """A kind of defect that disturbed images have.

    Attributes:
      kind: A name in `defects.KINDS`.
      contrast: Contrast at which a90 lies within the tested sizes.
      size: In px, `GROWTH` times a90.
    """

    kind: str
    contrast: float | None
    size: float


class Outcome(NamedTuple):
    """Verdicts of the detector on images at one level.

    Attributes:
      good: Rows of good images, with `brightness` and `sharpness`.
      defects: Rows of inserted defects.
    """

    good: Sequence[Row]
    defects: Sequence[Row]


class Kept(NamedTuple):
    """The rate of false rejects that disturbed images are to keep.

    Attributes:
      rate: Promised rate, or that of the undisturbed images.
      units: Independent units behind it.
    """

    rate: float
    units: float


def targets(entries: Sequence[Mapping[str, Any]], *, largest: float) -> list[Target]:
    """Choose the defects whose a90 is watched: one contrast of each kind that has an a90.

    Args:
      entries: Probability of detection of each kind and contrast, as in certificate.json.
      largest: Largest size in px that has room.
    """
    chosen: dict[str, Target] = {}
    # The middle contrast first, then the stronger ones.
    for entry in sorted(entries, key=lambda e: _preference(e["contrast"])):
        a90 = entry["image"]["a90"]
        if a90["where"] == WITHIN and GROWTH * a90["px"] <= largest:
            chosen.setdefault(
                entry["kind"], Target(entry["kind"], entry["contrast"], GROWTH * a90["px"])
            )
    return list(chosen.values())


def _preference(contrast: float | None) -> tuple[bool, float]:
    given = MIDDLE if contrast is None else contrast
    return given < MIDDLE, abs(given - MIDDLE)


def envelope(
    judge_at: Callable[[str, float], Outcome],
    *,
    names: Sequence[str],
    promise: tuple[float, float] | None,
    rejects: tuple[int, int],
    watched: Sequence[Target],
) -> dict[str, Any]:
    """Find the level at which each disturbance is too much.

    Args:
      judge_at: (name of a disturbance, level) -> outcome; `UNDISTURBED` and 0 for none.
      names: Disturbances that are tested.
      promise: Promised rate and the units behind it; None if there is none.
      rejects: Undisturbed good images that are stopped, and all of them.
      watched: Defects in the outcomes.
    """
    count, total = rejects
    # Laplace's estimate, as a rate of 0 could never be kept.
    kept = Kept(*promise) if promise else Kept((count + 1) / (total + 2), float(total))
    before = judge_at(UNDISTURBED, 0.0)
    control = _at_level(before, kept)
    found: dict[str, Any] = {
        "rate_kept": kept.rate,
        "good_images": len(before.good),
        "defects": len(before.defects),
        "watched": [one._asdict() for one in watched],
        "undisturbed": control,
        "disturbances": {},
    }
    # Where the undisturbed images fail, their disturbed ones say nothing on that count.
    broken_before = {reason for reason in ("rejects", "detection") if control[f"{reason}_fail"]}
    limits: dict[str, float | None] = {}
    for name in names:
        tested: dict[float, dict[str, Any]] = {}
        outcomes: dict[float, Outcome] = {}

        def fails(level: float) -> bool:
            outcomes[level] = judge_at(name, level)  # noqa: B023
            tested[level] = _at_level(outcomes[level], kept)  # noqa: B023
            return bool(_reasons(tested[level]) - broken_before)  # noqa: B023

        levels = DISTURBANCES[name].levels
        first = first_true(fails, levels)
        leaves = levels[first] if first < len(levels) else None
        found["disturbances"][name] = {
            "label": DISTURBANCES[name].label,
            "unit": DISTURBANCES[name].unit,
            "holds_to": levels[first - 1] if first else None,
            "leaves_at": leaves,
            "because": sorted(_reasons(tested[leaves]) - broken_before) if leaves else [],
            "tested": [{"level": level, **row} for level, row in tested.items()],
        }
        limits |= _limits(name, outcomes[levels[max(first - 1, 0)]])
    found["usual"] = _means(before)
    found["warning_limits"] = {
        "brightness": [limits.get("darker"), limits.get("brighter")],
        "sharpness": [limits.get("blur"), limits.get("noise")],
    }
    return found


def first_true(fails: Callable[[float], bool], levels: Sequence[float]) -> int:
    """Return the index of the first level that fails, by bisection; their number if none does."""
    low, high = 0, len(levels)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fails(levels[middle]) else (middle + 1, high)
    return low


def _at_level(outcome: Outcome, kept: Kept) -> dict[str, Any]:
    """Count what is stopped and found at a level, and test both."""
    # A part that is not found is no good image that passes, and no defect that is found.
    stopped = sum(row["stopped"] or not row["registered"] for row in outcome.good)
    seen = sum(row["stopped"] for row in outcome.defects)
    total, defects = len(outcome.good), len(outcome.defects)
    rejects_p = surprising(stopped, total, promised=kept.rate, units=kept.units)
    detection_p = float(stats.binom.cdf(seen, defects, WANTED)) if defects else 1.0
    return {
        "stopped": rate_of(stopped, total)._asdict(),
        "found": seen,
        "rejects_fail": rejects_p < LEVEL,
        "detection_fail": detection_p < LEVEL,
    }


def _reasons(row: Mapping[str, Any]) -> set[str]:
    return {reason for reason in ("rejects", "detection") if row[f"{reason}_fail"]}


def _means(outcome: Outcome) -> dict[str, float]:
    return {
        figure: float(np.mean([row[figure] for row in outcome.good]))
        for figure in ("brightness", "sharpness")
    }


def _limits(name: str, last: Outcome) -> dict[str, float | None]:
    """Return the mean brightness or sharpness of images at a level, a limit for the line.

    The level is the last that holds or, where none does, the first.
    """
    figures = {"brighter": "brightness", "darker": "brightness", "blur": "sharpness",
               "noise": "sharpness"}  # fmt: skip
    return {name: _means(last)[figures[name]]} if name in figures else {}
