"""Training on eight devices compared with one, and the work that they share."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.detectors import pictures, plain_detector, random_state
from helpers.small_encoder import SIDE, config_for
from helpers.small_runs import losses, small_config
from helpers.ssim_reference import pairs
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from recon_ad.data import memory_source
from recon_ad.data.pipeline import Images
from recon_ad.detector.jax_detector import core
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, build_method
from recon_ad.ops.ssim import ssim_map
from recon_ad.runtime import mesh as meshes
from recon_ad.training import run as trainer
from recon_ad.training import steps
from recon_ad.training.feature_cache import prepare_all


class Stopped(Exception):
    """Ends a run after its last step."""


def only_one_device(monkeypatch):
    one, make_mesh = jax.devices()[:1], jax.make_mesh
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax, "make_mesh", lambda *a, **k: make_mesh(*a, devices=one, **k))


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
    only_one_device(monkeypatch)
    one = learnt(tmp_path / "one")
    assert len(one[0]) == 30 and len(one[1]) == 1
    assert one[0][-1] < one[0][0]
    for a, b in zip(eight, one, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.slow
def test_a_run_on_eight_devices_goes_on_from_a_checkpoint_and_ends_in_a_detector(tmp_path):
    config = small_config("configs/folder.py:method=cae,smoke", **{"train.select": "best"})

    def stop(step, *_):
        if step == 4:  # the checkpoint of step 2 exists
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
        size=(SIDE, SIDE), patch_size=SIDE, memory_mib=9, disk_mib=9, tiled=True,
    )  # fmt: skip
    config = config_for(small_encoder, "vit_recon", **{"data.resize": (SIDE, SIDE)})
    method, mesh = build_method(config, channels=1), meshes.data_mesh()
    frozen, _ = method.pretrained()
    rows = prepare_all(images, method, meshes.put_replicated(mesh, frozen), config, mesh)
    assert len(rows) == 21  # not divisible among eight devices
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


def test_batches_are_cut_along_their_first_axis_evenly():
    mesh, values = meshes.data_mesh(), np.arange(16.0)
    batch = meshes.put_batch(mesh, {"x": values})["x"]
    assert [s.data.shape for s in batch.addressable_shards] == [(2,)] * 8
    np.testing.assert_array_equal(jax.device_get(batch), values)
    with pytest.raises(UserError, match="multiple of 8"):
        meshes.check_batch_size(0, mesh)


@pytest.mark.parametrize("border", ["reflect", "valid"])
def test_ssim_maps_of_a_batch_stay_on_their_devices(border):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    images = pairs((80, 30, 3), images=16)

    def loss(x, y):
        maps = ssim_map(x, y, data_range=1.0, window=11, kind="gaussian", border=border)
        return maps.mean(), maps

    step = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    split = jax.device_put(images, sharding)
    program = step.lower(*split).compile()
    assert not re.findall(r"all-gather|all-to-all|collective-permute", program.as_text())
    found = program(*split)
    assert found[0][1].sharding.is_equivalent_to(sharding, 4)
    for a, b in zip(jax.tree.leaves(step(*images)), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6 * np.abs(a).max())


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
        batch = meshes.put_batch(
            mesh, {"image": images, "index": np.arange(8), "number": np.arange(8)}
        )
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
