"""Plain words for the figures of `metrics.json`, and their formatting as numbers."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from recon_ad.metrics.figures import FIGURES

NOTHING = "–"  # in a table's cell


def is_number(value: Any) -> bool:
    """Return whether `value` is a finite number; a bool is not."""
    return not isinstance(value, bool | str | None) and math.isfinite(value)


# Real, not float: JSON gives a round figure as int, and NumPy's float32 is not a float.
def ratio(value: Real) -> str:
    """Format a figure in [0, 1] with three decimals; a value just below 1 never reads as 1."""
    if 0.9995 <= value < 1:
        return f"{value:.4f}" if value < 0.99995 else "> 0.9999"
    return f"{value:.3f}"


def percent(value: Real) -> str:
    """Format a share in [0, 1] as per cent."""
    return f"{100 * value:.1f}\u00a0%"


def significant(value: Real, digits: int = 3) -> str:
    """Format a number with at least `digits` significant digits and separated thousands."""
    rounded = abs(float(f"{value:.{digits}g}"))
    if 1000 <= rounded < 1e9:
        return f"{value:,.{max(0, digits - len(f'{rounded:.0f}'))}f}"
    if rounded >= 1e9:
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}".rstrip(".")


def score(value: Real, digits: int = 3) -> str:
    """Format a raw score or threshold with `significant`, or as words if it is not finite."""
    return significant(value, digits) if is_number(value) else "not a number"


def digits_apart(value: Real, *others: Real) -> int:
    """Return how many digits, three or more, distinguish `value` from every unequal other."""
    differing = [x for x in others if x != value and is_number(x)] if is_number(value) else []
    digits = 3
    # 17 digits distinguish any two 64-bit floats.
    while digits < 17 and any(
        significant(x, digits) == significant(value, digits) for x in differing
    ):
        digits += 1
    return digits


def exact_digits(value: Real) -> int:
    """Return how many digits, three or more, write `value` without rounding."""
    return next((d for d in range(3, 17) if float(f"{value:.{d}g}") == value), 17)


def between(low: float, high: float) -> float:
    """Return a number with few digits that is at or above `low` and below `high`."""
    middle = low + (high - low) / 2
    candidates = (float(f"{middle:.{digits}g}") for digits in range(1, 18))
    return next((x for x in candidates if low <= x < high), low)


def duration(value: Real) -> str:
    """Format seconds, from one minute on as minutes or hours."""
    if value < 60:
        return f"{significant(value)} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def rate(value: Real) -> str:
    """Format a rate per second."""
    return f"{significant(value)} / s"


FORMS: Mapping[str, Callable[[Real], str]] = {
    "ratio": ratio,
    "percent": percent,
    "seconds": duration,
    "per second": rate,
    "number": significant,
}


class Group(NamedTuple):
    """Title and introduction of figures that are read the same way."""

    title: str
    intro: str


GROUPS: Mapping[str, Group] = {
    "calibrated": Group(
        "At the calibrated thresholds",
        "Results of the detector with its own thresholds, as it would run on a line. Both "
        "thresholds come from good images that were held out from training.",
    ),
    "ranking": Group(
        "Ranking, over all thresholds",
        "How well the scores separate good from defective before any threshold is chosen. Use "
        "these figures to compare methods; they promise nothing about one threshold.",
    ),
    "oracle": Group(
        "At the best threshold in hindsight (oracle)",
        "The threshold of these figures is chosen afterwards, with the knowledge of which test "
        "images and pixels are defective. Papers call this an oracle. The figures are an upper "
        "limit for comparison with papers and cannot be reached in production, where nobody knows "
        "this beforehand.",
    ),
    "speed": Group("Speed", "Measured on the hardware that is named at the end of this page."),
    "further": Group("Other figures", ""),
}


PATCHES = (
    "The figure shows the mean residual (the anomaly map before smoothing) of every patch, a "
    "square piece of a test image. The further apart the two distributions are, the better the "
    "residual separates good from defective. One defective pixel makes a patch defective. Each "
    "class is drawn as shares of its own patches, since defective ones are few."
)


def reason(metrics: Mapping[str, Any], key: str) -> str:
    """Return why the figure `key` (dotted where nested) is not available."""
    given = metrics.get("missing", {}).get(key)
    return given if given else "no reason was recorded"


def apart(form: Callable[[Real], str], low: Real, high: Real) -> tuple[str, str]:
    """Format two numbers, with more digits where different numbers would read alike."""
    if form(low) != form(high):
        return form(low), form(high)
    digits = digits_apart(low, high)
    return significant(low, digits), significant(high, digits)


def calls_all_defective(metrics: Mapping[str, Any]) -> bool:
    """Return whether the best image F1 is no better than calling every image defective."""
    decided, best = metrics.get("decisions", {}), metrics.get("image_f1_max")
    good, defective = decided.get("good"), decided.get("defective")
    if not is_number(best) or not is_number(good) or not is_number(defective):
        return False
    return bool(defective) and best <= 2 * defective / (2 * defective + good) + 1e-9


def shown(metrics: Mapping[str, Any], key: str, value: Any) -> str:
    """Format a figure in the form of its key, or return `NOTHING` if it is not a number.

    Args:
      metrics: Content of `metrics.json`.
      key: Last part of the figure's name, such as `image_auroc`.
      value: Value of the figure.
    """
    if not is_number(value):
        return NOTHING
    if key == "n" or (key not in FIGURES and isinstance(value, Integral)):
        return f"{value:,}"
    return FORMS[FIGURES[key].unit](value) if key in FIGURES else significant(value)


def value_of(content: Mapping[str, Any], key: str) -> Any:
    """Return the value under a dotted name, or None if it is absent."""
    value: Any = content
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
