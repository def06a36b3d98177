"""Several categories as one source, held out and judged each by itself."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_runs import small_config

from recon_ad import evaluate
from recon_ad import train as trainer
from recon_ad.data.build import build_source
from recon_ad.data.holdout import split_holdout
from recon_ad.data.source import Record
from recon_ad.errors import UserError

SIDE = 40


def write(folder, *, shape=(SIDE, SIDE), good=6, seed=0, square=255):
    """A category of gray noise with a bright square as its defect."""
    random = np.random.default_rng(seed)
    mask = np.zeros(shape[:2], np.uint8)
    mask[10:20, 12:22] = 255

    def save(name, image):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)

    def noise():
        return random.integers(100, 130, shape, dtype=np.uint8)

    for i in range(good):
        save(f"train/good/{i}.png", noise())
    for i in range(3):
        save(f"test/good/{i}.png", noise())
        image = noise()
        image[mask > 0] = square
        save(f"test/spot/{i}.png", image)
        save(f"ground_truth/spot/{i}_mask.png", mask)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("several")
    write(root / "metal", good=12, seed=1)
    write(root / "group" / "wood", shape=(SIDE, SIDE, 3), good=11, seed=2)
    return root


def config_of(folder, category, **fields):
    fields = {
        "data.source": "folder",
        "data.path": str(folder),
        "data.category": category,
        "data.channels": 0,
    } | fields
    return small_config("configs/folder.py:method=cae,smoke", **fields)


BOTH = "metal+group/wood"


def test_records_are_named_by_their_category_and_read_as_rgb_where_one_is(folder):
    source = build_source(config_of(folder, BOTH))
    assert len(source.train) == 23 and len(source.test) == 12
    assert [r.category for r in source.train] == ["metal"] * 12 + ["wood"] * 11
    assert source.train[0].name == "metal/train/good/0.png"
    assert {r.defect for r in source.test} == {"good", "metal/spot", "wood/spot"}
    assert {r.load().shape[2] for r in (*source.train, *source.test)} == {3}
    assert any("metal are gray" in note for note in source.notes)
    assert all((r.load_mask is not None) == r.anomalous for r in source.test)


def test_a_star_means_every_category_of_the_folder(folder):
    write(folder / "group" / "stone", seed=3)
    source = build_source(config_of(folder / "group", "*"))
    assert {r.category for r in source.train} == {"stone", "wood"}
    one = build_source(config_of(folder, "*"))  # metal alone, as if it had been named
    assert {r.category for r in one.train} == {""}


def test_each_category_is_held_out_by_itself(folder):
    source = build_source(config_of(folder, BOTH))
    parted = split_holdout(source.train, fraction=0.2, few=0, gap=8, min_side=8)
    counts = {c: sum(r.category == c for r in parted.heldout) for c in ("metal", "wood")}
    assert counts == {"metal": 2, "wood": 2}
    assert len(parted.train) == 19
    assert parted.how.startswith("metal: 2 of 12") and "; wood: 2 of 11" in parted.how


def test_categories_that_do_not_go_together_get_a_sentence(folder, tmp_path):
    with pytest.raises(UserError, match="names metal twice"):
        build_source(config_of(folder, "metal+other/metal"))
    with pytest.raises(UserError, match='no category "copper"'):
        build_source(config_of(folder, "metal+copper"))
    with pytest.raises(UserError, match="holds no category"):
        build_source(config_of(tmp_path, "*"))
    with pytest.raises(UserError, match="a name on either side of each"):
        build_source(config_of(folder, "metal+"))
    with pytest.raises(UserError, match="there is no such folder"):
        build_source(config_of(tmp_path / "nowhere", "*"))


def test_a_plus_in_a_folders_name_is_no_list(tmp_path):
    write(tmp_path / "nuts+bolts")
    source = build_source(config_of(tmp_path, "nuts+bolts"))
    assert {r.category for r in source.train} == {""} and len(source.train) == 6


def test_a_category_without_test_images_has_no_figures_and_the_mean_says_so(folder, tmp_path):
    write(tmp_path / "data" / "metal", good=12)
    write(tmp_path / "data" / "wood", good=12, seed=5)
    config = config_of(tmp_path / "data", "*")
    trainer.train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "data" / "wood" / "test")
    metrics = evaluate.evaluate_workdir(tmp_path / "run", export=False)
    assert metrics["per_category"]["wood"] | {"no_model": {}} == {
        "n": 0, **dict.fromkeys(metrics["category_mean"]), "no_model": {}
    }  # fmt: skip
    assert metrics["per_category"]["metal"]["image_auroc"] is not None
    assert metrics["category_mean"]["image_auroc"] is None
    assert metrics["missing"]["category_mean.image_auroc"].startswith("wood: ")
    # Others' images of the same categories, and of one alone.
    shutil.move(tmp_path / "data", tmp_path / "other")
    both = evaluate.evaluate_workdir(tmp_path / "run", data=str(tmp_path / "other"), export=False)
    assert list(both["per_category"]) == ["metal", "wood"]
    alone = str(tmp_path / "other" / "metal")
    assert "per_category" not in evaluate.evaluate_workdir(
        tmp_path / "run", data=alone, export=False
    )


def test_a_category_with_one_image_is_named_where_images_are_resized(tmp_path):
    write(tmp_path / "many", good=4)
    write(tmp_path / "single", good=1)
    config = config_of(tmp_path, "*", **{"data.resize": (64, 64)})
    with pytest.raises(UserError, match="1 good image of single"):
        trainer.train(config, tmp_path / "run")


def test_an_image_has_as_many_regions_as_in_the_category_that_has_most():
    def records(category, count):
        image = np.zeros((64, 640, 1), np.uint8)
        return [Record(f"{category}/{i}", lambda: image, category=category) for i in range(count)]

    each = [
        split_holdout(records(c, n), fraction=0.2, few=5, gap=8, min_side=8)
        for c, n in (("few", 3), ("many", 20))
    ]
    assert each[0].regions_per_image > each[1].regions_per_image == 1
    both = split_holdout(
        [*records("few", 3), *records("many", 20)], fraction=0.2, few=5, gap=8, min_side=8
    )
    assert both.regions_per_image == each[0].regions_per_image


def test_one_model_has_figures_for_each_category_and_their_mean(folder, tmp_path):
    trainer.train(config_of(folder, BOTH), tmp_path)
    evaluate.evaluate_workdir(tmp_path, export=False)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics["per_category"]) == ["metal", "wood"]
    assert set(metrics["per_defect"]) == {"metal/spot", "wood/spot"}
    for category in ("metal", "wood"):
        of_category = metrics["per_category"][category]
        assert of_category["n"] == 6
        # The only defect type there, so against the same good images.
        of_type = metrics["per_defect"][f"{category}/spot"]
        for key in ("image_auroc", "pixel_auroc", "aupro_30"):
            assert of_category[key] == of_type[key]
    # As if it had been evaluated on that category alone.
    evaluate.evaluate_workdir(tmp_path, data=str(folder / "metal"), export=False)
    alone = json.loads((tmp_path / "metrics.json").read_text())
    assert "per_category" not in alone
    for key in ("image_auroc", "pixel_auroc", "aupro_30", "iou_calibrated", "image_tpr_calibrated"):
        assert metrics["per_category"]["metal"][key] == pytest.approx(alone[key], abs=1e-9), key
    for key, mean in metrics["category_mean"].items():
        each = [figures[key] for figures in metrics["per_category"].values()]
        if None in each:
            assert mean is None and "has none" in metrics["missing"][f"category_mean.{key}"]
        else:
            assert mean == pytest.approx(np.mean(each))
    # What can be told without a model is told of each category by itself, too.
    of_metal = metrics["per_category"]["metal"]["no_model"]
    assert of_metal["mean_brightness"] == alone["no_model"]["mean_brightness"]
    rows = [c["no_model"] for c in metrics["per_category"].values()]
    aurocs = [row["mean_brightness"]["image_auroc"] for row in rows]
    assert metrics["no_model"]["mean_brightness"]["image_auroc"] == pytest.approx(np.mean(aurocs))
    assert metrics["category_mean"]["pixel_auroc"] != metrics["pixel_auroc"]
