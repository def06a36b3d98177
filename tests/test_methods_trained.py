"""Every method through the same trainer: stopped and resumed, on one device and on eight."""

import jax
import numpy as np
import pytest
from small_runs import losses, only_devices, small_config

from recon_ad import train as trainer
from recon_ad.methods import METHODS, READ_BY, build_method

LOGGED = {"knn": "train_feature_norm"}  # of what has no loss


def config_of(method):
    return small_config(f"configs/folder.py:method={method},smoke")


@pytest.fixture(scope="module", params=METHODS)
def trained(request, tmp_path_factory):
    """A finished smoke run of each method."""
    workdir = tmp_path_factory.mktemp(request.param)
    trainer.train(config_of(request.param), workdir)
    return request.param, workdir


def tensors(workdir):
    return (workdir / "detector" / "variables.safetensors").read_bytes()


@pytest.mark.slow
def test_a_stopped_run_of_each_method_ends_as_the_uninterrupted_one(trained, tmp_path, monkeypatch):
    name, finished = trained

    class Stopped(Exception):
        pass

    def stop(done, variables, seconds):
        if done == 4:
            raise Stopped

    with pytest.raises(Stopped):
        trainer.train(config_of(name), tmp_path, watch=stop)
    trainer.train(config_of(name), tmp_path)
    assert tensors(tmp_path) == tensors(finished)
    before, after = (losses(w, LOGGED.get(name, "train_loss")) for w in (finished, tmp_path))
    assert len(before) == 6
    np.testing.assert_array_equal(after, before)


@pytest.mark.slow
def test_each_method_learns_on_one_device_as_on_eight(trained, tmp_path, monkeypatch):
    name, on_eight = trained
    only_devices(monkeypatch, 1)
    trainer.train(config_of(name), tmp_path)
    # Sums over the batch are taken in another order; see test_train for the fifty steps.
    on_one, on_all = (losses(w, LOGGED.get(name, "train_loss")) for w in (tmp_path, on_eight))
    assert len(on_one) == 6
    np.testing.assert_allclose(on_one, on_all, rtol=1e-4)


def traced(config):
    """Everything that reads the config: building, the first state, a step."""
    method = build_method(config, channels=1)
    size = config.data.patch_size
    images = jax.ShapeDtypeStruct((4, size, size, 1), np.float32)
    frozen = method.pretrained()[0]
    batch = jax.eval_shape(method.prepare, frozen, images)
    key = jax.random.key(0)
    state = jax.eval_shape(method.init, key, batch)
    jax.eval_shape(method.train_step, state, batch, key)


@pytest.mark.parametrize("name", METHODS)
def test_a_field_is_read_by_the_methods_that_are_said_to_and_no_other(name):
    others = [field for field, readers in READ_BY.items() if name not in readers]
    config = config_of(name)
    with config.unlocked():
        for field in others:
            del config.method[field]
    traced(config)
    for field in READ_BY.keys() - set(others):
        config = config_of(name)
        with config.unlocked():
            del config.method[field]
        with pytest.raises((AttributeError, KeyError), match=field):
            traced(config)
