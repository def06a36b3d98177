"""Reconstruction of the features of a frozen Vision Transformer (Dinomaly, Guo et al. 2025).

The mean of the tokens of several blocks passes a noisy bottleneck and a decoder with as many
blocks. Encoder and decoder are compared in two groups, the earlier and the later blocks, each
averaged (the decoder's in reverse order): the loss is one minus the cosine of all of an image's
numbers, the anomaly map one minus the cosine at each position, averaged over the groups.

Hard mining: in the gradient, positions that are painted well already count a tenth. Which these are
is decided in each batch by a quantile of the cosine distances, that rises in the first tenth of
training to 0.9.

`config.vit_recon.recipe` is "published" or "ours". Published is what Dinomaly's own code does
(`dinomaly_mvtec_sep.py`, `dinomaly_mvtec_uni.py`, `models/uad.py` and `utils.py` of
github.com/guojiajeremy/Dinomaly, Apache-2.0):

- class and register tokens pass bottleneck and decoder beside the patches, and are left out of loss
  and map only; ours leaves them out from the start;
- all linear layers have biases and begin narrow (`recon_ad.models.feature_decoder`); ours have none
  outside the attention and begin as linen's do;
- StableAdamW with weight decay on gradients of a clipped norm, whose rate ends at a tenth; ours is
  Adam, whose rate ends at 0;
- in the anomaly map the corner patches' values are those of the image's corners (`align_corners`);
  in ours those of the patches' centres.

In both recipes these are ours:

- Images are not cropped. The published code shows 392 px of 448: the sixteenth along each border is
  never looked at, and no defect found there. `config.data.resize=(448, 0)` has its scale, and shows
  the whole image in overlapping tiles of 392 px.
- Maps are smoothed by `config.inference.sigma` px of the image. The published code smooths maps of
  256 px, by 5 × 5 px of a Gaussian of 4 px, whose standard deviation is 1.4 px: a width relative to
  the image, which the inference has no setting for.
- The mining rises in a share of the training's steps, finds what is easy by a quantile and not by a
  count of positions, and the warm-up reaches the rate one step later.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base, reconstruction
from recon_ad.methods import features as on_features
from recon_ad.methods.features import Encoder, Images
from recon_ad.methods.stable_adamw import stable_adamw
from recon_ad.models.feature_decoder import FeatureDecoder, Tokens

# As published; the rise took 1 000 of 10 000 steps there.
EASY, RISE, FACTOR = 0.9, 0.1, 0.1
CLIPPED, DECAY, END = 0.1, 1e-4, 0.1  # norm of all gradients, weight decay, the last rate's share

Groups = Float[Array, "b n g d"]  # tokens of the two groups


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
    limit = jnp.quantile(apart, easy, axis=(0, 1), keepdims=True)
    # The same value; only the gradient is less.
    less = FACTOR * found + jax.lax.stop_gradient((1 - FACTOR) * found)
    found = jnp.where((apart < limit)[..., None], less, found)

    def whole(x: Groups) -> Float[Array, "b g m"]:
        return jnp.moveaxis(x, 2, 1).reshape(x.shape[0], x.shape[2], -1)

    return jnp.mean(cosine_distance(whole(targets), whole(found)), axis=1)


def build_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """The optimiser of that config's recipe."""
    if config.vit_recon.recipe == "ours":
        return base.build_optimizer(config)
    rate = base.learning_rate(config, end=END)
    return optax.chain(optax.clip_by_global_norm(CLIPPED), stable_adamw(rate, decay=DECAY))


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
    published = config.vit_recon.recipe == "published"
    before = encoder.prefix if published else 0  # tokens that are decoded and are no patches
    model = FeatureDecoder(count, encoder.heads, published)
    tx = build_optimizer(config)
    rising = RISE * config.train.steps

    def grouped(blocks: list[Tokens]) -> Groups:
        half = count // 2
        return jnp.stack([sum(g) / len(g) for g in (blocks[:half], blocks[half:])], axis=2)

    def prepare(frozen: PyTree, images: Images) -> Groups:
        found = encoder.tokens_of(frozen, images)
        return grouped([found[name][:, encoder.prefix - before :] for name in encoder.names])

    def compared(
        params: PyTree, tokens: Groups, key: Key[Array, ""] | None
    ) -> tuple[Float[Array, "b m g d"], Float[Array, "b m g d"]]:
        """The patches of encoder and decoder."""
        half = count // 2
        # The groups' means, weighted by their sizes, are the mean over the blocks.
        mean = (half * tokens[..., 0, :] + (count - half) * tokens[..., 1, :]) / count
        found = model.apply(
            {"params": params},
            mean,
            noisy=key is not None,
            rngs=None if key is None else {"dropout": key},
        )
        painted = grouped([found[f"block{i}"] for i in reversed(range(count))])
        return tokens[:, before:], painted[:, before:]

    def init(key: Key[Array, ""], tokens: Groups) -> base.TrainState:
        params = model.init(key, jnp.zeros_like(tokens[..., 0, :]), noisy=False)["params"]
        return base.TrainState(params, {}, tx.init(params), jnp.zeros((), jnp.int32))

    def train_step(
        state: base.TrainState, tokens: Groups, key: Key[Array, ""]
    ) -> tuple[base.TrainState, base.Metrics]:
        easy = EASY * jnp.minimum(state.step / rising, 1.0)

        def mean_loss(params: PyTree) -> tuple[Float[Array, ""], dict[str, Array]]:
            loss = mined_loss(*compared(params, tokens, key), easy)
            return jnp.mean(loss), {"loss": loss}

        grads, values = jax.grad(mean_loss, has_aux=True)(state.params)
        return base.apply_gradients(tx, state, grads, {}), reconstruction.as_metrics(values)

    def heldout_loss(state: base.TrainState, tokens: Groups) -> Float[Array, " b"]:
        return mined_loss(*compared(state.params, tokens, None), 0.0)

    def score(variables: base.Variables, tokens: Groups) -> Float[Array, "b r k"]:
        apart = cosine_distance(*compared(variables["params"], tokens, None))
        return jnp.mean(apart, axis=-1).reshape(-1, *encoder.size)

    return on_features.build(
        config,
        encoder,
        prepare=prepare,
        init=init,
        train_step=train_step,
        heldout_loss=heldout_loss,
        finish=on_features.keep_params,
        score=score,
        corners=published,
    )
