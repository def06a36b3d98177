"""One step of training or of held-out evaluation, and the sums of its metrics.

Batches are dicts of arrays: `image` float32 [b, h, w, c] in [0, 1]; in training also `index` [b]
and `number` [b], the place of the image; in evaluation also `mask` [b].
"""

import functools
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key, PyTree

from recon_ad.data.augment import augment
from recon_ad.methods.base import KEPT, Method, Metrics, TrainState, masked_mean
from recon_ad.runtime import mesh as meshes

_Batch = TypeVar("_Batch")


def named_key(root: Key[Array, ""], name: str) -> Key[Array, ""]:
    """Return an independent random key for each use, so that a new use changes no other."""
    return jax.random.fold_in(root, zlib.crc32(name.encode()))


def train_step(
    state: TrainState,
    frozen: PyTree,
    batch: dict[str, PyTree],
    key: Key[Array, ""],
    *,
    method: Method,
    augmentations: tuple[str, ...],
) -> tuple[TrainState, Metrics]:
    """Run one training step. Randomness is keyed by the step number.

    The step augments and prepares the batch and runs the method's own step. A batch that is already
    prepared has `prepared` and no `image`. If the batch has `stop`, the metrics have it too:
    whether any host was asked to stop.
    """
    if "prepared" in batch:
        prepared = batch["prepared"]
    else:
        index, names = batch["index"], augmentations
        images = augment(named_key(key, "augment"), batch["image"], index, names=names)
        prepared = method.prepare(frozen, images)
    step_key = jax.random.fold_in(named_key(key, "train"), state.step)
    named = {"image": batch["number"]} if method.without else {}
    state, metrics = method.train_step(state, prepared, step_key, **named)
    if "stop" in batch:
        metrics |= {"stop": masked_mean(batch["stop"], jnp.ones(batch["stop"].shape, bool))}
    return state, metrics


@functools.lru_cache(maxsize=KEPT)
def jit_train_step(method: Method, *, augmentations: tuple[str, ...], mesh: Mesh) -> Any:
    """Return the compiled `train_step`, which donates the old state and replicates the new one."""
    return jax.jit(
        functools.partial(train_step, method=method, augmentations=augmentations),
        donate_argnums=0,
        out_shardings=meshes.replicated(mesh),
    )


def eval_step(
    state: TrainState, frozen: PyTree, batch: dict[str, Array], *, method: Method
) -> Metrics:
    """Return the method's held-out metrics; `mask` is False for padding."""
    return method.eval_step(state, method.prepare(frozen, batch["image"]), batch["mask"])


@functools.lru_cache(maxsize=KEPT)
def jit_eval_step(method: Method, *, mesh: Mesh) -> Any:
    """Return the compiled `eval_step`, whose metrics are on all devices."""
    evaluate = functools.partial(eval_step, method=method)
    return jax.jit(evaluate, out_shardings=meshes.replicated(mesh))


def heldout_batches(
    patches: Float[np.ndarray, "n p p c"], *, batch_size: int, mesh: Mesh
) -> list[dict[str, Array]]:
    """Put the held-out patches on the devices, with the last batch padded and masked."""
    batches = []
    local = batch_size // jax.process_count()
    for first in range(0, len(patches), batch_size):
        index = first + jax.process_index() * local + np.arange(local)
        image = patches[np.minimum(index, len(patches) - 1)]
        batches.append(meshes.put_batch(mesh, {"image": image, "mask": index < len(patches)}))
    return batches


def summed(metrics: Sequence[dict[str, Sequence[Any]]]) -> dict[str, float]:
    """Combine the (sum, count) pairs of several batches into one figure each.

    Metrics with count 0 are left out. Images without any variance, for example, have no unexplained
    share of it.
    """
    totals = {
        name: np.sum([np.asarray(m[name], np.float64) for m in metrics], axis=0)
        for name in metrics[0]
    }
    return {name: float(total / count) for name, (total, count) in totals.items() if count}


