"""Cached features give the same training as features computed at each step."""

import jax
import numpy as np
import pytest
from helpers.small_encoder import SIDE, config_for
from helpers.small_runs import losses, small_config

from recon_ad.data import memory_source
from recon_ad.data.pipeline import Images
from recon_ad.methods import build_method
from recon_ad.runtime import mesh as meshes
from recon_ad.training import feature_cache as prepared
from recon_ad.training import loop
from recon_ad.training import run as trainer

SOURCE = memory_source(np.random.default_rng(0).random((21, 24, 20), np.float32))
RESIZED = {"data.resize": (SIDE, SIDE)}


def keep(config):
    images = Images(
        SOURCE.train, size=(SIDE, SIDE), patch_size=SIDE, memory_mib=9, disk_mib=9,
        tiled=config.data.patches == "tiles",
    )  # fmt: skip
    method, mesh = build_method(config, channels=1), meshes.data_mesh()
    frozen = jax.device_put(method.pretrained()[0], meshes.replicated(mesh))
    return images, method, frozen, prepared.prepare_all(images, method, frozen, config, mesh)


def test_each_image_has_what_the_method_makes_of_it_in_memory_or_in_a_file(small_encoder):
    for memory in (1024, 0):
        fields = RESIZED | {"data.cache_mib": memory}
        images, method, frozen, rows = keep(config_for(small_encoder, "vit_recon", **fields))
        assert len(rows) == 21  # not divisible into batches of eight
        assert isinstance(rows[0], np.memmap) == (memory == 0)
        for i in (0, 7, 20):
            image = np.repeat(images[i].image[None], 8, axis=0)  # a batch, as they were computed
            expected = jax.jit(method.prepare)(frozen, image)[0]
            np.testing.assert_allclose(rows[i], expected, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {"data.augment": ("flip_left_right",)},
        {"data.patches": "random"},
        {"data.disk_cache_mib": -1},
        {"method.name": "fm_ae", "train.batch_size": 8},  # its training needs the encoder
    ],
)
def test_nothing_is_kept_that_changes_or_is_too_large_or_is_trained_through(small_encoder, fields):
    assert keep(config_for(small_encoder, "vit_recon", **RESIZED | fields))[3] is None
    # A method on pixels does not cache either.
    fields = RESIZED | {"data.patch_size": SIDE, "inference.stride": SIDE}
    assert keep(small_config("configs/folder.py:smoke", **fields))[3] is None


def test_training_is_the_same(small_encoder, tmp_path, monkeypatch):
    fields = RESIZED | {"holdout.few": 0, "encoder.blocks": (0, 1)}
    config = config_for(small_encoder, "vit_recon", **fields)

    def stop(step, *_):
        if step == 6:  # the last step
            raise InterruptedError

    for name in ("once", "each"):
        with pytest.raises(InterruptedError):
            trainer.train(config, tmp_path / name, source=SOURCE, watch=stop)
        monkeypatch.setattr(loop, "prepare_all", lambda *_: None)
    once, each = (losses(tmp_path / name) for name in ("once", "each"))
    assert len(once) == 6
    # The encoder rounds differently in another program.
    np.testing.assert_allclose(once, each, rtol=1e-4)
