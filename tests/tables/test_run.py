"""The papers' tables: cells that are run, kept, rejected and shown, tested on tiny tables."""

import io
import itertools
import json
import os
import re
import shutil
import time
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors.numpy
from helpers.commands import refusal
from helpers.small_runs import small_config, without_timings
from helpers.vit_reference import make_tensors
from PIL import Image

from recon_ad.data import synthetic_source
from recon_ad.data.build import build_source
from recon_ad.data.synthetic import write_folder
from recon_ad.detector.directory import load
from recon_ad.errors import UserError
from recon_ad.metrics.figures import FIGURES
from recon_ad.pretrained import preset
from recon_ad.tables import TABLES, run, schneider2022_figures
from recon_ad.tables.base import Cell, Column, Figure, Made, Table
from recon_ad.tables.run import run_table
from recon_ad.tables.schneider2022 import time_to_mark
from recon_ad.tables.watch import seconds_to
from recon_ad.training import run as trainer

SMOKE = {"smoke": "true"}
FOLDER = "configs/folder.py"  # its smoke config on chess is that of `finished_run`
CHESS = Cell(
    "chess", "cae", 0, FOLDER, arguments=SMOKE, part="Small", iou_watched=0.01,
    paper={"iou_max_oracle": 0.7975}, source="the paper, Table 1", protocol=("it is small.",),
)  # fmt: skip
NOISE = Cell(
    "noise", "cae", 0, FOLDER, arguments=SMOKE, fields={"data.name": "noise"}, iou_watched=1.0
)
FIELDS = {
    "train.steps": 2, "train.heldout_patches": 16, "train.batch_size": 8, "data.patch_size": 32,
    "method.n_z": 8, "method.width": 0.25, "inference.stride": 32, "evaluation.bootstrap": 20,
    "evaluation.panels": 1,
}  # fmt: skip
USERS = Cell("mine", "cae", 0, FOLDER, folders=("my_set",), absent="put it there.", fields=FIELDS)
OWN_CLOCK = ("wall_seconds", "seconds_to_iou", "curve")


def table_of(*cells, **fields):
    columns = (
        Column("iou_max_oracle", "IoU", 4),
        Column("truths.A.iou_max_oracle", "IoU, truth A", 4),
        Column("image_auroc", "image AUROC"),
    )
    return Table("tiny", "A tiny table", columns, lambda scale, data: cells, **fields)


TINY = table_of(CHESS, NOISE, protocol=("the images are made up.",))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("table")
    run_table(TINY, scale="cpu", workdir=workdir)
    return workdir


def cells_of(workdir):
    """Return the cells without values that depend on a clock."""
    cells = json.loads((workdir / "tiny.json").read_text())["cells"]
    return [
        without_timings({k: v for k, v in cell.items() if k not in OWN_CLOCK}) for cell in cells
    ]


def test_a_cell_holds_the_figures_of_its_run_and_how_they_came_about(finished):
    chess, noise = json.loads((finished / "tiny.json").read_text())["cells"]
    metrics = json.loads((finished / "runs/chess-cae-seed0/metrics.json").read_text())
    expected = {key: metrics[key] for key in (*FIGURES, "truths")} | {
        "method": "cae", "dataset": "chess", "seed": 0, "steps": 6, "protocol": ["it is small."],
        "paper": {"iou_max_oracle": 0.7975, "source": "the paper, Table 1"},
    }  # fmt: skip
    assert {key: chess[key] for key in expected} == expected
    assert noise["paper"] == {}
    for cell in (chess, noise):
        assert cell["hardware"] and cell["versions"]["jax"]
        assert cell["wall_seconds"] > cell["train_seconds"] > 0
        assert cell["config"]["data"]["patch_size"] == 32
        assert "heldout_loss" in cell["heldout"] and cell["data"]["good_images"] == 4


