"""Entries of an exported model on its detector's calibration: promised rates, digests of images.

`recon_ad.certify` alone needs them, so that a model whose entries are missing or damaged still
inspects. The application in C++ does not read them.
"""

import re
from collections.abc import Mapping
from urllib.parse import quote

from recon_ad.detector.inference import Inference
from recon_ad.detector.words import by_category, damaged, decimals, misfit

MOST = 1e12  # units behind a promise

Promise = tuple[float, float]  # the false-positive rate, and the independent units behind it


def history_facts(detector: Inference) -> dict[str, str]:
    """Return the entries of a model's metadata; "" where the detector does not know it."""
    each = {name: detector.of_category(name).promise for name in detector.categories}
    known = {name: promise for name, promise in each.items() if promise is not None}
    return {
        "promise": _word(detector.promise) if detector.promise else "",
        "category_promises": ";".join(f"{quote(k, safe='')}={_word(v)}" for k, v in known.items()),
        "seen": ",".join(sorted(detector.seen)),
    }


def _word(promise: Promise) -> str:
    return ",".join(repr(float(number)) for number in promise)


def read_promise(facts: Mapping[str, str], category: str, *, model: str) -> Promise | None:
    """Return the promise for a category, or of all images for ""; earlier models have none.

    Raises:
      UserError: If it is damaged; the message names the model.
    """
    name = "category_promises" if category else "promise"
    text = facts.get(name, "")
    try:
        word = by_category(text, name=name).get(category, "") if category else text
        if not word:
            return None
        rate, units = decimals(word, count=2, name=name)
        if not (0 < rate < 1 and 1 <= units < MOST):
            raise misfit(name, text)
    except ValueError as error:
        raise damaged(model, error) from None
    return rate, units


def read_seen(facts: Mapping[str, str], *, model: str) -> frozenset[str]:
    """Return the digests of images that the detector has seen; earlier models have none.

    Raises:
      UserError: If they are damaged; the message names the model.
    """
    text = facts.get("seen", "")
    digests = text.split(",") if text else []
    if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
        raise damaged(model, misfit("seen", text))
    return frozenset(digests)
