"""Nearest neighbours on pretrained features (PatchCore, Roth et al. 2022): what training adds is
seen beside it.

A feature is what several blocks say of a patch, side by side, each normalised over its channels.
There is no mean over neighbouring patches as in section 3.1 there: a token of a Vision Transformer
has seen its surroundings already. The image score is the maximum of the smoothed map, without the
re-weighting of eq. 7 there.

Training draws features of good images into a memory, each step the same number; `finish` thins them
to a coreset by greedy k-centre selection (section 3.2). The anomaly map is the distance to the
nearest of these. Each keeps the place of the image that it is of, so that an image can be judged by
the memory of the others (`without`).
"""

import functools
from collections.abc import Collection, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base
from recon_ad.methods import features as on_features
from recon_ad.methods.features import Encoder, Features

PROJECTED = 64  # numbers of a feature that the selection looks at (Johnson and Lindenstrauss)
LOOKED_AT = 1024  # features of the memory that held-out ones are compared with, at most

Vectors = Float[Array, "n d"]


def squared_distances(queries: Vectors, keys: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """|q − k|² of each to each, not below 0."""
    # Not einsum: ONNX Runtime would move the keys at each call.
    products = jnp.matmul(queries, keys.T, precision="highest")
    squares = [jnp.sum(x * x, axis=1) for x in (queries, keys)]
    return jnp.maximum(squares[0][:, None] + squares[1][None] - 2 * products, 0.0)


@functools.partial(jax.jit, static_argnames=("seed", "filled", "count"))
def coreset(vectors: Vectors, *, seed: int, filled: int, count: int) -> Int[Array, " m"]:
    """Chooses by greedy k-centre selection: each next one is farthest from all that are chosen.

    Args:
      vectors: to choose from; the first of them is chosen first.
      seed: of the random projection in which distances are taken.
      filled: how many of the vectors, from the first on, there are.
      count: how many to choose, `filled` at most; none is chosen twice.

    Returns:
      The places of the chosen vectors.
    """
    vectors = vectors[:filled]
    n, d = vectors.shape
    seen = vectors
    if d > PROJECTED:
        # The key is made here: host values cannot be sent to the devices during training.
        projection = jax.random.normal(jax.random.key(seed), (d, PROJECTED)) / PROJECTED**0.5
        seen = jnp.matmul(vectors, projection, precision="highest")
    squares = jnp.sum(seen * seen, axis=1)

    def choose(i, carry):
        chosen, nearest = carry
        at = seen[chosen[i - 1]]
        products = jnp.matmul(seen, at, precision="highest")
        apart = jnp.maximum(squares + jnp.sum(at * at) - 2 * products, 0.0)
        nearest = jnp.minimum(nearest, apart).at[chosen[i - 1]].set(-jnp.inf)
        return chosen.at[i].set(jnp.argmax(nearest)), nearest

    first = (jnp.zeros(count, jnp.int32), jnp.full(n, jnp.inf))
    chosen, _ = jax.lax.fori_loop(1, count, choose, first)
    return chosen


@jax.jit
def _taken(
    memory: Vectors, image: Int[Array, " n"], chosen: Int[Array, " m"]
) -> tuple[Float[Array, "m d"], Int[Array, " m"]]:
    """The chosen features and their images; traced, as training allows no transfer."""
    return memory[chosen], image[chosen]


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """The method for images with that many channels.

    Raises:
      UserError: the encoder does not fit (`Encoder`), or memory or coreset are empty.
    """
    c = config.knn
    if not 1 <= c.coreset <= c.memory:
        raise UserError(
            f"config.knn.coreset is {c.coreset} and memory {c.memory}; the coreset is chosen "
            "from the memory: give 1 or more of either, and a memory that is no smaller."
        )
    encoder = Encoder(config, channels=channels)
    # All that there is, where training sees less than the memory takes.
    seen = config.train.batch_size * encoder.size[0] * encoder.size[1]
    each = min(-(-c.memory // config.train.steps), seen)
    size = each * config.train.steps

    def init(key: Key[Array, ""], features: Features) -> base.TrainState:
        del key
        memory = {
            "memory": jnp.zeros((size, features.shape[-1])),
            "image": jnp.zeros(size, jnp.int32),
        }
        return base.TrainState(memory, {}, {}, jnp.zeros((), jnp.int32))

    def train_step(
        state: base.TrainState, features: Features, key: Key[Array, ""], *, image: Int[Array, " b"]
    ) -> tuple[base.TrainState, base.Metrics]:
        vectors = features.reshape(-1, features.shape[-1])
        chosen = jax.random.permutation(key, len(vectors))[:each]
        drawn, first = vectors[chosen], state.step * each
        memory = jax.lax.dynamic_update_slice(
            state.params["memory"], drawn, (first, jnp.zeros((), jnp.int32))
        )
        origin = image[chosen // (len(vectors) // len(image))]
        images = jax.lax.dynamic_update_slice(state.params["image"], origin, (first,))
        norms = jnp.sqrt(jnp.sum(drawn * drawn, axis=1))
        measured = {"feature_norm": (jnp.sum(norms), jnp.float32(each))}
        params = {"memory": memory, "image": images}
        return state._replace(params=params, step=state.step + 1), measured

    def heldout_loss(state: base.TrainState, features: Features) -> Float[Array, " b"]:
        stride = -(-size // LOOKED_AT)
        some = state.params["memory"][::stride]
        known = jnp.arange(len(some)) * stride < state.step * each
        return jnp.mean(distances(some, features, known=known), axis=(1, 2))

    def finish(
        frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]
    ) -> base.Variables:
        del batches
        filled = each * int(jax.device_get(state.step))
        count = min(c.coreset, filled)
        memory, image = state.params["memory"], state.params["image"]
        chosen = coreset(memory, seed=config.seed, filled=filled, count=count)
        keys, images = _taken(memory, image, chosen)
        return {"encoder": frozen, "coreset": keys, "coreset_image": images}

    def without(variables: base.Variables, places: Collection[int]) -> base.Variables:
        # In the place of each feature that goes is one that stays, which changes no distance to
        # the nearest, and no compiled program.
        keys, image = (np.asarray(variables[k]) for k in ("coreset", "coreset_image"))
        gone = np.isin(image, list(places))
        if gone.all():
            raise UserError(
                "every feature in the memory is of images that are held out together: train "
                "longer, or hold out fewer at a time."
            )
        left = keys[np.argmin(gone)]
        return {**variables, "coreset": np.where(gone[:, None], left, keys)}

    def score(variables: base.Variables, features: Features) -> Float[Array, "b r k"]:
        return distances(jnp.asarray(variables["coreset"]), features)

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


def distances(
    keys: Float[Array, "m d"], features: Features, *, known: Bool[Array, " m"] | None = None
) -> Float[Array, "b r k"]:
    """Of each feature to the nearest of the keys, of those only that are known."""
    b, r, k, d = features.shape
    squares = squared_distances(features.reshape(-1, d), keys)
    if known is not None:
        squares = jnp.where(known[None], squares, jnp.inf)
    found = jnp.min(squares, axis=1)
    return jnp.sqrt(found).reshape(b, r, k)
