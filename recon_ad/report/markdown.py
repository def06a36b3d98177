"""Markdown tables and lists."""

from collections.abc import Iterable, Sequence

NOTHING = "–"


def bullets(sentences: Iterable[str]) -> str:
    """Return a list in Markdown."""
    return "\n".join(f"- {' '.join(sentence.split())}" for sentence in sentences)


def markdown_table(rows: Sequence[Sequence[str]], *, aligned: bool = False) -> str:
    """Return a table in Markdown with the first row as its head.

    `aligned` pads the columns, which makes the table readable in a terminal too.
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) if aligned else 0 for column in zip(*cells, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in cells
    ]
    rule = "".join("-" * max(3, width + 2) + "|" for width in widths)
    return "\n".join([lines[0], f"|{rule}", *lines[1:]])