def test_the_looks_at_the_iou_end_at_the_figure_of_the_evaluation(finished):
    seen = json.loads((finished / "runs/chess-cae-seed0/watched.json").read_text())["seen"]
    chess, noise = json.loads((finished / "tiny.json").read_text())["cells"]
    assert [row["step"] for row in seen] == [2, 4, 6]
    last = {"B": chess["iou_max_oracle"], "A": chess["truths"]["A"]["iou_max_oracle"]}
    assert seen[-1]["iou"] == last
    story = chess["seconds_to_iou"]
    assert story["seconds"]["B"] == seen[0]["train_seconds"]  # a mark of 0.01 is reached at once
    assert story["best"]["A"] == max(row["iou"]["A"] for row in seen)
    assert noise["seconds_to_iou"]["seconds"] == {"B": None, "A": None}
    met = f"reached after {seen[0]['train_seconds']:.0f} s of training"
    best = f"(highest {story['best']['B']:.4f}, measured 3 times during training)"
    assert time_to_mark(chess).startswith(f"chess-cae-seed0: IoU 0.01 is {met} {best}")
    assert "0.99 never, 0.995 never, 0.999 never" in time_to_mark(chess)
    curve = chess["curve"]
    assert [row["step"] for row in curve] == [2, 4, 6]
    assert curve[-1]["explained_variance"] == 1 - chess["heldout"]["heldout_unexplained_variance"]
    assert seconds_to(curve, "explained_variance", [-9.0, 2.0]) == {
        -9.0: curve[0]["train_seconds"], 2.0: None
    }  # fmt: skip
    story["seconds"]["B"] = None
    assert "IoU 0.01 is not reached" in time_to_mark(chess)


@pytest.mark.slow
def test_a_table_that_was_killed_goes_on_and_ends_the_same(finished, tmp_path, monkeypatch):
    original = run.Watcher.__call__

    def dies(self, step, variables, train_seconds):
        original(self, step, variables, train_seconds)
        if "noise" in str(self._path) and step == 4:
            raise InterruptedError

    shutil.copytree(finished / "runs/chess-cae-seed0", tmp_path / "runs/chess-cae-seed0")
    monkeypatch.setattr(run.Watcher, "__call__", dies)
    with pytest.raises(InterruptedError):
        run_table(TINY, scale="cpu", workdir=tmp_path)
    assert [cell["name"] for cell in cells_of(tmp_path)] == ["chess-cae-seed0"]
    watched = tmp_path / "runs/noise-cae-seed0/watched.json"
    kept = json.loads(watched.read_text())
    assert [row["step"] for row in kept["seen"]] == [2, 4]
    assert 0 < kept["wall_seconds"] < 1000
    watched.write_text(json.dumps(kept | {"wall_seconds": 1000.0}))
    started = time.perf_counter()
    monkeypatch.setattr(run.Watcher, "__call__", original)
    run_table(TINY, scale="cpu", workdir=tmp_path)
    assert cells_of(tmp_path) == cells_of(finished)
    # The time before the kill counts too.
    noise = json.loads((tmp_path / "tiny.json").read_text())["cells"][1]
    assert 0 < noise["wall_seconds"] - 1000 < time.perf_counter() - started
    # Step 4 is repeated, because its checkpoint was not written.
    assert [row["step"] for row in json.loads(watched.read_text())["seen"]] == [2, 4, 6]


def test_a_run_that_was_evaluated_but_not_noted_is_only_noted(finished, tmp_path, monkeypatch):
    shutil.copytree(finished / "runs", tmp_path / "runs")
    monkeypatch.setattr(trainer, "fit_state", None)
    monkeypatch.setattr(run, "evaluate_workdir", None)
    run_table(TINY, scale="cpu", workdir=tmp_path)
    assert cells_of(tmp_path) == cells_of(finished)


