"""The contract between a method and everything else: one record of pure functions.

Batches of images are float32 NHWC in [0, 1], and each image is a tile. Anomaly maps are float32
[b, h, w], raw and unbounded, with the tile's height and width; higher is more anomalous. A metric
is (sum, count): it is summed over batches, devices and hosts and divided once, so it is exact
however the data is split.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.ops.tiles import Geometry

KEPT = 8  # methods whose compiled functions are kept in a process
ROUNDING = 1e-6  # rounding error of a float32 mean of values in [0, 1]
Variables = Mapping[str, PyTree]  # all that inference needs, nothing of the optimiser
Batch = PyTree
Metrics = dict[str, tuple[Array, Array]]


class TrainState(NamedTuple):
    """Everything that training changes, as one pytree.

    Attributes:
      params: Every trained network. A method with several networks keeps them in one dict.
      batch_stats: Running statistics, {} if a method has none.
      opt_state: State of every optimiser.
      step: Number of finished steps, int32 scalar.
    """

    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    step: Int[Array, ""]


class Method(NamedTuple):
    """Record of a method; the trainer and the detector know nothing else of it.

    Records are equal if they are the same object, because functions cannot be compared.

    Attributes:
      pretrained: () -> (frozen, origin). Frozen holds the weights that are not trained, from the
        source in the config; origin describes them as plain JSON. Both are {} if a method has none.
        Raises UserError if the weights are not available.
      prepare: (frozen, images) -> batch. The identity for methods on pixels.
      init: (key, example batch) -> TrainState.
      train_step: (state, batch, key) -> (TrainState, metrics). A method with `without` also
        receives `image`, an Int[b]: the places of the batch's images among the training images.
      eval_step: (state, batch, mask [b]) -> metrics; deterministic. `loss` selects the best
        checkpoint. A method that reconstructs pixels also returns `unexplained_variance`
        (see `unexplained_variance` below).
      finish: (frozen, state, batches) -> Variables. Runs on the host after training, with batches
        of held-out good patches for values that are set by them. It also runs without batches if
        only the reconstruction is needed.
      anomaly_map: (variables, images) -> Float[b h w].
      reconstruct: (variables, images) -> Float[b h w c]. None if the method does not reconstruct.
      geometry: Tiling of the images.
      encode: (variables, images) -> Float[b n]. None if the method has no code.
      protocol: Entries of an evaluation's protocol beside the config, plain JSON.
      without: (variables, places) -> variables as if training had not included the images at these
        places, at next to no cost. None if that would need another training.
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

    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__


def masked_mean(values: Float[Array, " b"], mask: Bool[Array, " b"]) -> tuple[Array, Array]:
    """Return the metric (sum, count) of one value per example; `mask` is False for padding."""
    return jnp.sum(jnp.where(mask, values, 0.0)), jnp.sum(mask.astype(jnp.float32))


def unexplained_variance(
    images: Float[Array, "b h w c"],
    reconstructions: Float[Array, "b h w c"],
    mask: Bool[Array, " b"],
) -> tuple[Array, Array]:
    """Return the metric (Σ(x − x̂)², Σ(x − mean of its patch)²), one minus the explained variance.

    The mean is per patch and channel, so a model that fills each patch with its mean colour
    explains nothing.
    """
    spread = images - jnp.mean(images, axis=(1, 2), keepdims=True)
    # A constant patch differs from its mean only by rounding, which is no variance to explain.
    spread = jnp.where(jnp.abs(spread) < ROUNDING, 0.0, spread)
    residual, _ = masked_mean(jnp.sum((images - reconstructions) ** 2, axis=(1, 2, 3)), mask)
    total, _ = masked_mean(jnp.sum(spread**2, axis=(1, 2, 3)), mask)
    return residual, total


def apply_gradients(
    tx: optax.GradientTransformation, state: TrainState, grads: PyTree, batch_stats: PyTree
) -> TrainState:
    """Return the state after one optimiser step."""
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, batch_stats, opt_state, state.step + 1)


def learning_rate(
    config: ConfigDict, *, updates: int = 1, end: float = 0.0
) -> optax.ScalarOrSchedule:
    """Return the rate or its schedule.

    The rate rises linearly for `optim.warmup` steps, then stays constant or falls by a cosine.

    Args:
      config: Config of the run, of which `config.optim` and `train.steps` are used.
      updates: Number of optimiser updates in a training step.
      end: Final rate of the cosine as a share of the highest rate.
    """
    optim = config.optim
    rate, warmup = optim.learning_rate, optim.warmup * updates
    if optim.schedule == "cosine":
        last = max(config.train.steps, optim.warmup + 1) * updates
        return optax.warmup_cosine_decay_schedule(0.0, rate, warmup, last, end * rate)
    return optax.warmup_constant_schedule(0.0, rate, warmup) if warmup else rate


def build_optimizer(config: ConfigDict, *, updates: int = 1) -> optax.GradientTransformation:
    """Build Adam at the config's `learning_rate`, where a cosine ends at zero."""
    return optax.adam(learning_rate(config, updates=updates))


def check_patch_size(config: ConfigDict, *, multiple: int) -> None:
    """Raise UserError if the patch cannot be halved as often as the network does."""
    size = config.data.patch_size
    if size % multiple or size <= 0:
        raise UserError(
            f"config.data.patch_size is {size}, but method {config.method.name} needs a multiple "
            f"of {multiple}: choose 64, 128 or 256, for example."
        )


def check_code(config: ConfigDict) -> None:
    """Raise UserError if the code would be empty."""
    if config.method.n_z < 1:
        raise UserError(f"config.method.n_z is {config.method.n_z}, but must be 1 or more.")


def tile_geometry(config: ConfigDict) -> Geometry:
    """Return the geometry of overlapping tiles of the training patch's size.

    `config.inference` gives the stride and the weights, `config.data` the sizes.

    Raises:
      UserError: If the stride is larger than the patch size.
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
