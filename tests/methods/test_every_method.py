"""Which fields of the config each method reads."""

import jax
import numpy as np
import pytest
from helpers.small_encoder import SIDE
from helpers.small_runs import small_config

from recon_ad.methods import METHODS, READ_BY, build_method


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
def test_a_field_is_read_by_the_methods_that_are_said_to_and_no_other(name, small_encoder):
    def without(*fields):
        config = small_config(f"configs/folder.py:method={name},smoke", **small_encoder)
        with config.unlocked():
            for field in fields:
                del config.method[field]
        return config

    others = [field for field, readers in READ_BY.items() if name not in readers]
    traced(without(*others))
    for field in READ_BY.keys() - set(others):
        with pytest.raises((AttributeError, KeyError), match=field):
            traced(without(field))
