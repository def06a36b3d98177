"""Sources built from the words of a config."""

import numpy as np
import pytest
from helpers import layouts
from helpers.small_runs import small_config
from helpers.sources import channels_of

from recon_ad.config import check_config, load_config
from recon_ad.data.build import GENERATED, build_source
from recon_ad.errors import UserError
from recon_ad.evaluation import run as evaluation
from recon_ad.training import run as trainer


@pytest.mark.parametrize("name", GENERATED)
def test_every_generated_set_has_its_config(name):
    source = build_source(load_config(f"configs/schneider2022.py:dataset={name},seed=3"))
    assert source.train and {r.anomalous for r in source.test} == {True, False}


@pytest.mark.parametrize("name", ["chess", "noise"])
def test_the_fields_side_and_truth_say_how_large_a_board_is_and_what_is_true(name):
    for truth, other in ("AB", "BA"):
        fields = {"data.name": name, "data.side": 100, "data.truth": truth}
        record = build_source(small_config(**fields)).test[0]
        assert record.load().shape == (100, 100, 1) and set(record.other_masks) == {other}
    plain = load_config(f"configs/schneider2022.py:dataset={name}")
    assert build_source(plain).train[0].load().shape == (512, 512, 1)


def test_a_path_that_nothing_is_read_from_is_told(tmp_path):
    with pytest.raises(UserError, match=r"config\.data\.path is .* generated images do not come"):
        build_source(small_config(**{"data.path": str(tmp_path)}))


def public(tmp_path, spec, **fields):
    """Return the config of a public set, reduced in size but with its own source."""
    named = load_config(f"configs/public.py:{spec}").data
    fields = {f"data.{key}": named[key] for key in ("source", "name", "category", "path")} | fields
    prepared = {"data.prepared": str(tmp_path / "prepared"), "data.channels": 0}
    return small_config("configs/public.py:smoke", **fields, **prepared, **{"holdout.few": 1})


@pytest.mark.slow  # trains in colour, on images of several sizes
@pytest.mark.parametrize(
    "name, defects", [("mvtec_ad", {"blob", "crack"}), ("sewer_ml", {"AF", "RB", "RO+OK"})]
)
def test_a_public_set_is_prepared_trained_on_and_evaluated(tmp_path, name, defects):
    root = getattr(layouts, name)(tmp_path / "download")
    category = ",category=bottle" * (name == "mvtec_ad")
    fields = {"data.images": str(root / "images")} if name == "sewer_ml" else {}
    config = public(tmp_path, f"dataset={name}{category},path={root}", **fields)
    detector = trainer.train(config, tmp_path / "run")
    assert detector.channels == 3 and np.isfinite(detector.thresholds.image)
    metrics = evaluation.evaluate_workdir(tmp_path / "run", export=False)
    assert metrics["protocol"]["evaluated_on"] == f"{name} {config.data.category}".strip()
    assert metrics["protocol"]["test_images"] == len(build_source(config).test) > 0
    assert metrics["image_auroc"] is not None and set(metrics["per_defect"]) == defects
    assert (metrics["pixel_auroc"] is None) == (name == "sewer_ml")  # which has no masks


def test_a_set_prepared_from_another_folder_is_not_taken_for_this_one(tmp_path):
    for name in ("a", "b"):
        layouts.mvtec_ad(tmp_path / name)
    spec = "dataset=mvtec_ad,category=bottle,path={}"
    for _ in range(2):
        source = build_source(public(tmp_path, spec.format(tmp_path / "a")))
        assert source.train and channels_of(source) == {3}
    with pytest.raises(UserError, match=r"was prepared from .*/a and not from .*/b: remove it"):
        build_source(public(tmp_path, spec.format(tmp_path / "b")))


def test_unusable_fields_are_told(tmp_path):
    check_config(small_config(**{"data.side": 96}))
    with pytest.raises(UserError, match=r"config\.data\.side is 95; it must be 96 px or more"):
        check_config(small_config(**{"data.side": 95}))
    with pytest.raises(UserError, match='unknown generated set "velvet"'):
        build_source(small_config(**{"data.name": "velvet"}))
    with pytest.raises(UserError, match=r"config\.data\.path is empty"):
        build_source(public(tmp_path, "dataset=visa,category=candle"))
    with pytest.raises(UserError, match="public sets have 8 bits"):
        fields = {"data.input_range": (0.0, 4095.0)}
        build_source(public(tmp_path, f"dataset=sewer_ml,path={tmp_path}", **fields))
