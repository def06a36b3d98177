"""The common part of all reconstruction methods, whose anomaly map is a residual map.

A method defines its losses per image, a function of the parameters, the images and a key. Without a
key nothing is random, which held-out evaluation needs. From the losses and the reconstruction,
`build` makes the method's record.
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
# images, unless a method prepares another one.
Losses = Callable[[PyTree, base.Batch, Key[Array, ""] | None], dict[str, Float[Array, " b"]]]


def mean_squared_error(images: Images, reconstructions: Images) -> Float[Array, " b"]:
    """Average each image's squared error over pixels and channels.

    Source: Schneider et al. 2022, eq. 3.
    """
    return jnp.mean(residuals.squared(images, reconstructions), axis=(1, 2))


def as_metrics(values: Mapping[str, Float[Array, " b"]]) -> base.Metrics:
    """Return values per image as (sum, count)."""
    return {name: (jnp.sum(v), jnp.float32(v.shape[0])) for name, v in values.items()}


def minimize(
    losses: Losses, params: PyTree, batch: base.Batch, key: Key[Array, ""] | None
) -> tuple[PyTree, dict[str, Float[Array, " b"]]]:
    """Return the gradients of the batch's mean loss, and the losses per image."""

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
    """Take one optimiser step."""
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
    """Return the losses and the unexplained variance on held-out patches."""
    reconstructions = reconstruct({"params": state.params}, images)
    measured = {
        name: base.masked_mean(value, mask)
        for name, value in losses(state.params, images, None).items()
    }
    unexplained = base.unexplained_variance(images, reconstructions, mask)
    return measured | {"unexplained_variance": unexplained}


def finish(frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]) -> base.Variables:
    """Keep the parameters and drop the optimiser."""
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
    """Build the record of a method with one optimiser; other methods replace some of its fields.

    Args:
      config: Config of the run, for geometry, optimiser and the weights of the residual.
      init: (key, images) -> parameters.
      losses: Losses per image (see `Losses`).
      reconstruct: (variables, images) -> images; deterministic.
      encode: (variables, images) -> codes, if the method has a code.
      protocol: Entries of an evaluation's protocol.

    Raises:
      UserError: If the config's tiles or residual weights do not fit.
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
