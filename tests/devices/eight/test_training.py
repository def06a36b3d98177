"""Learning on eight devices as on one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.detectors import pictures, plain_detector, random_state
from helpers.small_encoder import SIDE, config_for
from helpers.small_runs import losses, only_devices, small_config
from jax.sharding import Mesh

from recon_ad.data import memory_source
from recon_ad.data.pipeline import Images
from recon_ad.detector.jax_detector import core
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, build_method
from recon_ad.runtime import mesh as meshes
from recon_ad.training import run as trainer
from recon_ad.training import steps
from recon_ad.training.feature_cache import prepare_all


class Stopped(Exception):
    """Stops a run behind its last step."""


def test_eight_devices_learn_as_one_does(tmp_path, monkeypatch):
    fields = {"train.steps": 30, "train.eval_every": 30, "data.augment": ("rot90",)}
    config = small_config("configs/folder.py:method=cae,smoke", **fields)

    def stop(*_):
        raise Stopped

    def learnt(workdir):
        with pytest.raises(Stopped):
            trainer.train(config, workdir, watch=stop)
        return losses(workdir), losses(workdir, "heldout_loss")

    eight = learnt(tmp_path / "eight")
    only_devices(monkeypatch, 1)
    one = learnt(tmp_path / "one")
    assert len(one[0]) == 30 and len(one[1]) == 1
    assert one[0][-1] < one[0][0]
    for a, b in zip(eight, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.slow
def test_a_run_on_eight_devices_goes_on_from_a_checkpoint_and_ends_in_a_detector(tmp_path):
    config = small_config("configs/folder.py:method=cae,smoke", **{"train.select": "best"})

    def stop(step, *_):
        if step == 4:  # the checkpoint of step 2 is there
            raise Stopped

    whole = trainer.train(config, tmp_path / "whole")
    with pytest.raises(Stopped):
        trainer.train(config, tmp_path / "again", watch=stop)
    trainer.train(config, tmp_path / "again")
    ours, theirs = (tmp_path / n / "detector/variables.safetensors" for n in ("again", "whole"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert np.isfinite(whole(pictures()[0]).score)


@pytest.mark.slow
def test_features_are_computed_once_by_eight_devices_too(small_encoder):
    images = Images(
        memory_source(np.random.default_rng(0).random((21, 24, 20), np.float32)).train,
        size=(SIDE, SIDE), patch_size=SIDE, memory_mib=9, disk_mib=9,
    )  # fmt: skip
    config = config_for(small_encoder, "vit_recon", **{"data.resize": (SIDE, SIDE)})
    method, mesh = build_method(config, channels=1), meshes.data_mesh()
    frozen, _ = method.pretrained()
    rows = prepare_all(images, method, meshes.put_replicated(mesh, frozen), config, mesh)
    assert len(rows) == 21  # which eight devices cannot share
    for i in (0, 20):
        batch = np.repeat(images[i].image[None], 8, axis=0)
        np.testing.assert_allclose(rows[i], jax.jit(method.prepare)(frozen, batch)[0], atol=1e-5)


def test_pmap_of_the_core_agrees_with_jit():
    detector = plain_detector()
    method = build_method(detector.config, channels=1)
    tiles = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 1), np.uint8)
    residual, reconstruction = detector.core(detector.variables, tiles)
    mapped = jax.pmap(lambda images: core(detector.variables, images, method=method))
    by_device = mapped(jnp.asarray(tiles.reshape(8, 2, 32, 32, 1)))
    # Convolutions over batches of 2 and 16 may add in another order.
    np.testing.assert_allclose(by_device[0].reshape(16, 32, 32), residual, atol=1e-6)
    np.testing.assert_allclose(by_device[1].reshape(16, 32, 32, 1), reconstruction, atol=1e-6)


def test_a_batch_that_eight_devices_cannot_share_is_refused_before_the_run_begins(tmp_path):
    config = small_config(**{"train.batch_size": 12})
    source = memory_source([np.zeros((256, 256), np.uint8)])
    with pytest.raises(UserError, match="choose a multiple of 8"):
        trainer.train(config, tmp_path / "w", source=source)
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_each_method_learns_on_one_device_as_on_eight(name, small_encoder):
    config = small_config(f"configs/folder.py:method={name},smoke", **small_encoder)
    method, side = build_method(config, channels=1), config.data.patch_size
    frozen, _ = method.pretrained()
    images, others = np.random.default_rng(0).random((2, 8, side, side, 1), np.float32)
    prepared = jax.eval_shape(method.prepare, frozen, jax.ShapeDtypeStruct(images.shape, "float32"))
    first = random_state(method, prepared)
    mask = np.arange(8) < 5

    def measured(devices):
        mesh = Mesh(devices, ("data",))
        everywhere = meshes.replicated(mesh)
        on_mesh = meshes.put_replicated(mesh, frozen)
        step, look = (
            jax.jit(functools.partial(f, method=method, **more), out_shardings=everywhere)
            for f, more in ((steps.train_step, {"augmentations": ()}), (steps.eval_step, {}))
        )
        key = jax.jit(lambda: jax.random.key(0), out_shardings=everywhere)()
        state, found = meshes.put_replicated(mesh, first), []
        batch = meshes.put_batch(mesh, {"image": images, "index": np.arange(8)})
        for _ in range(3):
            state, metrics = step(state, on_mesh, batch, key)
            found.append(jax.device_get(metrics))
        held = meshes.put_batch(mesh, {"image": others, "mask": mask})
        variables = jax.device_get(method.finish(on_mesh, state, [others]))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(variables))
        return [*found, jax.device_get(look(state, on_mesh, held))]

    one, eight = (measured(np.array(jax.devices()[:count])) for count in (1, 8))
    assert "loss" in one[-1]
    # Sums over the batch are taken in another order.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), one, eight)
