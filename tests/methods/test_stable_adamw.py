"""StableAdamW against plain NumPy, parameter by parameter, in the order of Dinomaly's code."""

import jax
import numpy as np
import pytest

from recon_ad.methods.stable_adamw import stable_adamw

RATE, DECAY = 0.01, 0.1


class Plain:
    """The optimiser for one array in float64: it decays the parameters, then moves them."""

    def __init__(self, values):
        self.values = np.float64(values)
        self.first, self.second, self.largest = (np.zeros(values.shape) for _ in range(3))
        self.steps, self.surprises = 0, []

    def step(self, grad, rate):
        grad = np.float64(grad)
        self.steps += 1
        self.values *= 1 - rate * DECAY
        self.first = 0.9 * self.first + 0.1 * grad
        self.second = 0.999 * self.second + 0.001 * grad**2
        self.largest = np.maximum(self.largest, self.second)
        typical = np.sqrt(self.largest / (1 - 0.999**self.steps)) + 1e-8
        surprise = np.linalg.norm(grad / typical) / np.sqrt(grad.size)
        self.surprises.append(surprise)
        rate /= (1 - 0.9**self.steps) * max(1.0, surprise)
        self.values -= rate * self.first / typical


def gradients(steps):
    """Return gradients of a kernel and a bias: sudden ones, then long quiet ones."""
    random = np.random.default_rng(0)
    for i in range(steps):
        grads = {"kernel": random.normal(size=(3, 4)), "bias": random.normal(size=4)}
        size = {"kernel": 30.0 if i == 5 else 1e-3, "bias": 1e-9 if i < 20 else 1e-3}
        yield {k: (size[k] * v).astype(np.float32) for k, v in grads.items()}


def test_each_step_is_numpys():
    params = {"kernel": np.full((3, 4), 0.5, np.float32), "bias": np.full(4, -2.0, np.float32)}
    plain = {k: Plain(v) for k, v in params.items()}

    def rate(step):
        return RATE / (1 + step)

    tx = stable_adamw(rate, decay=DECAY)
    state, update = tx.init(params), jax.jit(tx.update)
    for i, grads in enumerate(gradients(40)):
        moved, state = update(grads, state, params)
        params = jax.tree.map(lambda p, m: np.asarray(p + m), params, moved)
        for name, array in plain.items():
            array.step(grads[name], rate(i))
            # float32 represents 1 − 0.999 only to 3e-5, and parameters of 2 round to 2e-7 per step.
            np.testing.assert_allclose(params[name], array.values, rtol=1e-5, err_msg=f"{name} {i}")
    for array in plain.values():  # both cases must occur, or the test would not see them
        assert max(array.surprises) > 1.5 and min(array.surprises) < 0.5
        assert np.abs(array.values - 1).max() > 0.01
    kernel = plain["kernel"]
    assert (kernel.largest > 1.01 * kernel.second).all()


def test_a_gradient_of_zeros_moves_nothing_but_by_the_decay():
    params, tx = {"bias": np.ones(3, np.float32)}, stable_adamw(RATE, decay=DECAY)
    moved, _ = jax.jit(tx.update)({"bias": np.zeros(3, np.float32)}, tx.init(params), params)
    assert moved["bias"] == pytest.approx(-RATE * DECAY)
