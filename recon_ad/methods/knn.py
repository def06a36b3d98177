"""Nearest neighbours on pretrained features (PatchCore, Roth et al. 2022).

A feature is the output of one or several blocks for a patch, each normalised over its channels. It
is used in two forms: alone (fine), and averaged over the 3 × 3 patches around it (coarse), as in
PatchCore (section 3.1 there). Fine features show small defects; coarse ones show a surface that
differs as a whole. The image score has no re-weighting as in eq. 7 there.

Training draws features of good images into a memory, the same number in each step. `finish` reduces
the fine and the coarse features to one coreset each by greedy k-centre selection (section 3.2). The
anomaly map is the distance to the nearest fine feature plus `COARSE` times that to the nearest
coarse one. Each is in units of its standard deviation among good patches, which are compared with
images other than their own. Each feature keeps the place of its image, so that an image can be
scored with the memory of the others (`without`).

The share, the block and the image score were chosen on four sets: MVTec's grid, magnetic tiles,
nanofibres and a ball screw.
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

PROJECTED = 64  # length of the projected features in the selection (Johnson and Lindenstrauss)
LOOKED_AT = 1024  # most features of the memory that held-out ones are compared with
COMPARED = 4096  # most features of the memory that determine the spread of distances
KINDS = ("fine", "coarse")
COARSE = 0.75  # weight of the coarse distance beside the fine one

Vectors = Float[Array, "n d"]


def _beyond_own(queries: Vectors, keys: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Compute |q − k|² − |q|² between each query and each key.

    The nearest key of a query is the one with the least. In a runtime that stores each result, this
    is the only large one: a product with constant keys, to which constant squares are added.
    """
    # Not einsum, for which ONNX Runtime would transpose the keys at each call.
    products = jnp.matmul(queries, (-2.0 * keys).T, precision="highest")
    return products + jnp.sum(keys * keys, axis=1)[None]


def squared_distances(queries: Vectors, keys: Float[Array, "m d"]) -> Float[Array, "n m"]:
    """Compute |q − k|² between each query and each key, not below 0."""
    own = jnp.sum(queries * queries, axis=1)
    return jnp.maximum(_beyond_own(queries, keys) + own[:, None], 0.0)


