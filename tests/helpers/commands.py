"""The project's commands, in this process or, where that is the subject, in one of their own."""

import contextlib
import importlib.util
import io
import logging
import os
import signal
import subprocess
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from helpers.paths import ROOT

# A flag is the command's whose function defines it, not jaxtyping's, whose wrappers tests have.
exec("flags.disclaim_key_flags()", {"__name__": "jaxtyping._decorator", "flags": flags})


def run_command(name: str, *arguments: Any, cwd: Any = None) -> subprocess.CompletedProcess[str]:
    """Runs `python -m recon_ad.NAME` in this process.

    Returns its exit status and what it printed. The module is executed anew as `__main__`, as
    `python -m` does it; flags, log settings, signal handlers and the working directory are put back
    afterwards. PYTHONIOENCODING counts, as in a process.
    """
    module = f"recon_ad.{name}"
    spec = importlib.util.find_spec(module)
    if spec.submodule_search_locations is not None:  # a package
        spec = importlib.util.find_spec(f"{module}.__main__")
    source = Path(spec.origin)
    # Not through jaxtyping's hook: beartype keeps types by name, and each call has its own ones.
    code = compile(source.read_text(), source, "exec")
    main = types.ModuleType("__main__")
    main.__spec__ = spec  # of which a message takes the command's name
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding, errors, write_through=True)
        for errors in ("strict", "backslashreplace")
    )
    status: int | str | None = 0
    with _process_state(), contextlib.chdir(cwd or "."), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as Python does it by itself
        sys.argv = [f"{module}.py", *map(str, arguments)]
        sys.stdout, sys.stderr = out, err
        absl_logging.get_absl_handler().python_handler.stream = err
        try:
            sys.modules["__main__"] = main
            exec(code, vars(main))
        except SystemExit as stop:
            status = stop.code
    if isinstance(status, str):
        err.write(status)
        status = 1
    printed = (stream.buffer.getvalue().decode(encoding) for stream in (out, err))
    return subprocess.CompletedProcess([module, *arguments], status or 0, *printed)


def refusal(name: str, *arguments: Any, cwd: Any = None) -> str:
    """Runs a command that has to end by a mistake of its user; returns the sentence about it."""
    done = run_command(name, *arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: ")
    return sentence


def command_line(name: str, *arguments: Any) -> list[str]:
    """Returns the arguments that start `python -m recon_ad.NAME` as a process."""
    return [sys.executable, "-m", f"recon_ad.{name}", *map(str, arguments)]


def run_process(
    name: str, *arguments: Any, cwd: Any = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m recon_ad.NAME` as a process of its own, with variables added to its own."""
    return subprocess.run(
        command_line(name, *arguments), cwd=cwd or ROOT, env=os.environ | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def _process_state() -> Iterator[None]:
    """Puts back what a command changes in its process."""
    app.define_help_flags()
    handler = absl_logging.get_absl_handler()
    python = handler.python_handler
    root, ours = logging.getLogger(), logging.getLogger("recon_ad")
    known, main_module, handlers = set(flags.FLAGS), sys.modules["__main__"], root.handlers[:]
    kept = sys.argv, sys.stdout, sys.stderr, python.stream, handler.formatter, python.formatter
    levels = absl_logging.get_verbosity(), root.level, ours.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    absl_logging.use_absl_handler()  # as `app.run` does, once in a process
    try:
        yield
    finally:
        sys.modules["__main__"] = main_module
        sys.argv, sys.stdout, sys.stderr, python.stream, handler.formatter, python.formatter = kept
        absl_logging.set_verbosity(levels[0])
        root.setLevel(levels[1])
        ours.setLevel(levels[2])
        root.handlers[:] = handlers
        for number, before in signals.items():
            signal.signal(number, before)
        flags.FLAGS.unparse_flags()
        flags.FLAGS.remove_flag_values(set(flags.FLAGS) - known)
        flags.FLAGS.mark_as_parsed()