def test_the_json_alone_is_enough_to_go_on_unless_the_config_has_changed(
    finished, tmp_path, monkeypatch
):
    shutil.copy(finished / "tiny.json", tmp_path)
    monkeypatch.setattr(run, "train", None)
    run_table(TINY, scale="cpu", workdir=tmp_path)
    for name in ("tiny.json", "tiny.md"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    # Cells of an earlier call stay after those of this one.
    run_table(table_of(NOISE), scale="cpu", workdir=tmp_path)
    assert cells_of(tmp_path) == cells_of(finished)
    changed = table_of(CHESS, NOISE._replace(fields={**NOISE.fields, "train.steps": 9}))
    before = (tmp_path / "tiny.json").read_bytes()
    with pytest.raises(UserError, match=r"noise-cae-seed0, .*train\.steps: 6 → 9.*delete"):
        run_table(changed, scale="cpu", workdir=tmp_path)
    with pytest.raises(UserError, match="at --scale cpu; choose another"):
        run_table(TINY, scale="paper", workdir=tmp_path)
    assert (tmp_path / "tiny.json").read_bytes() == before
    (tmp_path / "tiny.json").write_text('{"cells": [{}')
    with pytest.raises(UserError, match=r"tiny\.json is damaged"):
        run_table(TINY, scale="cpu", workdir=tmp_path)


def test_a_cell_is_finished_though_configs_have_new_fields_since(finished, tmp_path, monkeypatch):
    content = json.loads((finished / "tiny.json").read_text())
    for cell in content["cells"]:
        del cell["config"]["optim"]["warmup"], cell["config"]["optim"]["average"]
        # Fields that autoencoders do not read, as older versions stored them.
        cell["config"]["encoder"] = {"blocks": [7]}
        cell["config"]["method"]["coreset"] = 7
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    monkeypatch.setattr(run, "_run", None)  # nothing may run
    assert len(run_table(TINY, scale="cpu", workdir=tmp_path)) == 2
    averaged = table_of(CHESS, NOISE._replace(fields={**NOISE.fields, "optim.average": 0.5}))
    with pytest.raises(UserError, match=r"noise-cae-seed0, .*optim\.average: 0.* → 0\.5"):
        run_table(averaged, scale="cpu", workdir=tmp_path)


def test_images_that_are_made_from_the_users_are_made_once_and_used(
    finished, chess_folder, tmp_path, monkeypatch
):
    data, seen = tmp_path / "data", []

    def make(folder, target):
        seen.append(folder)
        shutil.copytree(chess_folder, target, dirs_exist_ok=True)
        Image.new("L", (9, 9), 200).save(target / "extra.png")

    def copied(config, workdir, **_):  # instead of a training
        return load(shutil.copytree(finished / "runs/chess-cae-seed0", workdir) / "detector")

    monkeypatch.setattr(run, "train", copied)
    write_folder(synthetic_source("noise", side=128), data / "my_set")
    made = Made("boards", make, {"part.template": "extra.png"})
    table = table_of(*(USERS._replace(made=made, variant=v) for v in ("one", "two")))
    looked_at = []
    monkeypatch.setattr(run, "build_source", lambda c: looked_at.append(c) or build_source(c))
    first, second = run_table(table, scale="cpu", workdir=tmp_path / "w", data=data)
    assert seen == [data / "my_set"] and not first.get("reason")
    folder = tmp_path / "w" / "made" / "boards"
    assert [c.data.path for c in looked_at] == [str(folder)] * 2
    assert looked_at[0].part.template == str(folder / "extra.png")
    # On another machine the files are elsewhere, but it is the same run.
    assert first["config"]["part"]["template"] is True and "path" not in first["config"]["data"]
    (cell, _) = run_table(table, scale="cpu", workdir=tmp_path / "w", data=data)
    assert len(seen) == 1 and cell == first and second["variant"] == "two"
    (cell, _) = run_table(table, scale="cpu", workdir=tmp_path / "other")
    assert "no --data was given" in cell["reason"]


def test_images_that_are_not_there_are_null_with_a_reason_until_they_are(chess_folder, tmp_path):
    data = tmp_path / "data"
    data.mkdir()

    def made(**given):
        (cell,) = run_table(table_of(USERS), scale="cpu", workdir=tmp_path / "w", **given)
        return cell

    cell = made()
    assert cell["reason"].endswith("no --data was given: put it there.")
    assert all(cell[key] is None for key in (*FIGURES, "steps"))
    text = (tmp_path / "w" / "tiny.md").read_text()
    assert "| mine | cae | 0 | – | – | – |" in text
    assert "mine-cae-seed0: the images must be supplied" in text
    assert "none was found in --data" in made(data=data)["reason"]

    shutil.copytree(chess_folder, data / "some" / "My-Set")
    cell = made(data=data)
    assert "reason" not in cell and "seconds_to_iou" not in cell
    assert cell["steps"] == 2 and cell["pixel_auroc"] > 0
    assert str(tmp_path) not in json.dumps(cell["config"])  # another machine has another folder

    # Kept when the images are gone, and found by name wherever they are.
    shutil.rmtree(data / "some")
    assert made(data=data) == cell
    with pytest.raises(UserError, match="nowhere: folder not found"):
        made(data=tmp_path / "nowhere")


def test_one_model_of_several_sets_has_a_row_for_each(chess_folder, tmp_path):
    sets = {"one": ("set_one",), "two": ("set_two",)}
    table = table_of(USERS._replace(dataset="all", folders=(), together=sets))
    data = tmp_path / "data"
    shutil.copytree(chess_folder, data / "deep" / "set_one")
    (cell,) = run_table(table, scale="cpu", workdir=tmp_path / "w", data=data)
    assert "two was not found in --data" in cell["reason"]
    write_folder(synthetic_source("noise", side=128), data / "set_two")
    (cell,) = run_table(table, scale="cpu", workdir=tmp_path / "w", data=data)
    assert list(cell["per_category"]) == ["one", "two"]
    assert "category" not in cell["config"]["data"]
    rows = (tmp_path / "w" / "tiny.md").read_text()
    for name in ("one", "two"):
        auroc = cell["per_category"][name]["image_auroc"]
        shown = "–" if auroc is None else f"{auroc:.3f}"
        assert re.search(rf"\| {name} \| cae \| 1 \|.*\| {shown} \|", rows)
    assert "| all | cae" not in rows


def test_weights_are_looked_for_by_the_encoders_name_and_leave_no_path(tmp_path):
    cell = CHESS._replace(method="knn", config="configs/folder.py", iou_watched=None, paper={})
    fields = {"encoder.weights": "hub", "encoder.name": "deit_tiny_patch16_224"}
    table = table_of(cell._replace(fields=fields))
    (kept,) = run_table(table, scale="cpu", workdir=tmp_path / "w", weights=tmp_path)
    assert kept["reason"].startswith("deit_tiny_patch16_224 was not found in the folder")
    file = tmp_path / "deit_tiny_patch16_224" / "model.safetensors"
    file.parent.mkdir()
    safetensors.numpy.save_file(make_tensors(preset("deit_tiny_patch16_224").spec), file)
    (kept,) = run_table(table, scale="cpu", workdir=tmp_path / "w", weights=tmp_path)
    assert "reason" not in kept and "weights" not in kept["config"]["encoder"]
    assert len(kept["pretrained"]["sha256"]) == 64
    assert str(tmp_path) not in (tmp_path / "w" / "tiny.json").read_text()


def test_broken_images_and_a_training_that_diverges_are_null_and_say_why(chess_folder, tmp_path):
    shutil.copytree(chess_folder, tmp_path / "my_set")
    (tmp_path / "my_set/train/good/001.png").write_bytes(b"no image")
    diverging = NOISE._replace(fields={**NOISE.fields, "optim.learning_rate": 1e30})
    table = table_of(USERS, diverging)
    broken, noise = run_table(table, scale="cpu", workdir=tmp_path / "w", data=tmp_path)
    assert "001.png" in broken["reason"]
    assert noise["reason"].startswith("training failed: loss is")
    assert "lower config.optim.learning_rate" in (tmp_path / "w/tiny.md").read_text()


def test_optional_cells_are_left_out_when_the_time_is_spent(finished, tmp_path, monkeypatch):
    started = Mock(side_effect=FloatingPointError("it was started"))
    monkeypatch.setattr(run, "train", started)
    shutil.copy(finished / "tiny.json", tmp_path)
    chess, noise = json.loads((tmp_path / "tiny.json").read_text())["cells"]
    optional = CHESS._replace(seed=1, optional=True)
    # The time spent so far, and as much again as the finished cell on the same images took.
    needed = (2 * chess["wall_seconds"] + noise["wall_seconds"]) / 3600
    for hours, said in ((needed * 0.99, "left out: "), (needed * 1.01, "it was started")):
        table = table_of(CHESS, NOISE, optional, hours={"cpu": hours})
        assert said in run_table(table, scale="cpu", workdir=tmp_path)[2]["reason"]


def test_the_page_says_ours_beside_the_papers_and_how_it_was_run(finished):
    text = (finished / "tiny.md").read_text()
    chess, _ = json.loads((finished / "tiny.json").read_text())["cells"]
    ours = f"{chess['iou_max_oracle']:.4f} | 0.7975 | {chess['truths']['A']['iou_max_oracle']:.4f}"
    for told in (
        "| data | method | seeds | IoU | paper | IoU, truth A | image AUROC |",
        f"| chess | cae | 1 | {ours} | {chess['image_auroc']:.3f} |",
        "paper's figures: the paper, Table 1.",
        "- the images are made up.",
        "- chess-cae-seed0: it is small.",
        chess["hardware"],
        f"jax {chess['versions']['jax']}",
        f"| chess-cae-seed0 | 0 | 6 | 8 | {chess['train_seconds']:.0f} |",
    ):
        assert told in text, told


def not_blank(png):
    """Check pictures and text on white: neither all white nor all ink."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    return min(pixels.shape) > 150 and 0.02 < np.mean(pixels < 200) < 0.98


FIGURE_PARTS = {
    "binary_maps": "at the threshold that maximises the IoU",
    "two_patches": "their reconstructions",
    "patch_histograms": "mean squared residual of each patch",
    "dark_stretch": "defects have a higher mean residual",
    "as_training_goes": "step 2 0.0",
    "defective_patch": "on the defect",
}


@pytest.mark.parametrize("draw", FIGURE_PARTS)
def test_each_figure_is_a_picture_with_its_sentence(finished, draw):
    names = ["chess-cae-seed0", "noise-cae-seed0"][: 1 + (draw == "binary_maps")]
    png, text = getattr(schneider2022_figures, draw)({n: finished / "runs" / n for n in names})
    assert not_blank(png) and FIGURE_PARTS[draw] in text


def test_pictures_are_drawn_once_and_again_only_after_a_new_run(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    calls = []

    def draw(runs):
        calls.append(sorted(runs))
        return schneider2022_figures.two_patches(runs)

    shown = (("chess-cae-seed0", "not-yet"), ("not-yet",))
    figures = (Figure(f"figure{i}", cells, draw) for i, cells in enumerate(shown, 1))
    table = TINY._replace(figures=tuple(figures))
    for _ in range(2):
        run_table(table, scale="cpu", workdir=tmp_path)
    assert calls == [["chess-cae-seed0"]]
    assert not_blank((tmp_path / "figures" / "figure1.png").read_bytes())
    text = (tmp_path / "tiny.md").read_text()
    assert "![figure1](figures/figure1.png)" in text
    assert "figure2: the runs of not-yet are not in this folder." in text
    later = (tmp_path / "figures/figure1.txt").stat().st_mtime + 1
    os.utime(tmp_path / "runs/chess-cae-seed0/metrics.json", (later, later))
    run_table(table, scale="cpu", workdir=tmp_path)
    assert len(calls) == 2


def test_a_stopped_table_has_the_pictures_of_its_finished_cells(finished, tmp_path, monkeypatch):
    chess, _ = json.loads((finished / "tiny.json").read_text())["cells"]

    def copied(cell, config, workdir, *, measure):
        if cell.name != chess["name"]:
            raise KeyboardInterrupt
        shutil.copytree(finished / "runs" / cell.name, workdir)
        return chess

    monkeypatch.setattr(run, "_run", copied)
    figure = Figure("figure1", (chess["name"],), schneider2022_figures.two_patches)
    with pytest.raises(KeyboardInterrupt):
        run_table(TINY._replace(figures=(figure,)), scale="cpu", workdir=tmp_path)
    assert not_blank((tmp_path / "figures" / "figure1.png").read_bytes())
    assert "![figure1](figures/figure1.png)" in (tmp_path / "tiny.md").read_text()


def test_who_watches_is_called_at_each_evaluation_and_costs_no_training_time(tmp_path):
    calls = []

    def watch(step, variables, train_seconds):
        begun = time.perf_counter()
        time.sleep(0.1)
        calls.append((step, variables["params"], train_seconds, begun, time.perf_counter()))

    trainer.train(small_config("configs/folder.py:smoke"), tmp_path, watch=watch)
    assert [call[0] for call in calls] == [2, 4, 6]
    for before, after in itertools.pairwise(calls):
        assert 0 < after[2] - before[2] < after[3] - before[4]
    record = json.loads((tmp_path / "detector/detector.json").read_text())["record"]
    assert record["training"]["train_seconds"] == calls[-1][2]


MISTAKES = {"resnet": "should be one of <schneider2022|", "mvtec_ad": "mvtec_ad needs --data"}


@pytest.mark.parametrize(("table", "says"), MISTAKES.items())
def test_mistakes_end_in_one_sentence(tmp_path, table, says):
    assert says in refusal("reproduce", "--table", table, "--workdir", tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="no category of MVTec AD"):
        TABLES["mvtec_ad"].cells("cpu", tmp_path)
