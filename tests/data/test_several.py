"""Several categories as one source, each held out and judged separately."""

import shutil

import numpy as np
import pytest
from helpers.detectors import make_detector
from helpers.layouts import saved
from helpers.small_runs import small_config
from helpers.sources import channels_of

from recon_ad.data.build import build_source
from recon_ad.data.holdout import split_holdout
from recon_ad.data.source import Record
from recon_ad.detector.inference import Thresholds
from recon_ad.errors import UserError
from recon_ad.evaluation import run as evaluation
from recon_ad.evaluation.images import open_images
from recon_ad.training import run as trainer

SIDE = 128  # px, as for `finished_run`, so that the programs are the same


def write(folder, *, channels=(), good=6, seed=0):
    """Write a category of noise with a bright square as its defect."""
    random = np.random.default_rng(seed)
    spot = np.s_[10:20, 12:22]

    def save(name, marked=False):
        image = random.integers(100, 130, (SIDE, SIDE, *channels), dtype=np.uint8)
        if marked:
            image[spot] = 255
        saved(folder / name, image)

    for i in range(good):
        save(f"train/good/{i}.png")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[spot] = 255
    for i in range(3):
        save(f"test/good/{i}.png")
        save(f"test/spot/{i}.png", marked=True)
        saved(folder / f"ground_truth/spot/{i}_mask.png", mask)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a read-only folder with two gray categories and one in colour."""
    root = tmp_path_factory.mktemp("several")
    write(root / "metal", good=12, seed=1)
    write(root / "group" / "stone", good=11, seed=2)
    write(root / "group" / "wood", channels=(3,), good=11, seed=3)
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """Return a function that evaluates a run trained on the gray categories."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    trainer.train(config_of(folder, "metal+group/stone"), workdir)
    return lambda data="": evaluation.evaluate_workdir(workdir, data=str(data), export=False)


def config_of(folder, category, **fields):
    data = {"source": "folder", "path": str(folder), "category": category, "channels": 0}
    fields = {f"data.{name}": value for name, value in data.items()} | fields
    return small_config("configs/folder.py:method=cae,smoke", **fields)


def test_records_are_named_by_their_category_and_read_as_rgb_where_one_is(folder):
    source = build_source(config_of(folder, "metal+group/wood"))
    assert len(source.train) == 23 and len(source.test) == 12
    assert [r.category for r in source.train] == ["metal"] * 12 + ["wood"] * 11
    assert source.train[0].name == "metal/train/good/0.png"
    assert {r.defect for r in source.test} == {"good", "metal/spot", "wood/spot"}
    assert channels_of(source) == {3}
    assert any("metal are gray" in note for note in source.notes)
    # Each category is held out separately.
    parted = split_holdout(source.train, fraction=0.2, few=0, gap=8, min_side=8)
    assert [r.category for r in parted.heldout] == ["metal"] * 2 + ["wood"] * 2
    assert len(parted.train) == 19
    assert parted.how.startswith("metal: 2 of 12") and "; wood: 2 of 11" in parted.how


@pytest.mark.parametrize(
    "below, category, expected",
    [
        ("group", "*", {"stone", "wood"}),
        ("one", "*", {""}),  # as if it had been named
        (".", "nuts+bolts", {""}),  # a plus in a folder's name does not make a list
    ],
)
def test_a_star_means_every_category_of_the_folder(folder, tmp_path, below, category, expected):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    write(tmp_path / "nuts+bolts")
    write(tmp_path / "one" / "alone")
    source = build_source(config_of(tmp_path / below, category))
    assert {r.category for r in source.train} == expected


@pytest.mark.parametrize(
    "below, category, expected",
    [
        (".", "metal+other/metal", "names metal twice"),
        (".", "metal+copper", 'no category "copper"'),
        ("metal/train", "*", "holds no category"),
        (".", "metal+", "a name on either side of each"),
        ("nowhere", "*", "folder not found"),
    ],
)
def test_categories_that_do_not_go_together_get_a_sentence(folder, below, category, expected):
    with pytest.raises(UserError, match=expected):
        build_source(config_of(folder / below, category))


