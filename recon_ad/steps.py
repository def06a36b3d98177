"""What one step of training or of held-out evaluation does, and how its figures add up.

Batches are dicts of arrays: `image` float32 [b, h, w, c] in [0, 1], with `index` [b] in training
and `mask` [b] in evaluation.
"""

import zlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from recon_ad.data.augment import augment
from recon_ad.methods.base import Method, Metrics, TrainState
from recon_ad.runtime import mesh as meshes


def named_key(root: Key[Array, ""], name: str) -> Key[Array, ""]:
    """A stream of randomness of its own for each use, so that a new use changes no other."""
    return jax.random.fold_in(root, zlib.crc32(name.encode()))


def train_step(
    state: TrainState,
    frozen: PyTree,
    batch: dict[str, Array],
    key: Key[Array, ""],
    *,
    method: Method,
    augmentations: tuple[str, ...],
) -> tuple[TrainState, Metrics]:
    """Augments, prepares, and lets the method take its step; what is random hangs on the step."""
    images = augment(named_key(key, "augment"), batch["image"], batch["index"], names=augmentations)
    step_key = jax.random.fold_in(named_key(key, "train"), state.step)
    return method.train_step(state, method.prepare(frozen, images), step_key)


def eval_step(
    state: TrainState, frozen: PyTree, batch: dict[str, Array], *, method: Method
) -> Metrics:
    """The method's held-out metrics; `mask` is False for padding."""
    return method.eval_step(state, method.prepare(frozen, batch["image"]), batch["mask"])


def heldout_batches(
    patches: Float[np.ndarray, "n p p c"], *, batch_size: int, mesh: Mesh
) -> list[dict[str, Array]]:
    """The held-out patches on the devices, the last batch padded and masked."""
    batches = []
    local = batch_size // jax.process_count()
    for first in range(0, len(patches), batch_size):
        index = first + jax.process_index() * local + np.arange(local)
        image = patches[np.minimum(index, len(patches) - 1)]
        batches.append(meshes.put_batch(mesh, {"image": image, "mask": index < len(patches)}))
    return batches


def summed(metrics: list[dict[str, tuple[Any, Any]]]) -> dict[str, float]:
    """(sum, count) pairs of several batches to one figure each."""
    totals = {
        name: np.sum([np.asarray(m[name], np.float64) for m in metrics], axis=0)
        for name in metrics[0]
    }
    return {name: float(total / count) for name, (total, count) in totals.items()}


def check_finite(step: int, metrics: dict[str, tuple[Any, Any]]) -> None:
    """Raises FloatingPointError, naming the step, where a metric is NaN or infinite."""
    for name, (total, _) in metrics.items():
        if not np.isfinite(total):
            raise FloatingPointError(
                f"{name} is {total} at step {step}: lower config.optim.learning_rate, or look at "
                "the training images of that batch; the last checkpoint is from before."
            )
