"""Features that are computed once: the same training as when they are computed at each step."""

import jax
import numpy as np
import pytest
from small_runs import losses, small_config

from recon_ad import prepared
from recon_ad import train as trainer
from recon_ad.data import memory_source
from recon_ad.data.pipeline import Images
from recon_ad.methods import build_method
from recon_ad.runtime import mesh as meshes

SIDE = 32


def config_of(**fields):
    return small_config(
        "configs/vit.py:method=vit_recon,smoke", **{"data.resize": (SIDE, SIDE)} | fields
    )


@pytest.fixture(scope="module")
def source():
    return memory_source(np.random.default_rng(0).random((21, 40, 50), np.float32))


def kept(source, **fields):
    config = config_of(**fields)
    method = build_method(config, channels=1)
    images = Images(source.train, size=(SIDE, SIDE), patch_size=SIDE, memory_mib=100, disk_mib=100)
    frozen, _ = method.pretrained()
    frozen = jax.device_put(frozen, meshes.replicated(meshes.data_mesh()))
    return (
        images,
        method,
        frozen,
        prepared.prepare_all(images, method, frozen, config, meshes.data_mesh()),
    )


@pytest.mark.parametrize("memory", [1024, 0])
def test_each_image_has_what_the_method_makes_of_it(source, memory):
    images, method, frozen, rows = kept(source, **{"data.cache_mib": memory})
    assert len(rows) == 21  # which batches of eight do not divide
    assert isinstance(rows[0], np.memmap) == (memory == 0)
    prepare = jax.jit(method.prepare)
    for i in (0, 7, 20):
        np.testing.assert_allclose(rows[i], prepare(frozen, images[i].image[None])[0], atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{"data.augment": ("flip_left_right",)}, {"data.resize": (0, 0)}, {"data.disk_cache_mib": -1}],
)
def test_nothing_is_kept_that_changes_or_is_too_large(source, fields):
    assert kept(source, **fields)[3] is None


def test_nothing_is_kept_where_training_needs_the_encoder(source):
    fields = {"method.name": "fm_ae", "train.batch_size": 8}
    assert kept(source, **fields)[3] is None


def test_methods_on_pixels_keep_nothing(source):
    images, *_ = kept(source)
    config = small_config("configs/folder.py:smoke", **{"data.resize": (SIDE, SIDE)})
    method = build_method(config, channels=1)
    assert prepared.prepare_all(images, method, {}, config, meshes.data_mesh()) is None


def test_training_is_the_same(source, tmp_path, monkeypatch):
    config = config_of(**{"holdout.few": 0})
    trainer.train(config, tmp_path / "once", source=source)
    monkeypatch.setattr(trainer, "prepare_all", lambda *_: None)
    trainer.train(config, tmp_path / "each", source=source)
    once, each = (losses(tmp_path / name) for name in ("once", "each"))
    assert len(once) == 6
    # The encoder rounds otherwise in another program.
    np.testing.assert_allclose(once, each, rtol=1e-4)
