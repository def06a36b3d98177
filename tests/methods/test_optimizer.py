"""The learning rate over a run. With a constant gradient of 1, each update of Adam is −rate."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_runs import small_config
from jax import lax

from recon_ad.methods.base import build_optimizer, learning_rate

RATE, STEPS, WARMUP = 0.01, 20, 4
HALF_DOWN = 0.5 * (1 + np.cos(np.pi / 4))  # of a cosine, after a quarter of its length

# Fraction of the rate by training step.
SCHEDULES = {
    ("constant", 0): {0: 1, 1: 1, 10: 1, 20: 1, 25: 1},
    ("cosine", 0): {0: 1, 5: HALF_DOWN, 10: 0.5, 20: 0, 25: 0},
    ("constant", WARMUP): {0: 0, 1: 0.25, 2: 0.5, 4: 1, 5: 1, 12: 1, 20: 1, 25: 1},
    ("cosine", WARMUP): {0: 0, 1: 0.25, 2: 0.5, 4: 1, 8: HALF_DOWN, 12: 0.5, 20: 0, 25: 0},
}


@pytest.mark.parametrize("updates", [1, 5])
@pytest.mark.parametrize(("schedule", "warmup"), SCHEDULES)
def test_the_rate_over_steps_of_training(schedule, warmup, updates):
    fields = {"learning_rate": RATE, "schedule": schedule, "warmup": warmup}
    config = small_config(**{f"optim.{k}": v for k, v in fields.items()}, **{"train.steps": STEPS})
    tx = build_optimizer(config, updates=updates)
    one = jnp.ones(())

    def step(state, _):
        update, state = tx.update(one, state, one)
        return state, -update

    _, rates = lax.scan(step, tx.init(one), length=25 * updates + 1)
    shares = np.asarray(rates)[::updates] / RATE
    expected = SCHEDULES[schedule, warmup]
    # Adam's corrected moments are 1, but float32 represents 1 − 0.999 only to 3e-5.
    np.testing.assert_allclose(shares[list(expected)], list(expected.values()), atol=3e-5)


def test_a_cosine_ends_at_the_share_asked_for_and_stays_there():
    fields = {"learning_rate": RATE, "schedule": "cosine", "warmup": WARMUP}
    config = small_config(**{f"optim.{k}": v for k, v in fields.items()}, **{"train.steps": STEPS})
    rate = learning_rate(config, end=0.1)
    expected = {0: 0, 2: 0.5, 4: 1, 8: 0.1 + 0.9 * HALF_DOWN, 12: 0.55, 20: 0.1, 25: 0.1}
    found = [rate(step) / RATE for step in expected]
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-6)
