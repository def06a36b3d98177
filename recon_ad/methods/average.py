"""The exponential moving average of a method's weights, which replaces the last weights.

The average follows the path of the weights with less noise. It is the exponential variant of
Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging", with the first
steps of TensorFlow's ExponentialMovingAverage (`num_updates`). The optimiser does not see it.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from recon_ad.methods import base


def update(average: PyTree, new: PyTree, step: Int[Array, ""], *, decay: float) -> PyTree:
    """Return the average after a step.

    Args:
      average: Average before it.
      new: Weights after it.
      step: Number of steps before it.
      decay: Factor of the old average. It is smaller at first, (1 + step) / (10 + step), so that
        the initial weights soon count for nothing.
    """
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, b: b + kept * (a - b), average, new)


def averaged(method: base.Method, *, decay: float) -> base.Method:
    """Return the method with its evaluation and its result at the average of the weights.

    Running statistics are averaged like the weights. Both must consist of floating-point arrays.
    The state holds the average beside the optimisers.
    """

    def averages_of(state: base.TrainState) -> dict[str, PyTree]:
        return {"params": state.params, "batch_stats": state.batch_stats}

    def own(state: base.TrainState) -> base.TrainState:
        return state._replace(opt_state=state.opt_state["method"])

    def at_average(state: base.TrainState) -> base.TrainState:
        return own(state)._replace(**state.opt_state["average"])

    def init(key: Key[Array, ""], batch: base.Batch) -> base.TrainState:
        state = method.init(key, batch)
        # Copied, because a step may not overwrite one array in two places.
        average = jax.tree.map(jnp.copy, averages_of(state))
        return state._replace(opt_state={"method": state.opt_state, "average": average})

    def train_step(
        state: base.TrainState, batch: base.Batch, key: Key[Array, ""], **named: Any
    ) -> tuple[base.TrainState, base.Metrics]:
        new, metrics = method.train_step(own(state), batch, key, **named)
        average = state.opt_state["average"]
        average = update(average, averages_of(new), state.step, decay=decay)
        return new._replace(opt_state={"method": new.opt_state, "average": average}), metrics

    def eval_step(
        state: base.TrainState, batch: base.Batch, mask: Bool[Array, " b"]
    ) -> base.Metrics:
        return method.eval_step(at_average(state), batch, mask)

    def finish(
        frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]
    ) -> base.Variables:
        return method.finish(frozen, at_average(state), batches)

    return method._replace(init=init, train_step=train_step, eval_step=eval_step, finish=finish)
