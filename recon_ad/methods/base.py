"""The contract between a method and everything else: one record of pure functions.

Batches of images are float32 NHWC in [0, 1], a tile each; anomaly maps are float32 [b, h, w], raw,
unbounded, of the tile's height and width, higher is more anomalous. A metric is (sum, count): it is
added up over batches, devices and hosts and divided once, so it is exact however the data is cut.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.ops.tiles import Geometry

ROUNDING = 1e-6  # of a float32 mean of values in [0, 1]
Variables = Mapping[str, PyTree]  # what inference needs, nothing of the optimiser
Batch = PyTree
Metrics = dict[str, tuple[Array, Array]]


class TrainState(NamedTuple):
    """All that training changes, as one pytree.

    Attributes:
      params: every trained network; a method with several keeps them in one dict.
      batch_stats: running statistics, {} where a method has none.
      opt_state: of every optimiser.
      step: number of finished steps, int32 scalar.
    """

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    step: Int[Array, ""]


class Method(NamedTuple):
    """A method is data; the trainer and the detector know nothing else of it.

    Attributes:
      pretrained: () -> (frozen, origin): weights that are not trained, from where the config says,
        and what there is to tell of them, plain JSON; both {} where a method has none. Raises
        UserError where they cannot be had.
      prepare: (frozen, images) -> batch. The identity for methods on pixels.
      init: (key, example batch) -> TrainState.
      train_step: (state, batch, key) -> (TrainState, metrics). A method with `without` is given
        `image`, too, an Int[b]: the places of the batch's images among those that it is trained on.
      eval_step: (state, batch, mask [b]) -> metrics; deterministic. `loss` picks the best
        checkpoint; a method that reconstructs pixels also gives `unexplained_variance`
        (see `unexplained_variance` below).
      finish: (frozen, state, batches) -> Variables. On the host, after training, with batches of
        held-out good patches for what is set by them; and, without any, where only the
        reconstruction is wanted.
      anomaly_map: (variables, images) -> Float[b h w].
      reconstruct: (variables, images) -> Float[b h w c], or None where there is none.
      geometry: how images are tiled.
      encode: (variables, images) -> Float[b n], or None where there is no code.
      protocol: what an evaluation's protocol says of it beside the config, plain JSON.
      without: (variables, places) -> variables as if the images at these places had not been in the
        training, at next to no cost; None where that takes another training.
    """

    pretrained: Callable[[], tuple[PyTree, dict[str, Any]]]
    prepare: Callable[[PyTree, Float[Array, "b h w c"]], Batch]
    init: Callable[[Key[Array, ""], Batch], TrainState]
    train_step: Callable[..., tuple[TrainState, Metrics]]
    eval_step: Callable[[TrainState, Batch, Bool[Array, " b"]], Metrics]
    finish: Callable[[PyTree, TrainState, Iterable[Batch]], Variables]
    anomaly_map: Callable[[Variables, Float[Array, "b h w c"]], Float[Array, "b h w"]]
    reconstruct: Callable[[Variables, Float[Array, "b h w c"]], Float[Array, "b h w c"]] | None
    geometry: Geometry
    encode: Callable[[Variables, Float[Array, "b h w c"]], Float[Array, "b n"]] | None
    protocol: Mapping[str, Any]
    without: Callable[[Variables, Collection[int]], Variables] | None = None


def masked_mean(values: Float[Array, " b"], mask: Bool[Array, " b"]) -> tuple[Array, Array]:
    """The metric (sum, count) of one value per example, where `mask` is False for padding."""
    return jnp.sum(jnp.where(mask, values, 0.0)), jnp.sum(mask.astype(jnp.float32))


def unexplained_variance(
    images: Float[Array, "b h w c"],
    reconstructions: Float[Array, "b h w c"],
    mask: Bool[Array, " b"],
) -> tuple[Array, Array]:
    """(Σ(x − x̂)², Σ(x − mean of its patch)²): as a metric, one minus the explained variance.

    The mean is per patch and channel: a model that paints each patch in its own mean colour
    explains nothing.
    """
    spread = images - jnp.mean(images, axis=(1, 2), keepdims=True)
    # A constant patch differs from its mean by rounding only; that is no variance to explain.
    spread = jnp.where(jnp.abs(spread) < ROUNDING, 0.0, spread)
    residual, _ = masked_mean(jnp.sum((images - reconstructions) ** 2, axis=(1, 2, 3)), mask)
    total, _ = masked_mean(jnp.sum(spread**2, axis=(1, 2, 3)), mask)
    return residual, total


def apply_gradients(
    tx: optax.GradientTransformation, state: TrainState, grads: PyTree, batch_stats: PyTree
) -> TrainState:
    """The state after one optimiser step."""
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, batch_stats, opt_state, state.step + 1)


def learning_rate(
    config: ConfigDict, *, updates: int = 1, end: float = 0.0
) -> optax.ScalarOrSchedule:
    """The rate, which rises linearly for `optim.warmup` steps, then stays or falls by a cosine.

    Args:
      config: of the run; `config.optim` counts.
      updates: how many the optimiser makes in a training step.
      end: share of the rate that the cosine ends at.
    """
    optim = config.optim
    rate, warmup = optim.learning_rate, optim.warmup * updates
    if optim.schedule == "cosine":
        last = max(config.train.steps, optim.warmup + 1) * updates
        return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, last, end * rate)
    return optax.warmup_constant_schedule(0.0, rate, warmup) if warmup else rate


def build_optimizer(config: ConfigDict, *, updates: int = 1) -> optax.GradientTransformation:
    """Adam at the `learning_rate` of that config; a cosine ends at zero."""
    return optax.adam(learning_rate(config, updates=updates))


def check_patch_size(config: ConfigDict, *, multiple: int) -> None:
    """Raises UserError where the network cannot halve the patch as often as it does."""
    size = config.data.patch_size
    if size % multiple or size <= 0:
        raise UserError(
            f"config.data.patch_size is {size}, but method {config.method.name} needs a multiple "
            f"of {multiple}: choose 64, 128 or 256, for example."
        )


def check_code(config: ConfigDict) -> None:
    """Raises UserError where the code would be empty."""
    if config.method.n_z < 1:
        raise UserError(f"config.method.n_z is {config.method.n_z}; a code has 1 number or more.")


def tile_geometry(config: ConfigDict) -> Geometry:
    """Overlapping tiles of the training patch's size, as `config.inference` and `.data` say.

    Raises:
      UserError: the stride is larger than the patch size.
    """
    tile = config.data.patch_size
    stride = config.inference.stride or tile
    if not 0 <= stride <= tile:
        raise UserError(
            f"config.inference.stride is {stride}, but tiles of {tile} px need one from 1 to "
            f"{tile}, or 0 for no overlap: pixels between the tiles would have no score."
        )
    resize = tuple(config.data.resize)
    return Geometry(
        tile=(tile, tile),
        stride=(stride, stride),
        weights=config.inference.tile_weights,
        resize=resize if any(resize) else None,
    )
