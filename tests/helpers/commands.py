"""The project's commands, run in this process or, if that is the subject, in a separate one."""

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

# In tests, jaxtyping wraps the functions that define flags. The flags must still count as the
# command's own.
exec("flags.disclaim_key_flags()", {"__name__": "jaxtyping._decorator", "flags": flags})


def run_command(name: str, *arguments: Any, cwd: Any = None) -> subprocess.CompletedProcess[str]:
    """Run `python -m recon_ad.NAME` in this process, and return its exit status and output.

    The module is executed as a new `__main__`, as `python -m` does. Flags, log settings, signal
    handlers and the working directory are restored afterwards. PYTHONIOENCODING has the same effect
    as in a process.
    """
    module = f"recon_ad.{name}"
    spec = importlib.util.find_spec(module)
    if spec.submodule_search_locations is not None:  # a package
        spec = importlib.util.find_spec(f"{module}.__main__")
    source = Path(spec.origin)
    # This bypasses jaxtyping's hook, because beartype caches types by name and each call has its
    # own types.
    code = compile(source.read_text(), source, "exec")
    main = types.ModuleType("__main__")
    main.__spec__ = spec  # messages take the command's name from it
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding, errors, write_through=True)
        for errors in ("strict", "backslashreplace")
    )
    status: int | str | None = 0
    with _process_state(), contextlib.chdir(cwd or "."), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's default
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
    """Run a command that must end because of a user's mistake, and return its error sentence."""
    done = run_command(name, *arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: ")
    return sentence


def command_line(name: str, *arguments: Any) -> list[str]:
    """Return the arguments that start `python -m recon_ad.NAME` as a process."""
    return [sys.executable, "-m", f"recon_ad.{name}", *map(str, arguments)]


def run_process(
    name: str, *arguments: Any, cwd: Any = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m recon_ad.NAME` as a separate process with additional variables."""
    return subprocess.run(
        command_line(name, *arguments), cwd=cwd or ROOT, env=os.environ | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def _process_state() -> Iterator[None]:
    """Restore what a command changes in its process."""
    app.define_help_flags()
    handler = absl_logging.get_absl_handler()
    python = handler.python_handler
    root, ours = logging.getLogger(), logging.getLogger("recon_ad")
    known, main_module, handlers = set(flags.FLAGS), sys.modules["__main__"], root.handlers[:]
    kept = sys.argv, sys.stdout, sys.stderr, python.stream, handler.formatter, python.formatter
    levels = absl_logging.get_verbosity(), root.level, ours.level
    signals = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    absl_logging.use_absl_handler()  # `app.run` does this once per process
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
