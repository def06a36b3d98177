"""HTML fragments: escaped text, tables and embedded pictures. Every function returns markup."""

import base64
import html
import re
from collections.abc import Mapping, Sequence

from recon_ad.report.drawing import INK, RULE


def text(value: object) -> str:
    """Escape `value` as text that is safe in elements and in quoted attributes.

    File names can contain anything: control characters become visible, and bytes that are not
    valid UTF-8 (Python's lone surrogates) are written as backslash escapes.
    """
    plain = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    seen = "".join("\ufffd" if ord(c) < 32 and c not in "\t\n" else c for c in plain)
    return html.escape(seen, quote=True)


def name(value: object) -> str:
    """Escape a file or defect name; `bdi` keeps right-to-left text from reordering its line."""
    return f"<bdi>{broken(value)}</bdi>"


def broken(value: object) -> str:
    """Escape a name that may break after slashes, hyphens and underscores, not within a word."""
    pieces = re.findall(r"[^/_-]*[/_-]+|[^/_-]+", str(value))
    return "<wbr>".join(map(text, pieces))


def paragraph(content: str, *, kind: str = "") -> str:
    """Return a paragraph of the class `kind` around markup."""
    return f'<p class="{kind}">{content}</p>' if kind else f"<p>{content}</p>"


def section(anchor: str, title: str, body: str) -> str:
    """Return a section of the page with its heading; the title is plain text."""
    return (
        f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
        f'<h2 id="{anchor}-title">{text(title)}</h2>{body}</section>'
    )


def folded(summary: str, body: str) -> str:
    """Return markup that is shown when its summary, plain text, is clicked."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def data(values: Mapping[str, object]) -> str:
    """Return data attributes for the script, each after a space."""
    return "".join(f' data-{key}="{text(value)}"' for key, value in values.items())


def table(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    kind: str = "",
    row_data: Sequence[Mapping[str, object]] = (),
) -> str:
    """Return a table in a box that scrolls, so that the page never gets wider than a phone.

    Args:
      caption: Plain text above the table. It also names the box for screen readers.
      heads: Plain text of the column headers.
      rows: Markup of the cells. The first cell of each row is the row's header.
      kind: Class of the box; "tall" limits its height.
      row_data: Data attributes of each row. Empty means no data.
    """
    head = "".join(f'<th scope="col">{text(h)}</th>' for h in heads)
    body = "".join(
        f'<tr{data(given)}><th scope="row">{row[0]}</th>'
        f"{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>"
        for row, given in zip(rows, row_data or [{}] * len(rows), strict=True)
    )
    # The box takes the focus, as otherwise the keyboard could not scroll it.
    return (
        f'<div class="scroll {kind}" role="region" tabindex="0" aria-label="{text(caption)}">'
        f"<table><caption>{text(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def image(data: bytes, *, kind: str, alt: str, shape: tuple[int, int], style: str = "") -> str:
    """Return an embedded picture.

    Args:
      data: Encoded picture.
      kind: "png" or "jpeg".
      alt: Plain text that replaces the picture for screen readers.
      shape: Height and width in pixels, for which the browser reserves the space.
      style: Class of the element.
    """
    encoded = base64.b64encode(data).decode("ascii")
    return (
        f'<img class="{style}" src="data:image/{kind};base64,{encoded}" alt="{text(alt)}" '
        f'height="{shape[0]}" width="{shape[1]}">'
    )


def curve(svg: str, *, alt: str, caption: str, wide: bool = False) -> str:
    """Return a figure of `plots` with its caption, in the reader's light or dark colour scheme.

    The figure is embedded as a picture, as the identifiers of several inline figures would collide.
    """
    themed = svg.replace(INK, "var(--ink)").replace(RULE, "var(--rule)")
    # Directly after the opening <svg ...>; a style element applies anywhere.
    start = themed.index(">", themed.index("<svg")) + 1
    style = (
        f"<style>:root{{--ink:{INK};--rule:{RULE}}}"
        "@media (prefers-color-scheme:dark){:root{--ink:#e4e7ea;--rule:#3d444c}}</style>"
    )
    themed = themed[:start] + style + themed[start:]
    encoded = base64.b64encode(themed.encode("utf-8")).decode("ascii")
    kind = "plot wide" if wide else "plot"
    return (
        f'<figure class="{kind}"><img src="data:image/svg+xml;base64,{encoded}" '
        f'alt="{text(alt)}"><figcaption>{text(caption)}</figcaption></figure>'
    )
