"""Style of figures: colours, fonts, axes, legends, and the conversion to SVG and PNG.

Curves have no background. Code that embeds them may replace `INK` and `RULE` to suit a dark page.
"""

import io
from collections.abc import Mapping
from functools import lru_cache

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullFormatter

INK = "#1c2127"
RULE = "#c9ced4"
BLUE = "#2f7fc1"  # good images, training
ORANGE = "#d9701e"  # defective images, held-out, the detector's settings
# For many runs in one figure; each colour is visible on white and on black.
MANY = (BLUE, ORANGE, "#2a9d62", "#b5478f", "#98801c", "#7767d6", "#c8423a", "#3f9aa5")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))  # the next dash each time MANY is used up
FONT = "DejaVu Sans"  # comes with matplotlib, so the figures look the same on every machine
SIZE = 10  # points; a chart is about as wide as a phone, where this is 12 px


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(FONT)).get_charmap())


def short_label(name: str, *, limit: int = 24) -> str:
    """Return a name that the font can show, cut to `limit` characters.

    Matplotlib warns of each missing glyph and draws boxes; names come from file names.
    """
    shown = "".join(c if ord(c) in _glyphs() and c.isprintable() else "?" for c in name)
    if len(shown) <= limit:
        return shown
    # Cut in the middle, as numbered names differ at their ends.
    tail = (limit - 1) // 2
    return f"{shown[: limit - 1 - tail]}…{shown[-tail:]}"


def style_text(text: Text, *, size: int = SIZE) -> None:
    """Set the font and colour of a text in a figure."""
    # parse_math: a dollar sign in a name does not start a formula.
    text.set(color=INK, fontfamily=FONT, fontsize=size, parse_math=False)


def dress(axes: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Add labels and a grid to a pair of axes."""
    axes.set(xlabel=x, ylabel=y, title=title, facecolor="none", axisbelow=True)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        style_text(text)
    for axis in (axes.xaxis, axes.yaxis):
        style_text(axis.get_offset_text(), size=SIZE - 1)
    look = {"colors": INK, "labelsize": SIZE - 1, "labelfontfamily": FONT, "width": 0.6}
    axes.tick_params(length=3, **look)
    axes.tick_params(which="minor", length=1.5, **look)
    axes.grid(True, color=RULE, linewidth=0.5)
    for side, spine in axes.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=INK, linewidth=0.6)


def plain_powers(axis: Axis) -> None:
    """Use plain numbers on a logarithmic axis instead of matplotlib's formulas."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def legend(owner: Axes | Figure, handles: Mapping[str, Line2D | Patch], **place) -> None:
    """Add a legend if it has entries."""
    if not handles:
        return
    legend = owner.legend(handles.values(), handles.keys(), frameon=False, **place)
    for text in legend.get_texts():
        style_text(text, size=SIZE - 1)


def svg(figure: Figure) -> str:
    """Return a figure as SVG text, without a date."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Type", "Format"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return buffer.getvalue()


def png(figure: Figure) -> bytes:
    """Return a figure as PNG bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
