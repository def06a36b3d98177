"""Draw quality against training time, for the tables that measured it during training.

    python -m benchmarks.curves

Reads results/NAME.json and results/long/NAME.json and writes results/figures/curves_NAME.png for
each table: the share of held-out variance that is not explained and, where a cell watched it, the
best IoU (oracle). A line is one run; its dashes tell the scale.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.harness import record
from recon_ad.report.drawing import DASHES, INK, MANY, dress, legend, plain_powers
from recon_ad.runtime import files

SCALES = {"cpu": Path(), "long": Path("long")}  # folders in results/

Run = Mapping[str, Any]


def runs_of(name: str, folder: Path) -> dict[str, list[Run]]:
    """Return the cells of a table that have a curve, by scale."""
    found = {}
    for scale, place in SCALES.items():
        path = folder / place / f"{name}.json"
        cells = json.loads(path.read_text())["cells"] if path.is_file() else []
        found[scale] = [cell for cell in cells if len(cell.get("curve") or ()) > 1]
    return found


def points(run: Run, key: str) -> list[tuple[float, float]]:
    """Return (seconds, quantity) of a run's curve, without the rows that lack the quantity.

    `key` is "unexplained" or "iou", of the first truth.
    """
    found = []
    for row in run["curve"]:
        if key == "iou":
            value = next(iter(row.get("iou", {}).values()), None)
        else:
            explained = row["explained_variance"]
            value = None if explained is None else 1 - explained
        if value is not None:
            found.append((row["train_seconds"], value))
    return found


def kind_of(run: Run) -> str:
    """Return the text of a run in the legend, without its seed."""
    return ", ".join(filter(None, (run["dataset"], run["method"], run["variant"])))


def draw_lines(axes: Axes, runs: Mapping[str, Sequence[Run]], key: str) -> dict[str, Line2D]:
    """Draw each run's line and return a handle for each kind of run."""
    kinds = [kind_of(run) for same in runs.values() for run in same]
    colours = dict(zip(dict.fromkeys(kinds), MANY * len(kinds), strict=False))
    handles = {}
    for dash, same in zip(DASHES, runs.values(), strict=False):
        for run in same:
            found = points(run, key)
            if found:
                kind = kind_of(run)
                style = {"color": colours[kind], "linewidth": 1.2}
                axes.plot(*zip(*found, strict=True), linestyle=dash, **style)
                handles[kind] = Line2D([], [], **style)
    axes.set_xscale("log")
    plain_powers(axes.xaxis)
    return handles


def draw(runs: Mapping[str, Sequence[Run]]) -> bytes:
    """Return the figure of one table as PNG bytes."""
    figure = Figure(figsize=(9, 3.6), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2)
    handles = draw_lines(left, runs, "unexplained")
    left.set_yscale("log")
    dress(left, x="training, s", y="held-out variance not explained")
    handles |= draw_lines(right, runs, "iou")
    dress(right, x="training, s", y="best IoU (oracle)")
    for dash, (scale, same) in zip(DASHES, runs.items(), strict=False):
        if same:
            handles[f"scale={scale}"] = Line2D([], [], color=INK, linestyle=dash)
    legend(figure, handles, loc="outside right upper")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def main() -> None:
    """Draw the figure of each table that has curves."""
    for path in sorted((record.RESULTS / "long").glob("*.json")):
        runs = runs_of(path.stem, record.RESULTS)
        if any(runs.values()):
            name = f"curves_{path.stem}.png"
            files.write_bytes(record.RESULTS / "figures" / name, draw(runs))
            print(f"results/figures/{name}")


if __name__ == "__main__":
    main()
