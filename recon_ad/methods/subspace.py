"""Reconstruction of pretrained features by the principal subspace of good ones, for few images.

The method follows SubspaceAD (Lendering et al. 2026). Features are projected on the principal
components of good features that together hold `config.subspace.variance` of their variance. The
anomaly map is the norm of the remainder. Here a feature is the concatenation of the normalised
outputs of `encoder.blocks`, where the paper averages middle blocks of DINOv2-G. The image score is
a rule of `inference.score`.

Training only collects sums and products of features, separately for each image. An image can
therefore be scored with the subspace of the others (`without`).
"""

import functools
from collections.abc import Collection, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base
from recon_ad.methods import features as on_features
from recon_ad.methods.features import Encoder, Features

SLOTS = 64  # slots in which an image's features are summed; further images share them

Moments = dict[str, Array]  # sum [s, d], products [s, d, d] and count [s] of features in each slot


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """Build the method for images with this number of channels.

    Raises:
      UserError: If the encoder does not fit (`Encoder`), or the share of variance is not between 0
        and 1.
    """
    share = config.subspace.variance
    if not 0 < share < 1:
        raise UserError(
            f"config.subspace.variance is {share}: give the share of the features' variance that "
            "the subspace keeps, between 0 and 1."
        )
    encoder = Encoder(config, channels=channels)

    def init(key: Key[Array, ""], features: Features) -> base.TrainState:
        del key
        d = features.shape[-1]
        moments = {
            "sum": jnp.zeros((SLOTS, d)),
            "products": jnp.zeros((SLOTS, d, d)),
            "count": jnp.zeros(SLOTS),
        }
        return base.TrainState(moments, {}, {}, jnp.zeros((), jnp.int32))

    def train_step(
        state: base.TrainState, features: Features, key: Key[Array, ""], *, image: Int[Array, " b"]
    ) -> tuple[base.TrainState, base.Metrics]:
        del key
        vectors = features.reshape(len(image), -1, features.shape[-1])
        products = jnp.einsum("bnd,bne->bde", vectors, vectors, precision="highest")
        slot = image % SLOTS
        moments = {
            "sum": state.params["sum"].at[slot].add(jnp.sum(vectors, axis=1)),
            "products": state.params["products"].at[slot].add(products),
            "count": state.params["count"].at[slot].add(float(vectors.shape[1])),
        }
        norms = jnp.sqrt(jnp.sum(vectors * vectors, axis=-1))
        measured = {"feature_norm": (jnp.sum(norms), jnp.float32(norms.size))}
        return state._replace(params=moments, step=state.step + 1), measured

    def heldout_loss(state: base.TrainState, features: Features) -> Float[Array, " b"]:
        subspace = principal(state.params, share=share)
        return jnp.mean(residual(subspace, features), axis=(1, 2))

    def finish(
        frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]
    ) -> base.Variables:
        del batches
        subspace = principal(state.params, share=share)
        return {"encoder": frozen, "subspace": subspace, "moments": state.params}

    def without(variables: base.Variables, places: Collection[int]) -> base.Variables:
        moments = jax.tree.map(np.array, variables["moments"])
        gone = [place % SLOTS for place in places]
        for values in moments.values():
            values[gone] = 0
        if not moments["count"].any():
            raise UserError(
                f"images share {SLOTS} slots, and no slot is left without the images that are "
                "held out together: set config.calibration.rule to split."
            )
        subspace = principal(moments, share=share)
        return {**variables, "subspace": subspace}

    def score(variables: base.Variables, features: Features) -> Float[Array, "b r k"]:
        return residual(variables["subspace"], features)

    return on_features.build(
        config,
        encoder,
        prepare=encoder.side_by_side,
        init=init,
        train_step=train_step,
        heldout_loss=heldout_loss,
        finish=finish,
        score=score,
        without=without,
    )


@functools.partial(jax.jit, static_argnames="share")
def principal(moments: Moments, *, share: float) -> dict[str, Array]:
    """Return the mean [d] and the principal components of features, as columns [d, d].

    The fewest of the largest components that hold the share of the variance are kept. The columns
    of the others are 0, so that the shape does not depend on their number.

    Args:
      moments: Moments of the features.
      share: Share of the variance, between 0 and 1.
    """
    count = jnp.maximum(jnp.sum(moments["count"]), 1.0)
    mean = jnp.sum(moments["sum"], axis=0) / count
    covariance = jnp.sum(moments["products"], axis=0) / count - jnp.outer(mean, mean)
    variances, components = jnp.linalg.eigh((covariance + covariance.T) / 2)
    variances, components = jnp.maximum(variances[::-1], 0.0), components[:, ::-1]
    before = jnp.cumsum(variances) - variances
    kept = before < share * jnp.sum(variances)
    return {"mean": mean, "components": components * kept[None]}


def residual(subspace: base.Variables, features: Features) -> Float[Array, "b r k"]:
    """Compute the distance of each feature to the subspace."""
    b, r, k, d = features.shape
    components = subspace["components"]
    centred = features.reshape(-1, d) - subspace["mean"][None]
    inside = jnp.matmul(centred, components, precision="highest")
    left = centred - jnp.matmul(inside, components.T, precision="highest")
    return jnp.sqrt(jnp.sum(left * left, axis=1)).reshape(b, r, k)
