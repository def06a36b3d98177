"""The figures of `metrics.json` in plain words, and how each is written as a number."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from recon_ad.metrics.figures import FIGURES

NOTHING = "–"  # in a table's cell


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number; a bool is none."""
    return not isinstance(value, bool | str | None) and math.isfinite(value)


# Real, not float: JSON gives a round figure as int, and NumPy's float32 is no float.
def ratio(value: Real) -> str:
    """A figure in [0, 1] with three decimals; what is not quite 1 never reads as 1."""
    if 0.9995 <= value < 1:
        return f"{value:.4f}" if value < 0.99995 else "> 0.9999"
    return f"{value:.3f}"


def percent(value: Real) -> str:
    """A share in [0, 1] as per cent."""
    return f"{100 * value:.1f}\u00a0%"


def significant(value: Real, digits: int = 3) -> str:
    """So many significant digits at least; thousands apart."""
    rounded = abs(float(f"{value:.{digits}g}"))
    if 1000 <= rounded < 1e9:
        return f"{value:,.{max(0, digits - len(f'{rounded:.0f}'))}f}"
    if rounded >= 1e9:
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}".rstrip(".")


def score(value: Real, digits: int = 3) -> str:
    """A raw score or threshold as `significant`, or words where it is not finite."""
    return significant(value, digits) if is_number(value) else "not a number"


def digits_apart(value: Real, *others: Real) -> int:
    """How many digits, three or more, tell `value` from each of the others that is not equal."""
    differing = [x for x in others if x != value and is_number(x)] if is_number(value) else []
    digits = 3
    # 17 digits tell any two 64-bit floats apart.
    while digits < 17 and any(
        significant(x, digits) == significant(value, digits) for x in differing
    ):
        digits += 1
    return digits


def exact_digits(value: Real) -> int:
    """How many digits, three or more, write `value` without rounding it."""
    return next((d for d in range(3, 17) if float(f"{value:.{d}g}") == value), 17)


def between(low: float, high: float) -> float:
    """A number with few digits that is at or above `low` and below `high`."""
    middle = low + (high - low) / 2
    candidates = (float(f"{middle:.{digits}g}") for digits in range(1, 18))
    return next((x for x in candidates if low <= x < high), low)


def duration(value: Real) -> str:
    """Seconds, from a minute on in the units that one would say."""
    if value < 60:
        return f"{significant(value)} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def rate(value: Real) -> str:
    """Something per second."""
    return f"{significant(value)} / s"


FORMS: Mapping[str, Callable[[Real], str]] = {
    "ratio": ratio,
    "percent": percent,
    "seconds": duration,
    "per second": rate,
    "number": significant,
}


class Group(NamedTuple):
    """Figures that are to be read the same way."""

    title: str
    intro: str


GROUPS: Mapping[str, Group] = {
    "calibrated": Group(
        "At the calibrated thresholds",
        "What the detector does as it stands: both thresholds come from held-out good images, "
        "as they would on a line.",
    ),
    "ranking": Group(
        "Ranking, over all thresholds",
        "How well scores separate good from defective before any threshold is chosen. Good for "
        "comparing methods; by themselves they promise nothing about one threshold.",
    ),
    "oracle": Group(
        "At the best threshold in hindsight (oracle)",
        "These pick their threshold with the truth of this very test set in hand. They are an "
        "upper limit for comparison with papers and cannot be reached in production, where "
        "nobody knows the truth.",
    ),
    "speed": Group("Speed", "Measured on the hardware that is named at the end of this page."),
    "further": Group("Further figures", ""),
}


PATCHES = (
    "Each patch of the test images by the mean of its residual, not yet smoothed: how far the two "
    "hills stand apart is what the residual has to offer. One defective pixel makes a patch "
    "defective. Each class is drawn as shares of its own patches, since defective ones are few."
)


def reason(metrics: Mapping[str, Any], key: str) -> str:
    """Why the figure `key` (dotted where nested) is not available, in a sentence."""
    given = metrics.get("missing", {}).get(key)
    return given if given else "no reason was recorded"


def apart(form: Callable[[Real], str], low: Real, high: Real) -> tuple[str, str]:
    """Two numbers in that form, with more digits where they would read alike and differ."""
    if form(low) != form(high):
        return form(low), form(high)
    digits = digits_apart(low, high)
    return significant(low, digits), significant(high, digits)


def calls_all_defective(metrics: Mapping[str, Any]) -> bool:
    """Whether the best image F1 is only what calling every image defective gives."""
    decided, best = metrics.get("decisions", {}), metrics.get("image_f1_max")
    good, defective = decided.get("good"), decided.get("defective")
    if not is_number(best) or not is_number(good) or not is_number(defective):
        return False
    return bool(defective) and best <= 2 * defective / (2 * defective + good) + 1e-9


def shown(metrics: Mapping[str, Any], key: str, value: Any) -> str:
    """A figure as text: its number in the form that `key` has, otherwise `NOTHING`.

    Args:
      metrics: the content of `metrics.json`.
      key: the figure's last name, `image_auroc` for instance.
      value: what stands there.
    """
    if not is_number(value):
        return NOTHING
    if key == "n" or (key not in FIGURES and isinstance(value, Integral)):
        return f"{value:,}"
    return FORMS[FIGURES[key].unit](value) if key in FIGURES else significant(value)


def value_of(content: Mapping[str, Any], key: str) -> Any:
    """What stands under a dotted name; None where nothing does."""
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
