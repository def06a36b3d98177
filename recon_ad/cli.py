"""How every command starts: absl flags, the log, user errors as one sentence."""

import logging
import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from absl import logging as absl_logging

from recon_ad.errors import UserError


def run(main: Callable[..., int | None], *, words: bool = False) -> None:
    """Parses the flags and runs `main`; its return value is the exit status.

    With `words`, `main` is given what stands on the command line beside the flags; else there may
    be nothing.

    A `UserError` is printed without a traceback, with exit status 2.
    """

    def parse(argv: list[str]) -> list[str]:
        # A config file is run while flags are parsed, and ml_collections reports an override of
        # an unknown field as AttributeError.
        try:
            return flags.FLAGS(argv, known_only=False)
        except (UserError, flags.Error, OSError, AttributeError) as error:
            sys.exit(_say(error))

    def guarded(argv: Sequence[str]) -> int | None:
        # Our own progress, and only warnings of the libraries, some of which are very chatty.
        absl_logging.set_verbosity(absl_logging.WARNING)
        absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(message)s"))
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
        except OSError as error:
            if error.filename is None:
                raise
            return _say(UserError(f"{error.filename}: {error.strerror}; check the path."))

    app.run(guarded, flags_parser=parse)


def _say(error: Exception) -> int:
    # Libraries add paragraphs to their messages; the first line says what is wrong.
    # Not str(): that of a KeyError, which ml_collections passes on, is quoted.
    text = str(error.args[0]) if isinstance(error, AttributeError) and error.args else str(error)
    print(f"error: {text.splitlines()[0]}", file=sys.stderr)
    return 2
