"""A config's words lead to the source that they name."""

import json

import layouts
import numpy as np
import pytest
from small_runs import small_config

from recon_ad import evaluate
from recon_ad import train as trainer
from recon_ad.config import load_config
from recon_ad.data.build import GENERATED, build_source
from recon_ad.errors import UserError


@pytest.mark.parametrize("name", GENERATED)
def test_every_generated_set_has_its_config(name):
    config = load_config(f"configs/schneider2022.py:dataset={name},seed=3")
    source = build_source(config)
    assert source.train and any(r.anomalous for r in source.test)
    assert any(not r.anomalous for r in source.test)


def test_a_generated_set_that_is_not_there_is_named():
    config = load_config("configs/schneider2022.py:dataset=velvet")
    with pytest.raises(UserError, match='no generated set "velvet": there are chess, noise'):
        build_source(config)


def public(tmp_path, spec, **fields):
    """The config of a public set, shrunk but with its own source."""
    named = load_config(f"configs/public.py:{spec}").data
    fields = {f"data.{key}": named[key] for key in ("source", "name", "category", "path")} | fields
    prepared = {"data.prepared": str(tmp_path / "prepared"), "data.channels": 0}
    return small_config("configs/public.py:smoke", **fields, **prepared)


def test_a_public_set_is_prepared_trained_on_and_evaluated(tmp_path):
    layouts.mvtec_ad(tmp_path / "download")
    spec = f"dataset=mvtec_ad,category=bottle,path={tmp_path / 'download'}"
    config = public(tmp_path, spec, **{"holdout.few": 1})
    detector = trainer.train(config, tmp_path / "run")
    assert detector.channels == 3
    evaluate.evaluate_workdir(tmp_path / "run", export=False)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["protocol"]["evaluated_on"] == "mvtec_ad bottle"
    assert metrics["protocol"]["test_images"] == len(build_source(config).test) > 0


def test_sewer_ml_is_trained_on_and_evaluated_by_image(tmp_path):
    root = layouts.sewer_ml(tmp_path / "sewer")
    spec = f"dataset=sewer_ml,path={root}"
    config = public(tmp_path, spec, **{"data.images": str(root / "images"), "holdout.few": 1})
    detector = trainer.train(config, tmp_path / "run")
    assert np.isfinite(detector.thresholds.image)
    evaluate.evaluate_workdir(tmp_path / "run", export=False)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["protocol"]["evaluated_on"] == "sewer_ml"
    assert metrics["image_auroc"] is not None and metrics["pixel_auroc"] is None
    assert set(metrics["per_defect"]) == {"AF", "RB", "RO+OK"}


def test_a_missing_path_is_told(tmp_path):
    with pytest.raises(UserError, match=r"config\.data\.path is empty"):
        build_source(public(tmp_path, "dataset=visa,category=candle"))


def test_a_set_prepared_from_another_folder_is_not_taken_for_this_one(tmp_path):
    for name in ("a", "b"):
        layouts.mvtec_ad(tmp_path / name)
    spec = "dataset=mvtec_ad,category=bottle,path={}"
    assert build_source(public(tmp_path, spec.format(tmp_path / "a"))).train
    assert build_source(public(tmp_path, spec.format(tmp_path / "a"))).train
    with pytest.raises(UserError, match=r"was prepared from .*/a and not from .*/b: remove it"):
        build_source(public(tmp_path, spec.format(tmp_path / "b")))


def test_an_input_range_of_a_public_set_is_refused(tmp_path):
    fields = {"data.input_range": (0.0, 4095.0)}
    with pytest.raises(UserError, match="public sets have 8 bits"):
        build_source(public(tmp_path, f"dataset=sewer_ml,path={tmp_path}", **fields))
