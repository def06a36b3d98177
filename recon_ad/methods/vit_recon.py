"""Reconstruction of the features of a frozen Vision Transformer (Dinomaly, Guo et al. 2025).

The mean of the tokens of several blocks passes a noisy bottleneck and a decoder with as many
blocks. Encoder and decoder are compared in two groups, the earlier and the later blocks, each
averaged (the decoder's in reverse order): the loss is one minus the cosine of all of an image's
numbers, the anomaly map one minus the cosine at each position, averaged over the groups.

Hard mining: in the gradient, positions that are painted well already count a tenth. Which these are
is decided in each batch by a quantile of the cosine distances, that rises in the first tenth of
training to 0.9.

Not as published: class and register tokens are left out, parameters begin as linen's do, and the
optimiser is Adam, without weight decay and clipping, whose rate ends at 0 and not at a tenth;
images are resized, not cropped, and maps smoothed at the image's own size, not at 256 px.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base, reconstruction
from recon_ad.methods import features as on_features
from recon_ad.methods.features import Encoder, Features, Images
from recon_ad.models.feature_decoder import FeatureDecoder

# As published; the rise took 1 000 of 10 000 steps there.
EASY, RISE, FACTOR = 0.9, 0.1, 0.1

Groups = Float[Array, "b r k g d"]  # features of the two groups


def cosine_distance(a: Float[Array, "*n d"], b: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """1 − cos of the angle between vectors; 1 where one is 0."""
    # Within the root: its gradient at 0 would be infinite.
    norms = [jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1), 1e-16)) for x in (a, b)]
    return 1 - jnp.sum(a * b, axis=-1) / (norms[0] * norms[1])


def mined_loss(
    targets: Groups, found: Groups, easy: Float[Array, ""] | float
) -> Float[Array, " b"]:
    """1 − cos of all numbers of an image, the mean over the groups.

    Args:
      targets: of the encoder; no gradient goes there.
      found: of the decoder.
      easy: share of positions, of the batch and for each group, whose gradient counts a tenth.
    """
    targets = jax.lax.stop_gradient(targets)
    apart = jax.lax.stop_gradient(cosine_distance(targets, found))
    limit = jnp.quantile(apart, easy, axis=(0, 1, 2), keepdims=True)
    # The same value; only the gradient is less.
    less = FACTOR * found + jax.lax.stop_gradient((1 - FACTOR) * found)
    found = jnp.where((apart < limit)[..., None], less, found)

    def whole(x: Groups) -> Float[Array, "b g n"]:
        return jnp.moveaxis(x, 3, 1).reshape(x.shape[0], x.shape[3], -1)

    return jnp.mean(cosine_distance(whole(targets), whole(found)), axis=1)


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """The method for images with that many channels.

    Raises:
      UserError: the encoder does not fit (`Encoder`), or has fewer than two blocks.
    """
    encoder = Encoder(config, channels=channels)
    count = len(encoder.blocks)
    if count < 2:
        raise UserError(
            f"config.encoder.blocks is {encoder.blocks}, but {config.method.name} compares two "
            "groups of blocks: give two or more."
        )
    model = FeatureDecoder(count, encoder.heads)
    tx = base.build_optimizer(config)
    rising = RISE * config.train.steps

    def grouped(blocks: list[Features]) -> Groups:
        half = count // 2
        return jnp.stack([sum(g) / len(g) for g in (blocks[:half], blocks[half:])], axis=3)

    def prepare(frozen: PyTree, images: Images) -> Groups:
        found = encoder.blocks_of(frozen, images)
        return grouped([found[name] for name in encoder.names])

    def decoded(params: PyTree, targets: Groups, key: Key[Array, ""] | None) -> Groups:
        b, r, k, _, d = targets.shape
        half = count // 2
        # The groups' means, weighted by their sizes, are the mean over the blocks.
        first, second = targets[..., 0, :], targets[..., 1, :]
        mean = (half * first + (count - half) * second) / count
        found = model.apply(
            {"params": params},
            mean.reshape(b, r * k, d),
            noisy=key is not None,
            rngs=None if key is None else {"dropout": key},
        )
        return grouped([found[f"block{i}"].reshape(b, r, k, d) for i in reversed(range(count))])

    def init(key: Key[Array, ""], targets: Groups) -> base.TrainState:
        b, r, k, _, d = targets.shape
        params = model.init(key, jnp.zeros((b, r * k, d)), noisy=False)["params"]
        return base.TrainState(params, {}, tx.init(params), jnp.zeros((), jnp.int32))

    def train_step(
        state: base.TrainState, targets: Groups, key: Key[Array, ""]
    ) -> tuple[base.TrainState, base.Metrics]:
        easy = EASY * jnp.minimum(state.step / rising, 1.0)

        def mean_loss(params: PyTree) -> tuple[Float[Array, ""], dict[str, Array]]:
            loss = mined_loss(targets, decoded(params, targets, key), easy)
            return jnp.mean(loss), {"loss": loss}

        grads, values = jax.grad(mean_loss, has_aux=True)(state.params)
        return base.apply_gradients(tx, state, grads, {}), reconstruction.as_metrics(values)

    def heldout_loss(state: base.TrainState, targets: Groups) -> Float[Array, " b"]:
        return mined_loss(targets, decoded(state.params, targets, None), 0.0)

    def score(variables: base.Variables, targets: Groups) -> Float[Array, "b r k"]:
        apart = cosine_distance(targets, decoded(variables["params"], targets, None))
        return jnp.mean(apart, axis=-1)

    return on_features.build(
        config,
        encoder,
        prepare=prepare,
        init=init,
        train_step=train_step,
        heldout_loss=heldout_loss,
        finish=on_features.keep_params,
        score=score,
    )
