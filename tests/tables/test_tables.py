"""The parts of tables: cells, search for data sets, averages, orders, chosen patches."""

import numpy as np
import pytest

from recon_ad.config import load_config
from recon_ad.data import synthetic_source
from recon_ad.data.locate import categories, find_category
from recon_ad.methods import build_method
from recon_ad.report.wording import value_of
from recon_ad.tables import TABLES, page, schneider2022_figures, stretches
from recon_ad.tables.base import Column, Table
from recon_ad.tables.schneider2022 import ranking


def test_categories_are_found_in_the_folder_or_one_below(tmp_path):
    for folder in ("grid", "mvtec_ad/grid", "mvtec_ad/screw", "other/tile"):
        (tmp_path / folder / "train" / "good").mkdir(parents=True)
    (tmp_path / "mvtec_ad" / "licence").mkdir()
    assert find_category(tmp_path, ("grid",)) == tmp_path / "grid"
    assert find_category(tmp_path, ("mvtec_ad/grid",)) == tmp_path / "mvtec_ad/grid"
    assert find_category(tmp_path / "other" / "tile", ("Tile",)) == tmp_path / "other/tile"
    assert find_category(tmp_path, ("licence", "bottle")) is None
    for folder, names in ((tmp_path, ["grid", "screw"]), (tmp_path / "other", ["tile"])):
        assert [f.name for f in categories(folder, ("mvtec_ad",))] == names
    mvtec = TABLES["mvtec_ad"].cells("paper", tmp_path)
    assert {cell.dataset for cell in mvtec} == {"grid", "screw"}
    assert [cell.seed for cell in mvtec] == sorted(cell.seed for cell in mvtec)


def a_run(dataset, method, seed=0, **figures):
    return {
        "name": f"{dataset}-{method}-seed{seed}", "part": "Table 1", "dataset": dataset,
        "variant": "", "method": method, "seed": seed, "paper": {}, "protocol": [],
        "missing": {}, "steps": 1, "config": {"train": {"batch_size": 1}}, "train_seconds": 1.0,
        "wall_seconds": 2.0, "hardware": "a machine", "versions": {"jax": "1"}, **figures,
    }  # fmt: skip


def test_seeds_are_averaged_and_data_sets_weigh_the_same_in_the_mean_row():
    columns = (Column("image_auroc", "AUROC", 2),)
    table = Table("tiny", "A tiny table", columns, lambda *_: (), mean_row=True)
    runs = [
        a_run("a", "cae", 0, image_auroc=0.6),
        a_run("a", "cae", 1, image_auroc=0.8),
        a_run("b", "cae", 0, image_auroc=0.9),
        a_run("c", "cae", 0, image_auroc=None),
        a_run("d", "cae", 0, image_auroc=None, reason="left out"),
    ]
    text = page.page(table, runs, scale="cpu")
    assert "| a | cae | 2 | 0.70 (0.60 to 0.80) |" in text
    assert "| **mean of 3** | cae | 1 to 2 | 0.80 (of 2) |" in text
    assert "d-cae-seed0: left out" in text
    assert value_of(runs[0], "truths.A.image_auroc") is None


def test_the_order_of_the_models_is_stated_as_found():
    runs = [
        a_run("chess", m, s, iou_max_oracle=iou + s / 100)
        for m, iou in (("cae", 0.5), ("vae", 0.7), ("aae", 0.6))
        for s in (0, 1)
    ]
    assert ranking(runs, "chess", "iou_max_oracle") == (
        "On chess the order by IoU (2 seeds) is VAE 0.7050, AAE 0.6050, CAE 0.5050: "
        "a different order from the paper's (AAE, VAE, CAE)."
    )
    alike = [a_run("noise", m, iou_max_oracle=iou) for m, iou in (("vae", 0.1), ("aae", 0.2))]
    told = ranking(alike, "noise", "iou_max_oracle")
    assert "the same order as the paper's (AAE, VAE)" in told
    assert ranking(runs[:2], "chess", "iou_max_oracle") == ""


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("scale", ["cpu", "long", "paper"])
def test_every_cell_has_a_name_of_its_own_and_a_config(name, scale, tmp_path):
    (tmp_path / "grid" / "train" / "good").mkdir(parents=True)
    table = TABLES[name]
    cells = table.cells(scale, tmp_path)
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        config = load_config(cell.spec)
        config.update_from_flattened_dict(dict(cell.fields))
        if cell.seed == 0:  # other seeds build the same networks
            build_method(config, channels=1)
        assert (config.method.name, config.seed) == (cell.method, cell.seed)
        assert bool(cell.paper) == bool(cell.source)
        assert set(cell.paper) <= {c.key for c in table.columns}
    names = {cell.name for cell in cells}
    assert all(set(figure.cells) <= names for figure in table.figures)


def test_main_cells_come_first_then_seeds_then_ablations():
    for name in ("bergmann2019", "preste"):
        cells = TABLES[name].cells("paper", None)
        plain = [cell.seed for cell in cells if not cell.variant]
        assert plain == sorted(plain)
        first = next((i for i, cell in enumerate(cells) if cell.variant), len(cells))
        assert all(cell.variant for cell in cells[first:])
    assert not any(cell.variant for cell in TABLES["bergmann2019"].cells("cpu", None))


def test_the_patches_shown_are_the_most_damaged_and_a_clean_one():
    record = stretches.first_defective(synthetic_source("chess", side=128))
    clean, damaged = schneider2022_figures.chosen_patches(record, side=16)
    truth, corners = record.load_mask(), range(0, 128, 16)
    most = max(truth[i : i + 16, j : j + 16].sum() for i in corners for j in corners)
    assert damaged.truth.sum() == most > 0
    assert clean.truth.sum() == 0


def test_the_darkest_window_is_found_and_keeps_off_the_excluded():
    image = np.full((40, 60), 0.5)
    image[5:15, 5:15] = 0.1  # the darkest, but excluded
    image[20:30, 31:41] = 0.2
    excluded = np.zeros(image.shape, bool)
    excluded[10, 10] = True
    assert stretches.darkest_window(image, excluded, side=10) == (20, 31)


def test_defects_are_held_against_the_darkest_stretch():
    image = np.full((60, 80, 1), 200, np.uint8)
    image[10:20, 50:60] = 20  # dark, but not a defect
    truth = np.zeros((60, 80), bool)
    truth[40:44, 10:14] = truth[40:44, 50:54] = True
    residual = np.full((60, 80), 0.01, np.float32)
    residual[10:20, 50:60] = 0.3
    residual[40:44, 10:14], residual[40:44, 50:54] = 0.5, 0.2
    seen = stretches.compared(image, truth, residual, side=10)
    assert seen.dark[10:20, 50:60].all() and seen.dark.sum() == 100
    assert sorted(seen.means) == pytest.approx([0.2, 0.5])
    expected = {"defects": 2, "above": 1, "on_defects": 0.35, "on_dark": 0.3, "elsewhere": 0.01}
    told = stretches.summary(seen)
    assert {key: told[key] for key in expected} == pytest.approx(expected, rel=1e-5)
