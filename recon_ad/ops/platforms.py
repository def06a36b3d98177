"""The choice between two forms of an operation, by the platform that a program is compiled for.

Both forms are traced, and lowering keeps one of them. A program that is compiled or exported for
GPUs on a machine without one therefore has the GPU's form, whatever JAX's default backend is. A
program for one platform contains no condition once XLA has simplified it. Tracing takes up to twice
as long; compiling does not.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

from jax import lax

_PORTABLE = contextvars.ContextVar("portable", default=False)


def by_platform(
    *arguments: Any,
    cpu: Callable[..., Any],
    accelerator: Callable[..., Any],
    portable: Callable[..., Any] | None = None,
) -> Any:
    """Return the result of the form for the platform; all forms compute the same values.

    Args:
      arguments: Arguments of the forms.
      cpu: Form for programs that XLA compiles for a CPU.
      accelerator: Form for programs that XLA compiles for any other platform.
      portable: Form for runtimes other than XLA (`for_other_runtimes`). None selects `accelerator`.
    """
    if _PORTABLE.get():
        return (portable or accelerator)(*arguments)
    return lax.platform_dependent(*arguments, cpu=cpu, default=accelerator)


@contextlib.contextmanager
def for_other_runtimes() -> Iterator[None]:
    """Trace the block's operations for a runtime other than XLA, without platform conditions."""
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)
