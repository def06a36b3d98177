"""Descriptions of damage in a detector's files, for messages."""

import re

MOST = 300  # characters of a text


def reason(error: BaseException) -> str:
    """Return what is wrong with a file, not in the words of Python or of a library."""
    if type(error) is ValueError and str(error):  # of this package
        return brief(str(error))
    # The names of sections and fields are quoted, once or twice.
    found = re.search(r"(\w+)['\"]", str(error))
    if found and isinstance(error, (LookupError, AttributeError)):
        return f"{brief(found[1])} is missing"
    return "its fields and its tensors do not fit each other"


def brief(text: str) -> str:
    """Return a text in one line, with its long numbers and words shortened."""
    # What closes a long word, such as a quote, stays.
    line = re.sub(
        r"([^\s/]{40})[^\s/]{40,}?(?=[^\w\s/]*(?:[\s/]|$))", r"\1…", " ".join(text.split())
    )
    if len(line) <= MOST:
        return line
    kept = line[: MOST - 2]
    opened = re.search(r"(?<!\w)(['\"])(?:(?!\1).)*$", kept)
    return f"{kept}…{opened[1] if opened else ''}"
