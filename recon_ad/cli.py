"""How every command starts: absl flags, --help, the log, user errors as one sentence."""

import hashlib
import io
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging

from recon_ad import usage
from recon_ad.detector.older import MOVED
from recon_ad.errors import UserError
from recon_ad.runtime.terminal import EscapingFormatter, escaped
from recon_ad.runtime.waiting import disk_is_full

# What parsing flags may end in: a config file is run meanwhile, and ml_collections reports an
# override of an unknown field as AttributeError, of an unknown section as KeyError.
WRONG_FLAGS = (UserError, flags.Error, OSError, AttributeError, KeyError)
TOLD = "RECON_AD_TOLD"  # folder with a file for each error that some process has told
INTERRUPTED = 130  # exit status, as shells have it of SIGINT
# What it says, and what ml_collections says, of --config.field=value without --config before it.
EARLY = re.compile(r"(?:Unknown command line flag '|Found --)(config\.[^\s'=]+)")


def run(main: Callable[..., int | None], *, words: bool = False) -> None:
    """Parses the flags and runs `main`; its return value is the exit status.

    With `words`, `main` is given what stands on the command line beside the flags; else there may
    be nothing.

    A `UserError` is printed without a traceback, with exit status 2.
    """

    def parse(argv: list[str]) -> list[str]:
        if usage.asks_for_help(argv):
            doc = sys.modules["__main__"].__doc__ or ""
            print(usage.help_of(doc, command=command_name()))
            sys.exit()
        try:
            return flags.FLAGS(argv, known_only=False)
        except WRONG_FLAGS as error:
            absent = _missing() if usage.REQUIRED in str(error) else []
            sys.exit(_say(UserError(_give(absent)) if absent else error))

    # Names of files may hold what the terminal cannot show; the log's stream is so already.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")

    def guarded(argv: Sequence[str]) -> int | None:
        # Our own progress, and only warnings of the libraries, some of which are very chatty.
        absl_logging.set_verbosity(absl_logging.WARNING)
        absl_logging.get_absl_handler().setFormatter(EscapingFormatter("%(message)s"))
        absl_logging.get_absl_handler().addFilter(_not_of_a_full_disk)
        logging.getLogger("recon_ad").setLevel(logging.INFO)
        try:
            if words:
                return main(argv[1:])
            if len(argv) > 1:
                raise UserError(
                    f"{argv[1]!r} is not a flag; options are written --name=value (see --help)."
                )
            return main()
        except UserError as error:
            return _say(error)
        except KeyboardInterrupt:
            print("interrupted.", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            if disk_is_full(error):
                # Threads of libraries that still want to write have nothing to add.
                sys.unraisablehook = threading.excepthook = lambda _: None
                where = getattr(error, "filename", None)
                place = f"{where}: the disk is full" if where else "the disk is full"
                return _say(UserError(f"{place}: make room and give the same command again."))
            if not isinstance(error, OSError) or error.filename is None:
                raise
            return _say(UserError(f"{error.filename}: {error.strerror}; check the path."))

    app.run(guarded, flags_parser=parse)


def _not_of_a_full_disk(record: logging.LogRecord) -> bool:
    """Drops the tracebacks of libraries that write in threads; the command ends in a sentence."""
    return not (record.exc_info and disk_is_full(record.exc_info[1]))


def sentence(error: Exception) -> str:
    """What is wrong, of `WRONG_FLAGS` or any other error, in one line."""
    # Libraries add paragraphs to their messages; the first line says what is wrong.
    text = str(error).splitlines()[0]
    if "config" in flags.FLAGS and (early := EARLY.match(text)):
        return f"--{early[1]} changes a field of the config: give --config FILE before it."
    if isinstance(error, AttributeError | KeyError):  # of ml_collections, at --config.field=value
        # Its own sentence is a quoted name, and perhaps a guess at what was meant, a line lower.
        cause = error.args[0]
        said = str(cause.args[0] if isinstance(cause, KeyError) else cause)
        name, *guess = said.replace('"', "").splitlines()
        name = name.strip("'")
        if moved := MOVED.get(name):
            guess = [f"What was config.method.{name} is config.{'.'.join(moved)}."]
        guess = guess or ["See configs/default.py."]
        text = " ".join([f"the config has no field {name}.", *guess])
    return text


def _missing() -> list[str]:
    """Flags that the command cannot do without and was not given."""
    return [
        f"--{name}"
        for name in flags.FLAGS
        if flags.FLAGS[name].value is None and usage.is_required(flags.FLAGS[name])
    ]


def command_name() -> str:
    """Returns how the command that runs was started."""
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else sys.argv[0]


def _give(absent: list[str]) -> str:
    *others, last = absent
    named = f"{', '.join(others)} and {last} are" if others else f"{last} is"
    return f"{named} missing: see {command_name()} --help."


def _say(error: Exception) -> int:
    text = escaped(sentence(error))
    if _first_to_say(text):
        print(f"error: {text}", file=sys.stderr)
    return 2


def _first_to_say(text: str) -> bool:
    """False where another process of launch/local.sh, which names a folder for it, has said so."""
    folder = os.environ.get(TOLD)
    if not folder:
        return True
    name = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    try:
        (Path(folder) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # no room, or the launcher is gone: better twice than never
        return True
    return True
