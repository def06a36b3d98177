"""The check of shapes and types at run time: beartype, for the first calls of each function.

jaxtyping passes it each function of the package (`--jaxtyping-packages` in pyproject.toml). A few
functions that are called for each number of a simulation or each row of a table would otherwise
take most of a test's time.
"""

import inspect
import sys
from collections import Counter
from collections.abc import Callable
from types import FunctionType
from typing import Any

from beartype import beartype

CHECKS = 300  # of a function in a test file; a call has one of its arguments and one of its result

_checks: Counter[tuple[str, str]] = Counter()
_left_alone: list[FunctionType] = []


def checked(signature: Callable[..., Any]) -> Callable[..., Any]:
    """Return a check of what a function is given, and of what it returns, for its first calls.

    A function within another one is a new one at each call of that, and all of them count together.

    Args:
      signature: Function without content that jaxtyping makes for each of the two checks. It has
        the function's name, and what it returns is not used.
    """
    name = (signature.__module__, signature.__qualname__)
    if _checks[name] >= CHECKS:
        return signature
    strict = beartype(signature)

    def check(*args: Any, **kwargs: Any) -> None:
        _checks[name] += 1
        if _checks[name] <= CHECKS:
            strict(*args, **kwargs)
        if _checks[name] == CHECKS:
            _leave_alone(*name)

    return check


def _leave_alone(module: str, name: str) -> None:
    """Let jaxtyping call a function of a module, or a method, directly."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):  # "<locals>" is no attribute
        found = inspect.getattr_static(found, part, None)
    if isinstance(found, FunctionType):
        found.__no_type_check__ = True  # as by typing.no_type_check
        _left_alone.append(found)


def start_anew() -> None:
    """Check all functions again, so that what is checked does not depend on earlier test files."""
    _checks.clear()
    for function in _left_alone:
        del function.__no_type_check__
    _left_alone.clear()
