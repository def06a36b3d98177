"""The one exception that a user's mistake or a broken file ends in."""


class UserError(Exception):
    """Bad input. Its text is one sentence: what is wrong, where, and what to do about it.

    The commands print it without a traceback and exit with status 2.
    """
