"""What all reconstruction methods share: they learn to paint the image again, and the anomaly map
is how the image and its reconstruction differ.

A method gives its losses per image, a function of the parameters, the images and a key; without a
key nothing is random, as held-out evaluation wants it. From these, and from how it reconstructs,
`build` makes the record.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.methods import base
from recon_ad.methods.residual import weighted
from recon_ad.ops import residuals

Images = Float[Array, "b h w c"]
# (params, batch, key or None) -> values per image, of which "loss" is minimised. The batch is the
# images, but for methods that prepare another.
Losses = Callable[[PyTree, base.Batch, Key[Array, ""] | None], dict[str, Float[Array, " b"]]]


def mean_squared_error(images: Images, reconstructions: Images) -> Float[Array, " b"]:
    """Per image, over pixels and channels (Schneider et al. 2022, eq. 3)."""
    return jnp.mean(residuals.squared(images, reconstructions), axis=(1, 2))


def as_metrics(values: Mapping[str, Float[Array, " b"]]) -> base.Metrics:
    """Values per image as (sum, count)."""
    return {name: (jnp.sum(v), jnp.float32(v.shape[0])) for name, v in values.items()}


def minimize(
    losses: Losses, params: PyTree, batch: base.Batch, key: Key[Array, ""] | None
) -> tuple[PyTree, dict[str, Float[Array, " b"]]]:
    """Gradients of the batch's mean loss, and the losses per image."""

    def mean_loss(params: PyTree) -> tuple[Float[Array, ""], dict[str, Array]]:
        values = losses(params, batch, key)
        return jnp.mean(values["loss"]), values

    return jax.grad(mean_loss, has_aux=True)(params)


def train_step(
    state: base.TrainState,
    batch: base.Batch,
    key: Key[Array, ""],
    *,
    losses: Losses,
    tx: optax.GradientTransformation,
) -> tuple[base.TrainState, base.Metrics]:
    """One optimiser step."""
    grads, values = minimize(losses, state.params, batch, key)
    return base.apply_gradients(tx, state, grads, {}), as_metrics(values)


def eval_step(
    state: base.TrainState,
    images: Images,
    mask: Bool[Array, " b"],
    *,
    losses: Losses,
    reconstruct: Callable[[base.Variables, Images], Images],
) -> base.Metrics:
    """The losses and the unexplained variance on held-out patches."""
    reconstructions = reconstruct({"params": state.params}, images)
    measured = {
        name: base.masked_mean(value, mask)
        for name, value in losses(state.params, images, None).items()
    }
    unexplained = base.unexplained_variance(images, reconstructions, mask)
    return measured | {"unexplained_variance": unexplained}


def finish(frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]) -> base.Variables:
    """Keeps the parameters and drops the optimiser."""
    del frozen, batches
    return {"params": state.params}


def build(
    config: ConfigDict,
    *,
    init: Callable[[Key[Array, ""], Images], PyTree],
    losses: Losses,
    reconstruct: Callable[[base.Variables, Images], Images],
    encode: Callable[[base.Variables, Images], Float[Array, "b n"]] | None = None,
    protocol: Mapping[str, Any] | None = None,
) -> base.Method:
    """The record of a method with one optimiser; others replace fields of it.

    Args:
      config: geometry, optimiser and the weights of the residual are taken from it.
      init: (key, images) to parameters.
      losses: see `Losses`.
      reconstruct: (variables, images) to images; deterministic.
      encode: (variables, images) to codes, where there is a code.
      protocol: what the protocol of an evaluation says of the method.

    Raises:
      UserError: the config's tiles or residual weights do not fit.
    """
    tx = base.build_optimizer(config)
    residual = weighted(config)

    def init_state(key: Key[Array, ""], images: Images) -> base.TrainState:
        params = init(key, images)
        return base.TrainState(params, {}, tx.init(params), jnp.zeros((), jnp.int32))

    def anomaly_map(variables: base.Variables, images: Images) -> Float[Array, "b h w"]:
        return residual(images, reconstruct(variables, images))

    return base.Method(
        pretrained=lambda: ({}, {}),
        prepare=lambda frozen, images: images,
        init=init_state,
        train_step=functools.partial(train_step, losses=losses, tx=tx),
        eval_step=functools.partial(eval_step, losses=losses, reconstruct=reconstruct),
        finish=finish,
        anomaly_map=anomaly_map,
        reconstruct=reconstruct,
        geometry=base.tile_geometry(config),
        encode=encode,
        protocol=dict(protocol or {}),
    )
