"""Normalising flows on the features of a frozen Vision Transformer (FastFlow, Yu et al. 2021).

The published DeiT setting of FastFlow has one block. Preste's ViTFlow, whose code is not available,
is taken to be this method.

The features of each block are normalised over their channels and have their own flow. Training
minimises the flow's exact negative log-likelihood, in nats per number. The anomaly map is each
position's part of it, averaged over the blocks. FastFlow's map is −exp(−½ mean z²) instead.
Normalised features lie on a sphere, so the likelihood has no upper bound: the held-out loss shows
the progress of training, but not the quality of the detector.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base, reconstruction
from recon_ad.methods import features as on_features
from recon_ad.methods.features import Encoder, Features
from recon_ad.models.flow import COUPLINGS, Flow


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """Build the method for images with this number of channels.

    Raises:
      UserError: If the encoder does not fit (`Encoder`), the flow has no steps or channels or an
        unknown coupling, or borders are attenuated.
    """
    c = config.vit_flow
    if c.steps < 1 or c.ratio <= 0:
        raise UserError(
            f"config.vit_flow.steps is {c.steps} and ratio {c.ratio}, but a flow needs 1 step or "
            "more and a ratio above 0."
        )
    if c.coupling not in COUPLINGS:
        raise UserError(
            f"unknown config.vit_flow.coupling {c.coupling!r}; choose one of: "
            f"{', '.join(COUPLINGS)}."
        )
    if config.inference.border and config.inference.border_weight != 1:
        raise UserError(
            "config.inference.border scales the map along the border, but a map of likelihoods may "
            "be below 0, and the border would then stand out: set it to 0 for vit_flow."
        )
    encoder = Encoder(config, channels=channels)
    names = encoder.names
    flow = Flow(c.steps, encoder.width, c.ratio, c.coupling)
    tx = base.build_optimizer(config)

    def negative_log_likelihood(params: PyTree, features: Features) -> Float[Array, "b r k"]:
        """Compute it for each position, in nats per number, averaged over the blocks."""
        parts = []
        for name, part in zip(names, jnp.split(features, len(names), axis=-1), strict=True):
            out = flow.apply({"params": params[name]}, part)
            half = 0.5 * jnp.mean(out["latent"] ** 2 + math.log(2 * math.pi), axis=-1)
            parts.append(half - out["log_determinant"] / encoder.width)
        return sum(parts) / len(parts)

    def losses(
        params: PyTree, features: Features, key: Key[Array, ""] | None
    ) -> dict[str, Float[Array, " b"]]:
        del key  # nothing is random here
        return {"loss": jnp.mean(negative_log_likelihood(params, features), axis=(1, 2))}

    def init(key: Key[Array, ""], features: Features) -> base.TrainState:
        keys = jax.random.split(key, len(names))
        parts = jnp.split(features, len(names), axis=-1)
        params = {
            name: flow.init(k, part)["params"]
            for name, k, part in zip(names, keys, parts, strict=True)
        }
        return base.TrainState(params, {}, tx.init(params), jnp.zeros((), jnp.int32))

    def heldout_loss(state: base.TrainState, features: Features) -> Float[Array, " b"]:
        return losses(state.params, features, None)["loss"]

    def score(variables: base.Variables, features: Features) -> Float[Array, "b r k"]:
        return negative_log_likelihood(variables["params"], features)

    return on_features.build(
        config,
        encoder,
        prepare=encoder.side_by_side,
        init=init,
        train_step=functools.partial(reconstruction.train_step, losses=losses, tx=tx),
        heldout_loss=heldout_loss,
        finish=on_features.keep_params,
        score=score,
    )
