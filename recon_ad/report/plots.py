"""Curves and histograms, one function each, as SVG text.

They are drawn on matplotlib's `Figure` objects without pyplot, so they work in threads and
notebooks and leave no figure open. Colours and fonts come from `drawing`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from recon_ad.metrics.figures import FPR_LIMIT
from recon_ad.report.content import GOOD
from recon_ad.report.drawing import (
    BLUE,
    DASHES,
    INK,
    MANY,
    ORANGE,
    SIZE,
    dress,
    legend,
    plain_powers,
    short_label,
    style_text,
    svg,
)

MAX_KINDS = 10  # defect types with a row in the score figure; with more, the rarest share one
LOG_SPAN = 30.0  # beyond this ratio a linear axis shows one end only
MAX_VECTOR_DOTS = 2000  # more dots are drawn as pixels, as the SVG would take megabytes


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop points on the same thousandth as the one before, since they look the same."""
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    cell = np.stack([np.rint(x * 1000), np.rint(y * 1000)])
    moves = np.any(np.diff(cell, axis=1) != 0, axis=0)
    # Both ends of every move, so that a step keeps its corner.
    keep = np.ones(x.size, bool)
    keep[1:-1] = moves[:-1] | moves[1:]
    return x[keep], y[keep]


def _unit_square(axes: Axes, *, right: float) -> None:
    axes.set(xlim=(-0.01 * right, right), ylim=(-0.01, 1.02), yticks=np.linspace(0, 1, 6))


def roc_curve(
    fpr: Float[np.ndarray, " n"],
    tpr: Float[np.ndarray, " n"],
    *,
    title: str = "",
    unit: str = "images",
    operating_point: tuple[Real, Real] | None = None,
) -> str:
    """Draw the ROC curve with the line of pure guessing.

    Args:
      fpr: Share of good items called defective, in [0, 1], ascending.
      tpr: Share of defective items found, in [0, 1].
      title: Title of the figure.
      unit: Name of the items, for the axis labels.
      operating_point: (fpr, tpr) at the calibrated threshold, marked if given.

    Returns:
      SVG text.
    """
    figure = Figure(figsize=(3.4, 3.3), layout="constrained")
    axes = figure.add_subplot()
    dress(axes, x=f"good {unit} called defective", y=f"defective {unit} found", title=title)
    _unit_square(axes, right=1.02)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
    axes.plot(*_thin(fpr, tpr), color=BLUE, linewidth=1.8)
    handles = {
        "detector": Line2D([], [], color=BLUE, linewidth=1.8),
        "guessing": Line2D([], [], color=INK, linewidth=0.8, linestyle=(0, (2, 3))),
    }
    if operating_point is not None:
        mark = {"marker": "o", "markersize": 7, "color": ORANGE, "linestyle": "none"}
        axes.plot(*operating_point, **mark, zorder=3, clip_on=False)
        handles["at the calibrated threshold"] = Line2D([], [], **mark)
    legend(axes, handles, loc="lower right")
    return svg(figure)


def pro_curve(
    fpr: Float[np.ndarray, " n"],
    pro: Float[np.ndarray, " n"],
    *,
    title: str = "",
    limit: float = FPR_LIMIT,
) -> str:
    """Draw the mean overlap with defect regions over the false-positive rate, with the limit.

    Args:
      fpr: Share of good pixels marked, in [0, 1], ascending. The curve may end at the limit.
      pro: Mean over the defect regions of the marked share, in [0, 1].
      title: Title of the figure.
      limit: False-positive rate up to which the area counts and is shaded.

    Returns:
      SVG text.
    """
    figure = Figure(figsize=(3.4, 3.3), layout="constrained")
    axes = figure.add_subplot()
    dress(axes, x="good pixels marked", y="mean share of a region marked", title=title)
    x, y = _thin(fpr, pro)
    reach = float(x.max(initial=0.0))
    _unit_square(axes, right=1.02 if reach > 1.2 * limit else 1.2 * limit)
    axes.plot(x, y, color=BLUE, linewidth=1.8)
    if x.size:
        # Cut exactly at the limit, so that the shaded area is the reported figure.
        inner = np.append(x[x < limit], min(limit, reach))
        axes.fill_between(inner, np.interp(inner, x, y), color=BLUE, alpha=0.18, linewidth=0)
    axes.axvline(limit, color=ORANGE, linewidth=1.2, linestyle=(0, (5, 2)))
    handles = {
        "detector": Line2D([], [], color=BLUE, linewidth=1.8),
        f"limit {limit:g}": Line2D([], [], color=ORANGE, linewidth=1.2, linestyle=(0, (5, 2))),
    }
    legend(axes, handles, loc="lower center")
    return svg(figure)


