"""Bounds on the numbers of a detector's files, which a stranger may have written."""

import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from recon_ad.detector.inference import Plan, Thresholds
from recon_ad.errors import UserError
from recon_ad.limits import MAX_SIDE

MAX_BATCH = 1 << 16  # tiles
MAX_CHANNELS = 64
LARGEST = 1e38  # within float32
WHOLE = ("channels", "tile", "stride", "resize", "batch_size", "opening", "min_area", "border")
# Fields of detector.json, beside its format.
FIELDS: Mapping[str, type] = {
    "channels": int, "thresholds": dict, "categories": dict, "config": dict, "tensors": dict,
    "variables_sha256": str, "record": dict, "has_part": bool,
}  # fmt: skip
# Fields that older formats lack.
_LACKING: Mapping[int, frozenset[str]] = {
    6: frozenset({"categories", "variables_sha256"}), 7: frozenset({"categories"}),
    8: frozenset({"categories"}),
}  # fmt: skip
_CALLED = {int: "a whole number", dict: "an object", str: "text", bool: "true or false"}


def check_fields(described: Mapping[str, Any]) -> None:
    """Raise ValueError where a field of a detector.json is missing or of another type."""
    lacking = _LACKING.get(described["format"], frozenset())
    for name, kind in FIELDS.items():
        if name not in described:
            if name in lacking:
                continue
            raise ValueError(f"{name} is missing; it has to be {_CALLED[kind]}")
        if type(described[name]) is not kind:  # True is no number
            given = display(described[name])
            raise ValueError(f"{name} is {given}; it has to be {_CALLED[kind]}")
    of_categories = described.get("categories", {}).items()
    for name, thresholds in (("thresholds", described["thresholds"]), *of_categories):
        if not isinstance(thresholds, dict):
            raise ValueError(f"categories: {name} has {display(thresholds)}, no thresholds")
        for which in Thresholds._fields:
            if which not in thresholds:
                raise ValueError(f"{name}: {which} is missing; it has to be a number or null")
        for which, value in thresholds.items():
            if not (value is None or _is_number(value)):
                given = display(value)
                raise ValueError(f"{name}: {which} is {given}; it has to be a number or null")


def display(value: Any) -> str:
    """Return a value as a message shows it: its beginning and its end, if it is long."""
    return reprlib.repr(value)


def _numbers(
    plan: Plan, thresholds: Mapping[str, float]
) -> Iterator[tuple[str, float, float, float]]:
    """Yield the name, value and bounds of each number."""
    g = plan.geometry
    yield "channels", plan.channels, 1, MAX_CHANNELS
    for name, pair in (("tile", g.tile), ("stride", g.stride)):
        for value in pair:
            yield name, value, 1, MAX_SIDE
    for least, value in enumerate(reversed(g.resize or (1, 1))):  # a width of 0 keeps the ratio
        yield "resize", value, least, MAX_SIDE
    for value, tile in zip(g.stride, g.tile, strict=True):
        yield "stride", value, 1, tile
    yield "batch_size", plan.batch_size, 1, MAX_BATCH
    yield "opening", plan.opening, 0, MAX_SIDE
    yield "min_area", plan.min_area, 0, MAX_SIDE**2
    yield "border", plan.border, 0, MAX_SIDE
    yield "border_weight", plan.border_weight, 0, 1e6
    for value in plan.input_range:
        yield "input_range", value, -LARGEST, LARGEST
    for name, value in thresholds.items():
        yield f"{name} threshold", value, -LARGEST, LARGEST


