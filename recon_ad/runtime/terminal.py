"""Safe text for terminals and logs: file names may contain control characters."""

import logging
import unicodedata
from pathlib import Path

OBEYED = ("Cc", "Cf")  # control characters, and those that change the writing direction


def escaped(text: str, *, keep: str = "") -> str:
    """Return the text with control characters escaped, for example as "\\x1b".

    Args:
      text: Any text.
      keep: Characters that are not escaped, such as line breaks between the program's own lines.
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in OBEYED and c not in keep
        else c
        for c in text
    )


class EscapingFormatter(logging.Formatter):
    """Formatter that escapes a message's values, so that no name can forge a line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, with a traceback if it has one."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                escaped(str(x)) if isinstance(x, str | Path | Exception) else x for x in record.args
            )
        return escaped(super().format(record), keep="\n\t")