@functools.partial(jax.jit, static_argnames=("seed", "filled", "count"))
def coreset(vectors: Vectors, *, seed: int, filled: int, count: int) -> Int[Array, " m"]:
    """Choose vectors by greedy k-centre selection: each next one is farthest from all chosen ones.

    Args:
      vectors: Candidates. The first of them is chosen first.
      seed: Seed of the random projection in which distances are computed.
      filled: Number of valid vectors, which come first.
      count: Number of vectors to choose, at most `filled`. None is chosen twice.

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


@functools.partial(jax.jit, static_argnames="filled")
def _bank(
    memory: Vectors, image: Int[Array, " n"], chosen: Int[Array, " m"], *, filled: int
) -> dict[str, Array]:
    """Return the chosen features, their images, and the spread of good distances to them.

    The function is traced, because training allows no transfers.
    """
    keys, images = memory[chosen], image[chosen]
    some = slice(0, filled, -(-filled // COMPARED))
    return {
        "features": keys,
        "image": images,
        "spread": spread(memory[some], image[some], keys, images),
    }


def spread(
    queries: Vectors, of: Int[Array, " n"], keys: Float[Array, "m d"], images: Int[Array, " m"]
) -> Float[Array, ""]:
    """Compute the standard deviation of good features' distances to the nearest of other images.

    It is 1 if there are fewer than two images, or no two distances differ.

    Args:
      queries: Features of good images.
      of: Place of the image of each query.
      keys: Features that the queries are compared with.
      images: Place of the image of each key.
    """
    squares = jnp.where(of[:, None] == images[None], jnp.inf, squared_distances(queries, keys))
    nearest = jnp.sqrt(jnp.min(squares, axis=1))
    known = jnp.isfinite(nearest)
    count = jnp.maximum(jnp.sum(known), 1)
    mean = jnp.sum(jnp.where(known, nearest, 0.0)) / count
    variance = jnp.sum(jnp.where(known, (nearest - mean) ** 2, 0.0)) / count
    return jnp.where(variance > 0, jnp.sqrt(variance), 1.0)


def pooled(features: Features) -> Features:
    """Average the 3 × 3 features around each feature; features at the border are repeated."""
    above = jnp.concatenate([features[:, :1], features[:, :-1]], axis=1)
    below = jnp.concatenate([features[:, 1:], features[:, -1:]], axis=1)
    rows = above + features + below
    left = jnp.concatenate([rows[:, :, :1], rows[:, :, :-1]], axis=2)
    right = jnp.concatenate([rows[:, :, 1:], rows[:, :, -1:]], axis=2)
    return (left + rows + right) / 9


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """Build the method for images with this number of channels.

    Raises:
      UserError: If the encoder does not fit (`Encoder`), or memory or coreset are empty.
    """
    c = config.knn
    if not 1 <= c.coreset <= c.memory:
        raise UserError(
            f"config.knn.coreset is {c.coreset} and memory {c.memory}, but the coreset is chosen "
            "from the memory: set both to 1 or more, and the memory no smaller than the coreset."
        )
    encoder = Encoder(config, channels=channels)
    # Every feature is drawn if training sees fewer than the memory has room for.
    seen = config.train.batch_size * encoder.size[0] * encoder.size[1]
    steps = max(config.train.steps, 1)  # 0 if the number is not known yet
    each = min(-(-c.memory // steps), seen)
    size = each * steps

    def init(key: Key[Array, ""], features: Features) -> base.TrainState:
        del key
        memory = {kind: jnp.zeros((size, features.shape[-1])) for kind in KINDS}
        memory["image"] = jnp.zeros(size, jnp.int32)
        return base.TrainState(memory, {}, {}, jnp.zeros((), jnp.int32))

    def train_step(
        state: base.TrainState, features: Features, key: Key[Array, ""], *, image: Int[Array, " b"]
    ) -> tuple[base.TrainState, base.Metrics]:
        per_image = features.shape[1] * features.shape[2]
        chosen = jax.random.permutation(key, len(image) * per_image)[:each]
        first = state.step * each
        origin = image[chosen // per_image]
        params = {"image": jax.lax.dynamic_update_slice(state.params["image"], origin, (first,))}
        for kind, vectors in _both(features).items():
            drawn = vectors[chosen]
            place = (first, jnp.zeros((), jnp.int32))
            params[kind] = jax.lax.dynamic_update_slice(state.params[kind], drawn, place)
        norms = jnp.sqrt(jnp.sum(drawn * drawn, axis=1))
        measured = {"feature_norm": (jnp.sum(norms), jnp.float32(each))}
        return state._replace(params=params, step=state.step + 1), measured

    def heldout_loss(state: base.TrainState, features: Features) -> Float[Array, " b"]:
        stride = -(-size // LOOKED_AT)
        some = state.params["fine"][::stride]
        known = jnp.arange(len(some)) * stride < state.step * each
        return jnp.mean(distances(some, features, known=known), axis=(1, 2))

    def finish(
        frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]
    ) -> base.Variables:
        del batches
        filled = each * int(jax.device_get(state.step))
        count = min(c.coreset, filled)
        banks = {}
        for kind in KINDS:
            memory = state.params[kind]
            chosen = coreset(memory, seed=config.seed, filled=filled, count=count)
            banks[kind] = _bank(memory, state.params["image"], chosen, filled=filled)
        return {"encoder": frozen, **banks}

    def without(variables: base.Variables, places: Collection[int]) -> base.Variables:
        # A feature that stays replaces each one that goes. This keeps the distances to the nearest
        # feature, and the shapes of compiled programs.
        left = dict(variables)
        for kind in KINDS:
            keys, image = (np.asarray(variables[kind][k]) for k in ("features", "image"))
            gone = np.isin(image, list(places))
            if gone.all():
                raise UserError(
                    "every feature in the memory comes from images that are held out together: "
                    "train longer, or hold out fewer images at a time."
                )
            kept = np.where(gone[:, None], keys[np.argmin(gone)], keys)
            left[kind] = {**variables[kind], "features": kept}
        return left

    def score(variables: base.Variables, features: Features) -> Float[Array, "b r k"]:
        fine, coarse = (
            distances(jnp.asarray(variables[kind]["features"]), looked_at)
            / variables[kind]["spread"]
            for kind, looked_at in zip(KINDS, (features, pooled(features)), strict=True)
        )
        return fine + COARSE * coarse

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


def _both(features: Features) -> dict[str, Vectors]:
    """Return all features of each kind, image by image, row by row."""
    d = features.shape[-1]
    return {"fine": features.reshape(-1, d), "coarse": pooled(features).reshape(-1, d)}


def distances(
    keys: Float[Array, "m d"], features: Features, *, known: Bool[Array, " m"] | None = None
) -> Float[Array, "b r k"]:
    """Compute the distance of each feature to the nearest known key."""
    b, r, k, d = features.shape
    queries = features.reshape(-1, d)
    beyond = _beyond_own(queries, keys)
    if known is not None:
        beyond = jnp.where(known[None], beyond, jnp.inf)
    squares = jnp.min(beyond, axis=1) + jnp.sum(queries * queries, axis=1)
    return jnp.sqrt(jnp.maximum(squares, 0.0)).reshape(b, r, k)
