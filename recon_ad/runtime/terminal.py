"""Text for terminals and logs: names of files may hold what a terminal obeys."""

import logging
import unicodedata
from pathlib import Path

OBEYED = ("Cc", "Cf")  # control characters, and those that change the direction of writing


def escaped(text: str, *, keep: str = "") -> str:
    """Returns the text with control characters written out, as "\\x1b".

    Args:
      text: any.
      keep: characters that stay, such as a line break between lines of ours.
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in OBEYED and c not in keep
        else c
        for c in text
    )


class EscapingFormatter(logging.Formatter):
    """Escapes what is put into a message: a name cannot forge a line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the message, with a traceback where there is one."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                escaped(str(x)) if isinstance(x, str | Path | Exception) else x for x in record.args
            )
        return escaped(super().format(record), keep="\n\t")
