"""Curves of quality against training time are those of the tables' cells."""

import json

import pytest
from matplotlib.figure import Figure

from benchmarks import curves


def cell(method, *quality):
    """Return a cell with rows of (seconds, explained variance, IoU)."""
    rows = [
        {"train_seconds": seconds, "explained_variance": explained, "iou": {"B": iou, "A": 0.1}}
        for seconds, explained, iou in quality
    ]
    return {"dataset": "chess", "method": method, "variant": "", "curve": rows}


@pytest.fixture
def folder(tmp_path):
    """Return a folder of results whose table has curves at both scales, and cells without one."""
    (tmp_path / "long").mkdir()
    short = [cell("cae", (10, 0.5, 0.2), (20, 0.8, 0.3)), cell("vae"), {"reason": "absent"}]
    long = [cell("cae", (10, 0.4, 0.1), (90, 0.99, 0.7)), cell("aae", (9, None, 0.1), (99, 1, 0.2))]
    (tmp_path / "t.json").write_text(json.dumps({"cells": short}))
    (tmp_path / "long" / "t.json").write_text(json.dumps({"cells": long}))
    return tmp_path


def test_each_run_is_one_line_with_the_dashes_of_its_scale(folder):
    runs = curves.runs_of("t", folder)
    assert {scale: len(same) for scale, same in runs.items()} == {"cpu": 1, "long": 2}
    axes = Figure().subplots()
    handles = curves.draw_lines(axes, runs, "iou")
    assert list(handles) == ["cae", "aae"]
    short, long, other = axes.get_lines()
    assert short.get_ydata().tolist() == [0.2, 0.3]
    assert long.get_xdata().tolist() == [10, 90]
    assert short.get_color() == long.get_color() != other.get_color()
    assert short.get_linestyle() != long.get_linestyle()


def test_each_table_with_curves_has_a_figure(folder):
    (folder / "other.json").write_text('{"rows": []}')
    (folder / "u.json").write_bytes((folder / "t.json").read_bytes())
    curves.main(folder)
    drawn = {path.name: path.read_bytes()[1:4] for path in (folder / "figures").iterdir()}
    assert drawn == {"curves_t.png": b"PNG", "curves_u.png": b"PNG"}


def test_a_row_without_the_quantity_is_left_out(folder):
    aae = curves.runs_of("t", folder)["long"][1]
    assert curves.points(aae, "unexplained") == [(99, 0)]
