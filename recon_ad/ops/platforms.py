"""The choice between two forms of an operation, by the platform that a program is compiled for.

Both forms are traced, and lowering keeps one of them. So a program that is compiled or exported
for GPUs on a machine without one has the GPU's form, whatever JAX's default backend is, and a
program for one platform has no condition left once XLA has simplified it. Tracing takes up to
twice as long, compiling does not.
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
    """The result of one of the forms, which all compute the same of the arguments.

    Args:
      arguments: of the forms.
      cpu: where XLA compiles for a CPU.
      accelerator: where XLA compiles for anything else.
      portable: where another runtime than XLA will run it (`for_other_runtimes`); None: as
        `accelerator`.
    """
    if _PORTABLE.get():
        return (portable or accelerator)(*arguments)
    return lax.platform_dependent(*arguments, cpu=cpu, default=accelerator)


@contextlib.contextmanager
def for_other_runtimes() -> Iterator[None]:
    """What is traced in it is for another runtime than XLA: no form is written for a platform."""
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)
