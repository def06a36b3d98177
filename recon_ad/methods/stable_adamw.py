"""StableAdamW (Wortsman et al. 2023) as in Dinomaly's published code; optax does not include it.

It is AdamW with shorter steps when gradients are unexpectedly large. The step of an array of
parameters is divided by the root mean square of its gradients, each relative to the root of its
second moment, if that is above 1. The second moment is the largest so far (AMSGrad, Reddi et al.
2018). Weight decay acts on all parameters, biases and norms too.

Source: `optimizers/StableAdamW.py` of github.com/guojiajeremy/Dinomaly (Apache-2.0), read, not
copied.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

# Values as published for one category; the script for all categories has an epsilon of 1e-10.
FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8


class StableState(NamedTuple):
    """State of the optimiser: a count, and trees of the parameters' shapes.

    Attributes:
      count: Number of updates.
      mu: Running mean of the gradients.
      nu: Running mean of their squares.
      largest: Largest `nu` so far.
    """

    count: Int[Array, ""]
    mu: PyTree
    nu: PyTree
    largest: PyTree


def scale_by_stable_adam() -> optax.GradientTransformation:
    """Return the direction of the step, before learning rate and weight decay."""

    def init(params: PyTree) -> StableState:
        nothing = [jax.tree.map(jnp.zeros_like, params) for _ in range(3)]
        return StableState(jnp.zeros((), jnp.int32), *nothing)

    def update(
        grads: PyTree, state: StableState, params: PyTree | None = None
    ) -> tuple[PyTree, StableState]:
        del params
        count = state.count + 1
        mu = optax.tree.update_moment(grads, state.mu, FIRST, 1)
        nu = optax.tree.update_moment(grads, state.nu, SECOND, 2)
        largest = jax.tree.map(jnp.maximum, state.largest, nu)
        centred = optax.tree.bias_correction(mu, FIRST, count)
        # The largest is corrected by the current count, as published.
        squared = optax.tree.bias_correction(largest, SECOND, count)

        def direction(grad: Array, first: Array, second: Array) -> Array:
            typical = jnp.sqrt(second) + EPSILON
            surprise = jnp.sqrt(jnp.mean((grad / typical) ** 2))
            return first / typical / jnp.maximum(surprise, 1.0)

        found = jax.tree.map(direction, grads, centred, squared)
        return found, StableState(count, mu, nu, largest)

    return optax.GradientTransformation(init, update)


def stable_adamw(rate: optax.ScalarOrSchedule, *, decay: float) -> optax.GradientTransformation:
    """Return the optimiser.

    Args:
      rate: Learning rate, or its schedule.
      decay: Share of each parameter that a step at rate 1 removes.
    """
    return optax.chain(
        scale_by_stable_adam(),
        optax.add_decayed_weights(decay),
        optax.scale_by_learning_rate(rate),
    )
