"""Scores that people can read: 0 is a usual good image, and 0.5 is the image threshold.

    normalised = 0.5 · (score − median) / (threshold − median)

The median is of the scores of the good images that the thresholds rest on (of parts of images,
where parts were held out), of one category where there are several. The scale is linear and
unbounded: better than usual is below 0, and 1 is twice as far from the median as the threshold. It
is for reading only; decisions and figures use raw scores.

All runtimes, and `normalised` in deploy/cpp/src/facts.cpp, take median and threshold in float32
and compute in float64, so that equal scores have equal normalised ones, which are above 0.5 where
the raw ones are above the threshold. A detector that does not know its median, and one whose
threshold is not above it (a single held-out image, scores that are all equal, a low threshold of
the config), has none.
"""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np

from recon_ad.detector.words import by_category, decimals

UNKNOWN = "none"  # in the metadata of exported models


def normalised(score: Any, *, median: float | None, threshold: float) -> np.ndarray | None:
    """Return the normalised score as float64, or None where it is not defined.

    Args:
      score: Raw score, one or an array.
      median: Median score of good images; None where it is not known.
      threshold: Threshold of images.
    """
    if median is None:
        return None
    low, high = (float(np.float32(x)) for x in (median, threshold))
    if not low < high < np.inf:
        return None
    return np.asarray(0.5 * (np.asarray(score, np.float64) - low) / (high - low))


def medians_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the median scores in a detector's record, by category, and of all images under "".

    The result is empty for detectors that kept no scores.

    Args:
      record: Record that `bounds.check_calibration` has checked.
    """
    entry = record.get("calibration", {})
    scores, shown = np.array(entry.get("scores", []), np.float64), entry.get("shown", [])
    if not len(scores):
        return {}
    names = sorted(set(shown))
    found = {"": float(np.median(scores))}
    for name in names if len(names) > 1 else []:
        found[name] = float(np.median(scores[[other == name for other in shown]]))
    return found


def median_facts(
    median: float | None, medians: Mapping[str, float], *, categories: Collection[str]
) -> dict[str, str]:
    """Return the entries of medians in an exported model's metadata, for `read_medians`.

    Args:
      median: Median that belongs to the detector's threshold; None where it is not known.
      medians: Medians of categories, among others.
      categories: Categories that the detector has thresholds for.
    """
    known = {name: medians[name] for name in categories if name in medians}
    return {
        "median_score": UNKNOWN if median is None else _word(median),
        "category_medians": ";".join(f"{quote(k, safe='')}={_word(v)}" for k, v in known.items()),
    }


def _word(median: float) -> str:
    return repr(float(np.float32(median)))


def read_medians(facts: Mapping[str, str]) -> dict[str, float]:
    """Read medians, as `medians_of` returns them, from metadata; earlier models have none.

    Raises:
      ValueError: If they are damaged.
    """
    word = facts.get("median_score", UNKNOWN)
    found = {} if word == UNKNOWN else {"": decimals(word, count=1, name="median_score")[0]}
    medians = by_category(facts.get("category_medians", ""), name="category_medians")
    for category, number in medians.items():
        found[category] = decimals(number, count=1, name="category_medians")[0]
    return found
