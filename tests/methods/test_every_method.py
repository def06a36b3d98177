"""Settings of a method are its own."""

import jax
import numpy as np
import pytest
from helpers.small_encoder import SIDE
from helpers.small_runs import small_config

from recon_ad.methods import METHODS, build_method


def traced(config):
    """Everything that reads the config: building, the first state, a step."""
    method = build_method(config, channels=1)
    images = jax.ShapeDtypeStruct((4, SIDE, SIDE, 1), np.float32)
    frozen = method.pretrained()[0]
    batch = jax.eval_shape(method.prepare, frozen, images)
    key = jax.random.key(0)
    state = jax.eval_shape(method.init, key, batch)
    jax.eval_shape(method.train_step, state, batch, key)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_reads_no_settings_of_another(name, small_encoder):
    config = small_config(f"configs/folder.py:method={name},smoke", **small_encoder)
    sections = METHODS.keys() & config.keys()
    assert len(sections) == 7
    with config.unlocked():
        for section in sections - {name}:
            del config[section]
    traced(config)
    if name in sections:
        with config.unlocked():
            del config[name]
        with pytest.raises((AttributeError, KeyError), match=name):
            traced(config)
