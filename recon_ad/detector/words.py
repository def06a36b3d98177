"""Numbers and names in the metadata of exported models, read as the C++ program reads them.

Python's own `int` and `float` accept spaces, underscores and digits of other scripts.
"""

import re
import reprlib
from collections.abc import Mapping
from urllib.parse import quote, unquote

from recon_ad.errors import UserError

_DECIMAL = re.compile(r"-?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)
_LEAST = 1e-300  # below which libraries disagree whether a number is 0


def fact(facts: Mapping[str, str], name: str) -> str:
    """Return a fact.

    Raises:
      ValueError: If it is missing.
    """
    if name not in facts:
        raise ValueError(f"{name} is missing")
    return facts[name]


def decimals(text: str, *, count: int, name: str) -> tuple[float, ...]:
    """Return decimal numbers that commas separate.

    Args:
      text: Such as "0.5,-1e-3".
      count: Numbers that it has to hold.
      name: Name of the fact, for messages.

    Raises:
      ValueError: If the text is anything else.
    """
    words = text.split(",")
    if len(words) != count or not all(_DECIMAL.fullmatch(word) for word in words):
        raise misfit(name, text)
    found = tuple(float(word) for word in words)
    for word, value in zip(words, found, strict=True):
        if abs(value) < _LEAST and re.search("[1-9]", word.lower().partition("e")[0]):
            raise misfit(name, text)
    return found


def whole(text: str, *, count: int, name: str) -> tuple[int, ...]:
    """Return whole numbers, as `decimals` does; they have digits only."""
    words = text.split(",")
    if len(words) != count or not all(re.fullmatch("[0-9]{1,15}", word) for word in words):
        raise misfit(name, text)
    return tuple(int(word) for word in words)


def by_category(text: str, *, name: str) -> dict[str, str]:
    """Return what follows each category's name in name=…;name=….

    Args:
      text: Such names as in a URL; "" holds no category.
      name: Name of the fact, for messages.

    Raises:
      ValueError: If a part is empty, a name is empty, occurs twice, or is not as in a URL.
    """
    found: dict[str, str] = {}
    for part in text.split(";") if text else []:
        quoted, equals, rest = part.rpartition("=")
        category = unquote(quoted)
        if not (equals and category) or quote(category, safe="") != quoted or category in found:
            raise misfit(name, text)
        found[category] = rest
    return found


def misfit(name: str, text: str) -> ValueError:
    """Return an error that names a fact and shows its beginning."""
    return ValueError(f"{name} is {reprlib.repr(text)}")


def damaged(model: str, error: ValueError) -> UserError:
    """Return the error of a model whose metadata are not readable."""
    return UserError(f"{model}: its metadata are damaged ({error}): copy it, or export it, anew.")
