"""Draw quality against training time, for the tables that measured it during training.

    python -m benchmarks.curves

Reads results/NAME.json and results/long/NAME.json and writes results/figures/curves_NAME.png for
each table: the share of held-out variance that is not explained and, where a cell watched it, the
best IoU (oracle) by the truth of its main figures. Each data set has a row of the figure. A line is
one run; its dashes tell the scale.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.harness import record
from recon_ad.report.drawing import DASHES, INK, MANY, dress, legend, plain_powers, png
from recon_ad.runtime import files


class Scale(NamedTuple):
    """Folder of a scale's tables in results/, and the dashes of its lines."""

    folder: Path
    dash: str | tuple


SCALES = {"cpu": Scale(Path(), DASHES[0]), "long": Scale(Path("long"), DASHES[1])}

Run = Mapping[str, Any]


def runs_of(name: str, folder: Path) -> dict[str, list[Run]]:
    """Return the cells of a table that have a curve, by scale."""
    found = {}
    for scale, place in SCALES.items():
        path = folder / place.folder / f"{name}.json"
        content = json.loads(path.read_text()) if path.is_file() else {}
        cells = content.get("cells", ())  # other results have none
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
    """Return a run's text in the legend, without its data set and seed."""
    return ", ".join(filter(None, (run["method"], run["variant"])))


def draw_lines(axes: Axes, runs: Mapping[str, Sequence[Run]], key: str) -> dict[str, Line2D]:
    """Draw each run's line and return a handle for each kind of run."""
    kinds = dict.fromkeys(kind_of(run) for same in runs.values() for run in same)
    assert len(kinds) <= len(MANY), f"{len(kinds)} kinds of runs, and {len(MANY)} colours"
    colours = dict(zip(kinds, MANY, strict=False))
    handles = {}
    for scale, same in runs.items():
        for run in same:
            found = points(run, key)
            if found:
                style = {"color": colours[kind_of(run)], "linewidth": 1.2}
                axes.plot(*zip(*found, strict=True), linestyle=SCALES[scale].dash, **style)
                handles[kind_of(run)] = Line2D([], [], **style)
    axes.set_xscale("log")
    plain_powers(axes.xaxis)
    return handles


def draw(runs: Mapping[str, Sequence[Run]]) -> bytes:
    """Return the figure of one table as PNG bytes."""
    datasets = list(dict.fromkeys(run["dataset"] for same in runs.values() for run in same))
    size = (9, 3.4 * len(datasets))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    rows = figure.subplots(len(datasets), 2, squeeze=False)
    for dataset, (left, right) in zip(datasets, rows, strict=True):
        own = {s: [run for run in same if run["dataset"] == dataset] for s, same in runs.items()}
        handles = draw_lines(left, own, "unexplained")
        left.set_yscale("log")
        dress(left, x="training, s", y="held-out variance not explained", title=dataset)
        handles |= draw_lines(right, own, "iou")
        dress(right, x="training, s", y="best IoU (oracle)", title=dataset)
        right.set_visible(bool(right.lines))
        for scale, same in own.items():
            if same:
                dash = SCALES[scale].dash
                handles[f"scale={scale}"] = Line2D([], [], color=INK, linestyle=dash)
        legend(left, handles, loc="lower left")
    return png(figure)


def main(folder: Path = record.RESULTS) -> None:
    """Draw the figure of each table in a folder of results that has curves."""
    paths = [path for scale in SCALES.values() for path in (folder / scale.folder).glob("*.json")]
    for name in sorted({path.stem for path in paths}):
        runs = runs_of(name, folder)
        if any(runs.values()):
            file = folder / "figures" / f"curves_{name}.png"
            file.parent.mkdir(exist_ok=True)
            files.write_bytes(file, draw(runs))
            print(file)


if __name__ == "__main__":
    main()
