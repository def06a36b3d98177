"""Reconstruction of the features of a frozen Vision Transformer (Dinomaly, Guo et al. 2025).

The mean of the tokens of several blocks passes through a noisy bottleneck and a decoder with as
many blocks. Encoder and decoder are compared in two groups, the earlier and the later blocks, each
averaged (the decoder's in reverse order). The loss is one minus the cosine over all numbers of an
image, and the anomaly map is one minus the cosine at each position; both are averaged over the
groups.

Hard mining: positions that are already reconstructed well count a tenth in the gradient. They are
selected in each batch by a quantile of the cosine distances, which rises to 0.9 in the first tenth
of training.

`config.vit_recon.recipe` is "published" or "ours". Published follows Dinomaly's own code
(`dinomaly_mvtec_sep.py`, `dinomaly_mvtec_uni.py`, `models/uad.py` and `utils.py` of
github.com/guojiajeremy/Dinomaly, Apache-2.0):

- Class and register tokens pass through bottleneck and decoder beside the patches, and only loss
  and map exclude them. Ours excludes them from the start.
- All linear layers have biases and a narrow initialisation (`recon_ad.models.feature_decoder`).
  Ours have no biases outside the attention, and linen's initialisation.
- The optimiser is StableAdamW with weight decay on gradients of a clipped norm, and its rate ends
  at a tenth. Ours is Adam, and its rate ends at 0.
- In the anomaly map the corner patches' values are placed at the image's corners
  (`align_corners`). Ours places them at the patches' centres.

Both recipes differ from the published code in these points:

- Images are not cropped. The published code shows 392 px of 448, so it never sees the sixteenth
  along each border and finds no defect there. `config.data.resize=(448, 0)` has the same scale and
  shows the whole image in overlapping tiles of 392 px.
- Maps are smoothed by `config.inference.sigma` px of the image. The published code smooths maps of
  256 px by 5 × 5 px of a Gaussian of 4 px, whose standard deviation is 1.4 px. That is a width
  relative to the image, for which the inference has no setting.
- The mining rises over a share of the training's steps and selects easy positions by a quantile,
  not by a count. The warm-up reaches the rate one step later.
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

# Values as published, where the rise takes 1 000 of 10 000 steps.
EASY, RISE, FACTOR = 0.9, 0.1, 0.1
CLIPPED, DECAY, END = 0.1, 1e-4, 0.1  # norm of all gradients, weight decay, the last rate's share

Groups = Float[Array, "b n g d"]  # tokens of the two groups


def cosine_distance(a: Float[Array, "*n d"], b: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    """Compute 1 − cos of the angle between vectors, which is 1 if one of them is 0."""
    # The limit is inside the root, whose gradient at 0 would be infinite.
    norms = [jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1), 1e-16)) for x in (a, b)]
    return 1 - jnp.sum(a * b, axis=-1) / (norms[0] * norms[1])


def mined_loss(
    targets: Groups, found: Groups, easy: Float[Array, ""] | float
) -> Float[Array, " b"]:
    """Compute 1 − cos over all numbers of an image, averaged over the groups.

    Args:
      targets: Tokens of the encoder, which receive no gradient.
      found: Tokens of the decoder.
      easy: Share of positions, of the batch and for each group, whose gradient counts a tenth.
    """
    targets = jax.lax.stop_gradient(targets)
    apart = jax.lax.stop_gradient(cosine_distance(targets, found))
    limit = jnp.quantile(apart, easy, axis=(0, 1), keepdims=True)
    # The value is the same; only the gradient is smaller.
    less = FACTOR * found + jax.lax.stop_gradient((1 - FACTOR) * found)
    found = jnp.where((apart < limit)[..., None], less, found)

    def whole(x: Groups) -> Float[Array, "b g m"]:
        return jnp.moveaxis(x, 2, 1).reshape(x.shape[0], x.shape[2], -1)

    return jnp.mean(cosine_distance(whole(targets), whole(found)), axis=1)


def build_optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Build the optimiser of the config's recipe."""
    if config.vit_recon.recipe == "ours":
        return base.build_optimizer(config)
    rate = base.learning_rate(config, end=END)
    return optax.chain(optax.clip_by_global_norm(CLIPPED), stable_adamw(rate, decay=DECAY))


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """Build the method for images with this number of channels.

    Raises:
      UserError: If the encoder does not fit (`Encoder`), or has fewer than two blocks.
    """
    encoder = Encoder(config, channels=channels)
    count = len(encoder.blocks)
    if count < 2:
        raise UserError(
            f"config.encoder.blocks is {encoder.blocks}, but {config.method.name} compares two "
            "groups of blocks: give two or more."
        )
    published = config.vit_recon.recipe == "published"
    before = encoder.prefix if published else 0  # decoded tokens that are not patches
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
        """Return the patches of encoder and decoder."""
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
