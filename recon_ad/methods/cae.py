"""The "standard" convolutional autoencoder (Schneider et al. 2022, section 2.1).

Learns by the mean squared error (eq. 3); the anomaly map is the squared residual (eq. 1), averaged
over channels.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base
from recon_ad.models.cae import CAE, DOWNSCALING, ENCODERS
from recon_ad.ops import residuals


def _loss(
    params: PyTree, images: Float[Array, "b h w c"], *, model: CAE
) -> tuple[Float[Array, ""], Float[Array, "b h w c"]]:
    reconstruction = model.apply({"params": params}, images)["reconstruction"]
    return jnp.mean(residuals.squared(images, reconstruction)), reconstruction


def init(
    key: Key[Array, ""],
    images: Float[Array, "b h w c"],
    *,
    model: CAE,
    tx: optax.GradientTransformation,
) -> base.TrainState:
    """Fresh parameters and optimiser."""
    params = model.init(key, images)["params"]
    return base.TrainState(params, {}, tx.init(params), jnp.zeros((), jnp.int32))


def train_step(
    state: base.TrainState,
    images: Float[Array, "b h w c"],
    key: Key[Array, ""],
    *,
    model: CAE,
    tx: optax.GradientTransformation,
) -> tuple[base.TrainState, base.Metrics]:
    """One Adam step on the mean squared error (eq. 3, averaged over channels too)."""
    del key  # nothing is random here
    grad_fn = jax.value_and_grad(_loss, has_aux=True)
    (loss, _), grads = grad_fn(state.params, images, model=model)
    count = jnp.float32(images.shape[0])
    return base.apply_gradients(tx, state, grads, {}), {"loss": (loss * count, count)}


def eval_step(
    state: base.TrainState,
    images: Float[Array, "b h w c"],
    mask: Bool[Array, " b"],
    *,
    model: CAE,
) -> base.Metrics:
    """The loss and the unexplained variance on held-out patches."""
    _, reconstruction = _loss(state.params, images, model=model)
    per_image = jnp.mean(residuals.squared(images, reconstruction), axis=(1, 2))
    return {
        "loss": base.masked_mean(per_image, mask),
        "unexplained_variance": base.unexplained_variance(images, reconstruction, mask),
    }


def finish(frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]) -> base.Variables:
    """Keeps the parameters and drops the optimiser."""
    del frozen, batches
    return {"params": state.params}


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """The method for patches of `config.data.patch_size` with that many channels.

    Raises:
      UserError: the patch size is not a multiple of 16 or the variant is unknown.
    """
    size, variant = config.data.patch_size, config.method.variant
    if size % DOWNSCALING or size <= 0:
        raise UserError(
            f"config.data.patch_size is {size}, but the CAE needs a multiple of {DOWNSCALING}: "
            "choose 64, 128 or 256, for example."
        )
    if config.method.n_z < 1:
        raise UserError(f"config.method.n_z is {config.method.n_z}; a code has 1 number or more.")
    if variant not in ENCODERS:
        raise UserError(
            f"config.method.variant is {variant!r}; choose one of {', '.join(ENCODERS)}."
        )
    model = CAE(variant, (size, size), channels, config.method.n_z)
    tx = base.build_optimizer(config)

    def reconstruct(
        variables: base.Variables, images: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        return model.apply(variables, images)["reconstruction"]

    def anomaly_map(
        variables: base.Variables, images: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w"]:
        return residuals.squared(images, reconstruct(variables, images))

    return base.Method(
        prepare=lambda frozen, images: images,
        init=functools.partial(init, model=model, tx=tx),
        train_step=functools.partial(train_step, model=model, tx=tx),
        eval_step=functools.partial(eval_step, model=model),
        finish=finish,
        anomaly_map=anomaly_map,
        reconstruct=reconstruct,
        geometry=base.tile_geometry(config),
    )