def _rows(defects: Sequence[str]) -> dict[str, np.ndarray]:
    """Return label -> bool [n]: good images first, then the defect types by frequency."""
    names = np.array(defects, dtype=object)
    kinds = [kind for kind, _ in Counter(d for d in defects if d != GOOD).most_common()]
    shown = kinds if len(kinds) <= MAX_KINDS else kinds[: MAX_KINDS - 1]
    members = [(GOOD, names == GOOD)] + [(short_label(kind), names == kind) for kind in shown]
    if len(shown) < len(kinds):
        rest = np.isin(names, np.array(kinds[len(shown) :], dtype=object))
        members.append((f"{len(kinds) - len(shown)} other types", rest))
    # Two names may be cut to the same label, so counts and spaces keep the keys different.
    rows = {}
    for label, chosen in members:
        key = f"{label} ({int(chosen.sum())})"
        while key in rows:
            key += " "
        rows[key] = chosen
    return rows


def _edges(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return bin edges over `values`, and whether they are spaced logarithmically."""
    if values.size == 0:
        return np.linspace(0, 1, 6), False
    low, high = float(values.min()), float(values.max())
    bins = int(np.clip(2 * np.sqrt(values.size), 6, 40))
    if low > 0 and high > LOG_SPAN * float(np.median(values)):
        return np.geomspace(low / 1.05, high * 1.05, bins + 1), True
    room = 0.03 * (high - low) or 0.05 * abs(high) or 0.5
    return np.linspace(low - room, high + room, bins + 1), False


def score_histogram(
    scores: Float[np.ndarray, " n"],
    defects: Sequence[str],
    *,
    threshold: Real | None = None,
    title: str = "",
) -> str:
    """Draw the scores of good and defective images: counts on top, every image as a dot below.

    The dots suit a few images, the counts hundreds. The axis is logarithmic where a linear one
    would squeeze half of the images into its first few per cent.

    Args:
      scores: Raw scores. Those that are not finite are left out.
      defects: `GOOD` or the defect type for each score.
      threshold: Image threshold, drawn if it is finite.
      title: Title of the figure.

    Returns:
      SVG text.

    Raises:
      ValueError: If the numbers of defects and scores differ.
    """
    if len(defects) != scores.size:
        raise ValueError(f"{scores.size} scores need as many defect types, not {len(defects)}")
    finite = np.isfinite(scores)
    values = scores[finite]
    rows = _rows([defect for defect, kept in zip(defects, finite, strict=True) if kept])
    has_line = threshold is not None and bool(np.isfinite(threshold))
    edges, log = _edges(np.append(values, threshold) if has_line else values)

    figure = Figure(figsize=(4.0, 2.3 + 0.28 * len(rows)), layout="constrained")
    heights = [1.6, 0.28 * len(rows)]
    top, bottom = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    dress(top, y="images", title=title)
    dress(bottom, x="image score" + (" (logarithmic)" if log else ""))
    good = next(iter(rows.values()))
    handles: dict[str, Line2D | Patch] = {}
    for label, chosen, colour in (("good", good, BLUE), ("defective", ~good, ORANGE)):
        if chosen.any():
            counts, _ = np.histogram(values[chosen], edges)
            top.stairs(counts, edges, fill=True, color=colour, alpha=0.35)
            top.stairs(counts, edges, color=colour, linewidth=1.2)
            handles[label] = Patch(facecolor=colour, alpha=0.7)
    for row, chosen in enumerate(rows.values()):
        # Golden-ratio steps spread the dots evenly and the same way each time.
        offset = (np.arange(int(chosen.sum())) * 0.618034) % 1 - 0.5
        bottom.scatter(
            values[chosen],
            row + 0.6 * offset,
            s=14,
            marker="o" if row == 0 else "^",
            color=BLUE if row == 0 else ORANGE,
            alpha=0.6,
            linewidths=0,
            rasterized=values.size > MAX_VECTOR_DOTS,
        )
    if has_line:
        line = {"color": INK, "linewidth": 1.2, "linestyle": (0, (5, 2))}
        top.axvline(threshold, **line)
        bottom.axvline(threshold, **line)
        handles[f"threshold {threshold:.3g}"] = Line2D([], [], **line)
    if log:
        bottom.set_xscale("log")
        plain_powers(bottom.xaxis)
    bottom.set(xlim=(edges[0], edges[-1]), ylim=(len(rows) - 0.4, -0.6))
    bottom.set_yticks(range(len(rows)), list(rows))
    for text in bottom.get_yticklabels():
        style_text(text, size=SIZE - 1)
    bottom.grid(False, axis="y")
    top.set_ylim(bottom=0)
    top.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    top.tick_params(labelbottom=False)
    legend(figure, handles, loc="outside upper left", ncols=3, columnspacing=1.4)
    return svg(figure)


def patch_histogram(patches: Mapping[str, Float[np.ndarray, " _"]], *, title: str = "") -> str:
    """Draw the mean residual of normal and of defective patches, as shares of each class.

    The figure follows Schneider et al. 2022, Fig. 6. The axis is logarithmic where a linear one
    would squeeze half of the patches into its first few per cent.

    Args:
      patches: Mean residual of each patch under `normal` and `defective`. Values that are not
        finite are left out, and a class without any is not drawn.
      title: Title of the figure.

    Returns:
      SVG text.
    """
    classes = {name: values[np.isfinite(values)] for name, values in patches.items()}
    edges, log = _edges(np.concatenate([classes["normal"], classes["defective"]]))
    figure = Figure(figsize=(4.0, 2.5), layout="constrained")
    axes = figure.add_subplot()
    x = "mean residual of a patch" + (" (logarithmic)" if log else "")
    dress(axes, x=x, y="share of the class", title=title)
    handles: dict[str, Line2D | Patch] = {}
    for name, colour in (("normal", BLUE), ("defective", ORANGE)):
        values = classes[name]
        if values.size:
            shares = np.histogram(values, edges)[0] / values.size
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.35)
            axes.stairs(shares, edges, color=colour, linewidth=1.2)
            handles[f"{name} ({values.size:,})"] = Patch(facecolor=colour, alpha=0.7)
    if log:
        axes.set_xscale("log")
        plain_powers(axes.xaxis)
    axes.set(xlim=(edges[0], edges[-1]))
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    legend(figure, handles, loc="outside upper left", ncols=2, columnspacing=1.4)
    return svg(figure)


def training_curve(rows: Sequence[Mapping[str, Real | None]], *, title: str = "") -> str:
    """Draw training loss and held-out loss over steps.

    Args:
      rows: Rows with `step`, `train_loss` and `heldout_loss`. A loss that is absent, None or not
        finite is left out. The loss axis is logarithmic if the values span a wide range.
      title: Title of the figure.

    Returns:
      SVG text.
    """
    figure = Figure(figsize=(4.0, 2.7), layout="constrained")
    axes = figure.add_subplot()
    handles: dict[str, Line2D | Patch] = {}
    seen: list[float] = []
    lines = (
        ("train_loss", "training loss", BLUE, "-"),
        ("heldout_loss", "held-out loss", ORANGE, (0, (5, 2))),
    )
    for key, label, colour, dash in lines:
        points = _losses(rows, key)
        if points:
            handles[label] = _line(axes, points, color=colour, linestyle=dash)
            seen += [loss for _, loss in points]
    _dress_losses(axes, seen, y="loss", title=title)
    legend(axes, handles, loc="upper right")
    return svg(figure)


def heldout_curves(kinds: Mapping[str, Sequence[Sequence[Mapping[str, Real | None]]]]) -> str:
    """Draw the held-out losses of many runs in one figure; runs of one kind share a colour.

    Args:
      kinds: Rows of each run, as `training_curve` takes them, by the label of the run's kind.

    Returns:
      SVG text.
    """
    figure = Figure(figsize=(4.0, 2.7 + 0.22 * len(kinds)), layout="constrained")
    axes = figure.add_subplot()
    handles: dict[str, Line2D | Patch] = {}
    seen: list[float] = []
    for i, (label, runs) in enumerate(kinds.items()):
        look = {
            "color": MANY[i % len(MANY)],
            "linestyle": DASHES[i // len(MANY) % len(DASHES)],
        }
        for points in filter(None, (_losses(rows, "heldout_loss") for rows in runs)):
            handles[short_label(label, limit=44)] = _line(axes, points, **look)
            seen += [loss for _, loss in points]
    _dress_losses(axes, seen, y="held-out loss")
    legend(figure, handles, loc="outside lower left")
    return svg(figure)


def _losses(rows: Sequence[Mapping[str, Real | None]], key: str) -> list[tuple[Real, Real]]:
    points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return sorted(point for point in points if np.isfinite(point[1]))


def _line(axes: Axes, points: Sequence[tuple[Real, Real]], **look: Any) -> Line2D:
    """Draw the points and return their legend handle."""
    # A single measurement makes no line, so a few points get markers.
    look |= {"linewidth": 1.6, "marker": "o" if len(points) <= 30 else "", "markersize": 3.5}
    axes.plot(*zip(*points, strict=True), **look)
    return Line2D([], [], **look)


def _dress_losses(axes: Axes, seen: Sequence[Real], *, y: str, title: str = "") -> None:
    log = bool(seen) and min(seen) > 0 and max(seen) > LOG_SPAN * min(seen)
    if log:
        axes.set_yscale("log")
        plain_powers(axes.yaxis)
    dress(axes, x="training step", y=y + (" (logarithmic)" if log else ""), title=title)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.0f}")