def test_a_category_with_one_image_is_named_where_images_are_resized(tmp_path):
    write(tmp_path / "many", good=4)
    write(tmp_path / "single", good=1)
    config = config_of(tmp_path, "*", **{"data.resize": (64, 64)})
    with pytest.raises(UserError, match="1 good image of single"):
        trainer.train(config, tmp_path / "run")


def test_an_image_has_as_many_regions_as_in_the_category_that_has_most():
    def regions(**counts):
        image = np.zeros((64, 640, 1), np.uint8)
        records = [
            Record(f"{category}/{i}", lambda: image, category=category)
            for category, count in counts.items()
            for i in range(count)
        ]
        return split_holdout(records, fraction=0.2, few=5, gap=8, min_side=8).regions_per_image

    assert regions(few=3, many=20) == regions(few=3) > regions(many=20) == 1


def test_one_model_has_figures_for_each_category_and_their_mean(folder, run):
    metrics, alone = run(), run(folder / "metal")
    assert list(metrics["per_category"]) == ["metal", "stone"]
    assert set(metrics["per_defect"]) == {"metal/spot", "stone/spot"}
    for category, figures in metrics["per_category"].items():
        assert figures["n"] == 6
        # It is the only defect type there, so it is compared with the same good images.
        of_type = metrics["per_defect"][f"{category}/spot"]
        assert all(
            figures[key] == of_type[key] for key in ("image_auroc", "pixel_auroc", "aupro_30")
        )
    # The result is the same as for an evaluation on that category alone.
    assert "per_category" not in alone
    for key in ("image_auroc", "pixel_auroc", "aupro_30", "iou_calibrated", "image_tpr_calibrated"):
        assert metrics["per_category"]["metal"][key] == pytest.approx(alone[key], abs=1e-9), key
    for key, mean in metrics["category_mean"].items():
        each = [figures[key] for figures in metrics["per_category"].values()]
        if None in each:
            lacking = [name for name, f in metrics["per_category"].items() if f[key] is None]
            reasons = metrics["missing"][f"category_mean.{key}"].split("; ")
            assert mean is None and [r.partition(": ")[0] for r in reasons] == lacking
        else:
            assert mean == pytest.approx(np.mean(each))
    # The baseline without a model is also computed separately for each category.
    rows = [c["no_model"]["mean_brightness"] for c in metrics["per_category"].values()]
    assert rows[0] == alone["no_model"]["mean_brightness"]
    aurocs = [row["image_auroc"] for row in rows]
    assert metrics["no_model"]["mean_brightness"]["image_auroc"] == pytest.approx(np.mean(aurocs))
    assert metrics["category_mean"]["pixel_auroc"] != metrics["pixel_auroc"]


def test_a_category_without_test_images_has_no_figures_and_the_mean_says_so(folder, run, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    shutil.rmtree(other / "group" / "stone" / "test")
    metrics = run(other)
    assert list(metrics["per_category"]) == ["metal", "stone"]
    assert metrics["per_category"]["stone"] | {"no_model": {}} == {
        "n": 0, **dict.fromkeys(metrics["category_mean"]), "no_model": {}
    }  # fmt: skip
    assert metrics["per_category"]["metal"]["image_auroc"] is not None
    assert metrics["category_mean"]["image_auroc"] is None
    assert metrics["missing"]["category_mean.image_auroc"].startswith("stone: ")


def test_a_gray_folder_is_read_as_rgb_for_a_detector_of_rgb(folder, tmp_path):
    fields = {"data.channels": 0, "data.source": "folder"}
    detector = make_detector(channels=3, thresholds=Thresholds(1.0, 1.0), **fields)
    _, source = open_images(detector, str(folder / "metal"))
    assert channels_of(source) == {3}
