"""The exception for users' mistakes and damaged files."""

from collections.abc import Sequence


class UserError(Exception):
    """Bad input, with one sentence that says what is wrong, where, and what to do about it.

    The commands print it without a traceback and exit with status 2.
    """


SHOWN = 3  # errors whose text is shown, if there are several


def together(errors: Sequence[UserError]) -> str:
    """Return the texts of the first few errors as one sentence, and the number of the others."""
    shown = "; ".join(str(error).rstrip(".") for error in errors[:SHOWN])
    more = len(errors) - SHOWN
    return f"{shown}; and {more} more." if more > 0 else f"{shown}."
