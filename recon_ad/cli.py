"""Entry point of every command: absl flags, --help, the log, and user errors as one sentence."""

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

# Errors that parsing flags may raise. Parsing runs the config file, and ml_collections reports an
# override of an unknown field as AttributeError and of an unknown section as KeyError.
WRONG_FLAGS = (UserError, flags.Error, OSError, AttributeError, KeyError)
TOLD = "RECON_AD_TOLD"  # folder with a file for each error that some process has printed
INTERRUPTED = 130  # exit status; shells report SIGINT in the same way
# Messages of absl and of ml_collections for --config.field=value without --config before it.
EARLY = re.compile(r"(?:Unknown command line flag '|Found --)(config\.[^\s'=]+)")


def run(main: Callable[..., int | None], *, words: bool = False) -> None:
    """Parse the flags and run `main`, whose return value is the exit status.

    A `UserError` is printed without a traceback, with exit status 2.

    Args:
      main: The command.
      words: Whether `main` takes the positional arguments. Otherwise they are an error.
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

    # File names may contain characters that the terminal cannot show. The log's stream already
    # replaces them.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")

    def guarded(argv: Sequence[str]) -> int | None:
        # Show our own progress, but only warnings of libraries, some of which log a lot.
        absl_logging.set_verbosity(absl_logging.WARNING)
        absl_logging.get_absl_handler().setFormatter(EscapingFormatter("%(message)s"))
        absl_logging.get_absl_handler().addFilter(_not_of_a_full_disk)
        logging.getLogger("recon_ad").setLevel(logging.INFO)
        try:
            if words:
                return main(argv[1:])
            if len(argv) > 1:
                raise UserError(
                    f"{argv[1]!r} is not a flag; write options as --name=value (see --help)."
                )
            return main()
        except UserError as error:
            return _say(error)
        except KeyboardInterrupt:
            print("interrupted.", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            if disk_is_full(error):
                # Library threads that are still writing would only add tracebacks.
                sys.unraisablehook = threading.excepthook = lambda _: None
                where = getattr(error, "filename", None)
                place = f"{where}: the disk is full" if where else "the disk is full"
                return _say(UserError(f"{place}: free some space and run the same command again."))
            if not isinstance(error, OSError) or error.filename is None:
                raise
            return _say(UserError(f"{error.filename}: {error.strerror}; check the path."))

    app.run(guarded, flags_parser=parse)


def _not_of_a_full_disk(record: logging.LogRecord) -> bool:
    """Drop tracebacks of library threads on a full disk; the command reports it in a sentence."""
    return not (record.exc_info and disk_is_full(record.exc_info[1]))


def sentence(error: Exception) -> str:
    """Return an error's message in one line, for `WRONG_FLAGS` and any other error."""
    # Libraries add paragraphs to their messages. The first line says what is wrong.
    text = str(error).splitlines()[0]
    if "config" in flags.FLAGS and (early := EARLY.match(text)):
        return f"--{early[1]} changes a field of the config: give --config FILE before it."
    if isinstance(error, AttributeError | KeyError):  # ml_collections, for --config.field=value
        # Its message is a quoted name and, on the next line, perhaps a suggestion.
        cause = error.args[0]
        said = str(cause.args[0] if isinstance(cause, KeyError) else cause)
        name, *guess = said.replace('"', "").splitlines()
        name = name.strip("'")
        if moved := MOVED.get(name):
            guess = [f"The former config.method.{name} is config.{'.'.join(moved)}."]
        guess = guess or ["See configs/default.py."]
        text = " ".join([f"the config has no field {name}.", *guess])
    return text


def _missing() -> list[str]:
    """Return the required flags that were not given."""
    return [
        f"--{name}"
        for name in flags.FLAGS
        if flags.FLAGS[name].value is None and usage.is_required(flags.FLAGS[name])
    ]


def command_name() -> str:
    """Return the command line that starts the running command, without its flags."""
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
    """Return whether no other process of this launch has printed the message.

    launch/local.sh names a folder in which the processes record what they have printed.
    """
    folder = os.environ.get(TOLD)
    if not folder:
        return True
    name = hashlib.sha256(text.encode(errors="replace")).hexdigest()
    try:
        (Path(folder) / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # disk full, or the launcher has ended: better printed twice than never
        return True
    return True