def check_numbers(plan: Plan, thresholds: Mapping[str, float]) -> None:
    """Raise ValueError where a number is NaN, of another type or out of its bounds, and name it.

    Args:
      plan: Plan of the detector.
      thresholds: Thresholds by name, as far as its files have them.
    """
    for name, value, low, high in _numbers(plan, thresholds):
        if not low <= value <= high:  # also where it is NaN
            raise ValueError(f"{name} is {display(value)}, not from {low:g} to {high:g}")
        if isinstance(value, bool) or (name in WHOLE and not isinstance(value, int)):
            raise ValueError(f"{name} is {display(value)}; it has to be a whole number")
    black, white = plan.input_range
    if not (black < white or black == white == 0):
        raise ValueError(f"input_range is {plan.input_range}, not black below white")
    if plan.geometry.weights not in ("uniform", "hann"):
        raise ValueError(
            f"tile_weights is {display(plan.geometry.weights)}; it has to be uniform or hann"
        )


def check_medians(medians: Mapping[str, float]) -> None:
    """Raise ValueError where a median score is NaN or out of its bounds."""
    for value in medians.values():
        if not -LARGEST <= value <= LARGEST:  # also where it is NaN
            given = display(value)
            raise ValueError(f"a median score is {given}, not from {-LARGEST:g} to {LARGEST:g}")


def check_calibrated(thresholds: Thresholds, *, name: str = "the detector") -> None:
    """Raise `UserError` where thresholds are missing; `name` is the detector's in the message."""
    if not np.isfinite(thresholds).all():
        raise UserError(
            f"{name} has no thresholds, without which it decides nothing: run "
            "python -m recon_ad.calibrate first."
        )


def check_finite(arrays: Mapping[str, Any]) -> None:
    """Raise ValueError where an array holds NaN or infinity, and name it."""
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinite values")


def check_calibration(record: Mapping[str, Any]) -> None:
    """Raise ValueError where a detector's record of its calibration is impossible, and name it.

    The record of a detector that was never calibrated has no such entry.
    """
    digests = record.get("learnt_from", [])
    if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
        raise ValueError("learnt_from is not a list of digests")
    if not isinstance(record.get("training", {}), Mapping):
        raise ValueError("training is not an object")
    if "calibration" not in record:
        return
    entry = record["calibration"]
    if not isinstance(entry, Mapping):
        raise ValueError("calibration is not an object")
    for name in ("heldout", "message"):
        if not isinstance(entry.get(name), str):
            raise ValueError(f"calibration.{name} is not text")
    if not isinstance(entry.get("regions_of_interest", False), bool):
        raise ValueError("calibration.regions_of_interest is neither true nor false")
    numbers = {name: entry.get(name) for name in ("images", "regions_per_image")}
    numbers["independent_units"] = entry.get("independent_units", 1.0)
    rates = {name: entry.get(name) for name in ("fpr_supported", "fpr_wanted")}
    by_category = entry.get("by_category", {})
    if not isinstance(by_category, Mapping):
        raise ValueError("calibration.by_category is not an object")
    for name, pair in by_category.items():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(
                f"calibration.by_category: {name} has {display(pair)}, not two numbers"
            )
        rates[name], numbers[name] = pair
    for name, number in numbers.items():
        if not _is_number(number) or not 0 < number <= LARGEST:
            given = display(number)
            raise ValueError(f"calibration: {name} is {given}; it has to be a positive number")
    for name, rate in rates.items():
        if rate is not None and not (_is_number(rate) and 0 < rate <= 1):
            raise ValueError(
                f"calibration: the rate {name} is {display(rate)}, not between 0 and 1"
            )
    scores, shown = entry.get("scores", []), entry.get("shown", [])
    lists = isinstance(scores, list) and isinstance(shown, list) and len(scores) == len(shown)
    if not lists or not all(isinstance(name, str) for name in shown):
        raise ValueError("calibration.shown is not a list with a category for each of the scores")
    for score in scores:
        if not _is_number(score) or not abs(score) <= LARGEST:  # also where it is NaN
            raise ValueError(f"calibration: a score is {display(score)}; it has to be a number")


def check_json(value: Any, *, name: str) -> None:
    """Raise ValueError where a number in JSON is NaN or infinite, and name it."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            check_json(each, name=f"{name}.{key}")
    elif isinstance(value, list):
        for each in value:
            check_json(each, name=name)
    elif isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"{name} is {value}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
