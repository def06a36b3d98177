"""The one exception that a user's mistake or a broken file ends in."""

from collections.abc import Sequence


class UserError(Exception):
    """Bad input. Its text is one sentence: what is wrong, where, and what to do about it.

    The commands print it without a traceback and exit with status 2.
    """


TOLD = 3  # of several errors, whose text is shown


def together(errors: Sequence[UserError]) -> str:
    """Returns the texts of several errors as one; of many the first and how many more there are."""
    shown = "; ".join(str(error).rstrip(".") for error in errors[:TOLD])
    more = len(errors) - TOLD
    return f"{shown}; and {more} more." if more > 0 else f"{shown}."
