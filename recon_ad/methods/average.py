"""The exponential moving average of a method's weights, which replaces the last weights.

The average follows the path of the weights with less noise, so a model is good before its learning
rate has fallen (Polyak and Juditsky 1992, Acceleration of stochastic approximation by averaging).
The optimiser itself does not see it.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key, PyTree

from recon_ad.methods import base


def update(average: PyTree, params: PyTree, step: Int[Array, ""], *, decay: float) -> PyTree:
    """Return the average after a step.

    Args:
      average: Average before it.
      params: Weights after it.
      step: Number of steps before it.
      decay: Factor of the old average. It is smaller at first, (1 + step) / (10 + step), so that
        the initial weights soon count for nothing.
    """
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: new + kept * (old - new), average, params)


def averaged(method: base.Method, *, decay: float) -> base.Method:
    """Return the method with its evaluation and its result at the average of the weights.

    The state holds the average beside the optimisers.
    """

    def own(state: base.TrainState) -> base.TrainState:
        return state._replace(opt_state=state.opt_state["method"])

    def at_average(state: base.TrainState) -> base.TrainState:
        return own(state)._replace(params=state.opt_state["average"])

    def init(key: Key[Array, ""], batch: base.Batch) -> base.TrainState:
        state = method.init(key, batch)
        return state._replace(opt_state={"method": state.opt_state, "average": state.params})

    def train_step(
        state: base.TrainState, batch: base.Batch, key: Key[Array, ""], **named: Any
    ) -> tuple[base.TrainState, base.Metrics]:
        new, metrics = method.train_step(own(state), batch, key, **named)
        average = update(state.opt_state["average"], new.params, state.step, decay=decay)
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