def fetched_means(step: int, metrics: Sequence[Metrics]) -> dict[str, float]:
    """Fetch metrics from the devices and sum them (`summed`), with `check_finite`'s errors."""
    fetched = jax.device_get(metrics)
    for part in fetched:
        check_finite(step, part)
    return summed(fetched)


def check_finite(step: int, metrics: dict[str, Sequence[Any]]) -> None:
    """Raise FloatingPointError with the step's number if a metric is NaN or infinite."""
    for name, (total, _) in metrics.items():
        if not np.isfinite(total):
            raise FloatingPointError(
                f"{name} is {total} at step {step}: lower config.optim.learning_rate. The last "
                "checkpoint is from before this step."
            )


def new_totals() -> dict[str, Any]:
    """Return the initial bookkeeping of a run's times and metrics.

    `train_seconds` covers all steps. The `steady` seconds, patches and waiting times cover only
    steps that did not compile. `steady_waited` is the time that the loop waited for its next batch.
    The devices may still have been running the previous step, so they were idle for at most that
    long. `window` holds the metrics of steps that are not in the log yet.
    """
    times = ("train_seconds", "steady_seconds", "steady_patches", "steady_waited")
    return dict.fromkeys(times, 0.0) | {"window": []}


def speed(totals: dict[str, Any]) -> dict[str, float | None]:
    """Return the times for a run's record; rates are None if every step compiled."""
    seconds = totals["steady_seconds"]
    return {
        "train_seconds": totals["train_seconds"],
        "patches_per_second": totals["steady_patches"] / seconds if seconds else None,
        "waited_for_data": totals["steady_waited"] / seconds if seconds else None,
    }


class Meter:
    """Meter of metrics and times, which fetches metrics one step late so that no device waits.

    `asked_to_stop` is whether some host was asked to stop, as of the fetched steps. All hosts see
    it at the same step.

    Args:
      totals: Bookkeeping of the run, from `new_totals` or a checkpoint, which is updated in place.
      batch_size: Patches per step.
    """

    def __init__(self, totals: dict[str, Any], *, batch_size: int):
        self._totals = totals
        self._waited = 0.0
        self._batch_size = batch_size
        self._pending: tuple[int, Metrics] | None = None
        self._window: list[dict[str, list[float]]] = totals["window"]
        self.asked_to_stop = False
        self._steps = 0
        self._start = time.perf_counter()

    def waiting(self, batches: Iterator[_Batch]) -> _Batch:
        """Return the next batch and record the time that it takes."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def add(self, step: int, metrics: Metrics) -> None:
        """Take a step's metrics and fetch those of the step before."""
        self.fetch()
        self._pending = (step, metrics)
        self._steps += 1

    def fetch(self) -> None:
        """Wait for the metrics that are still on the devices; raise if one is not finite."""
        if self._pending is not None:
            step, metrics = self._pending
            self._pending = None
            # Plain numbers, because the window is saved in checkpoints.
            fetched = {k: [float(x) for x in v] for k, v in jax.device_get(metrics).items()}
            self.asked_to_stop |= fetched.pop("stop", [0.0])[0] > 0
            check_finite(step, fetched)
            self._window.append(fetched)

    def means(self) -> dict[str, float]:
        """Return the mean of each metric over the steps since the last call."""
        self.fetch()
        means = summed(self._window)
        self._window.clear()
        return means

    def start_clock(self) -> None:
        """Count the time from here on as training time."""
        self._start, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def stop_clock(self, *, steady: bool = True) -> None:
        """Record the time since `start_clock`; it is `steady` unless a step in it was compiled."""
        self.fetch()
        seconds = time.perf_counter() - self._start
        self._totals["train_seconds"] += seconds
        if steady:
            self._totals["steady_seconds"] += seconds
            self._totals["steady_patches"] += self._steps * self._batch_size
            self._totals["steady_waited"] += self._waited
