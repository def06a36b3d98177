"""The training loop, from the devices to the chosen state."""

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PyTree
from ml_collections import ConfigDict

from recon_ad.data.pipeline import Images, patch_batches, prepared_batches
from recon_ad.methods import WITHOUT_LEARNING
from recon_ad.methods.base import Method, TrainState, Variables
from recon_ad.report import reconstruction_sheet
from recon_ad.report.pictures import encode
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime import stopping
from recon_ad.runtime.checkpoints import Checkpoints
from recon_ad.runtime.compilation import jit_for_one_call
from recon_ad.runtime.writer import Writer, read_log
from recon_ad.training.diagnosis import explained
from recon_ad.training.feature_cache import prepare_all
from recon_ad.training.steps import (
    Meter,
    fetched_means,
    heldout_batches,
    jit_eval_step,
    jit_train_step,
    named_key,
    new_totals,
    speed,
)

logger = logging.getLogger("recon_ad")

WARM_UP, PROFILED = 10, 5  # steps before the profiler starts, and steps that it records

SAMPLES = 8  # patches whose reconstruction is drawn at each held-out evaluation

# Called at each held-out evaluation with the step, the variables and the seconds of training.
Watch = Callable[[int, Variables, float], None]


def fit_state(
    config: ConfigDict,
    workdir: Path,
    images: Images,
    patches: Float[np.ndarray, "n p p c"],
    *,
    method: Method,
    frozen: PyTree,
    profile: bool,
    watch: Watch | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """Run the training loop; return the selected state and, on the first host, the run's record."""
    c = config.train

    # ---- Devices -------------------------------------------------------------------------------
    mesh = meshes.data_mesh()
    everywhere = meshes.replicated(mesh)
    first = meshes.is_first_host()
    # The key is made on each device, because it cannot be sent to other hosts' devices.
    root = jax.jit(functools.partial(jax.random.key, config.seed), out_shardings=everywhere)()

    # ---- Model and optimiser: shapes first, then made directly on the devices ------------------
    size = config.data.patch_size
    frozen = meshes.put_replicated(mesh, frozen)
    one = jax.ShapeDtypeStruct((1, size, size, images.channels), np.float32)
    shapes = jax.eval_shape(method.prepare, frozen, one)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    state = jit_for_one_call(method.init, named_key(root, "init"), zeros, out_shardings=everywhere)
    collects = config.method.name in WITHOUT_LEARNING
    parameters = sum(p.size for p in jax.tree.leaves(state.params))
    logger.info("%s", memory_size(state.params) if collects else f"{parameters} parameters")

    # ---- Steps ---------------------------------------------------------------------------------
    step_fn = jit_train_step(method, augmentations=tuple(config.data.augment), mesh=mesh)
    eval_fn = jit_eval_step(method, mesh=mesh)

    # ---- Restore -------------------------------------------------------------------------------
    checkpoints = Checkpoints(workdir / "checkpoints")
    totals = new_totals()
    start = 0
    if found := checkpoints.latest(state):
        start, state, kept = found
        totals |= kept
        logger.info("resumed at step %d of %d", start, c.steps)
    writer = Writer(workdir, start=start, total=c.steps, collects=collects)

    # ---- Data ----------------------------------------------------------------------------------
    began = time.perf_counter()
    prepared = prepare_all(images, method, frozen, config, mesh)
    totals["train_seconds"] += time.perf_counter() - began
    if prepared is not None:
        batches = prepared_batches(
            prepared,
            numbers=images.numbers,
            seed=config.seed,
            batch_size=c.batch_size,
            start=start,
        )
    else:
        batches = patch_batches(
            images,
            seed=config.seed,
            batch_size=c.batch_size,
            patch_size=size,
            start=start,
            host=jax.process_index(),
            hosts=jax.process_count(),
        )
    held = heldout_batches(patches, batch_size=c.batch_size, mesh=mesh)
    samples = patches[:: max(1, len(patches) // SAMPLES)][:SAMPLES]

    # ---- Loop ----------------------------------------------------------------------------------
    # A checkpoint at step s has everything up to s and nothing of the batch after it. One that is
    # saved on a request to stop has the metrics not logged yet, and no evaluation.
    meter = Meter(totals, batch_size=c.batch_size)
    warm = start + WARM_UP
    profiled = range(warm, min(warm + PROFILED, c.steps)) if profile and first else range(0)
    if profile and first and not profiled:
        logger.warning("fewer than %d steps are left, too few to profile", WARM_UP + 1)
    draw = jax.jit(method.reconstruct) if method.reconstruct and len(samples) else None
    done = start
    with (
        stopping.deferred() as stop,
        contextlib.closing(writer),
        contextlib.closing(checkpoints),
        jax.transfer_guard("disallow"),
    ):
        for step in range(start, c.steps):
            if profiled and step == profiled.start:
                jax.profiler.start_trace(str(workdir / "profile"))
            batch = meter.waiting(batches)
            batch["stop"] = np.full(len(batch["index"]), float(stop.asked), np.float32)
            batch = meshes.put_batch(mesh, batch)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = step_fn(state, frozen, batch, root)
            done = step + 1
            meter.add(done, metrics)
            writer.step_done()
            if profiled and done == profiled.stop:
                jax.block_until_ready(state)
                jax.profiler.stop_trace()
            logs, evals = done % c.log_every == 0, done % c.eval_every == 0 or done == c.steps
            if step == start:
                # The first step of a process compiles. It counts as training time, but not for the
                # throughput.
                meter.stop_clock(steady=False)
                meter.start_clock()
            if logs or evals:
                writer.scalars(done, {f"train_{k}": v for k, v in meter.means().items()})
            if evals:
                meter.stop_clock()  # neither evaluation nor saving is training time
                measured = {"loss": math.inf}  # if every image is trained on
                if held:
                    measured = fetched_means(done, [eval_fn(state, frozen, b) for b in held])
                    writer.scalars(done, {f"heldout_{k}": v for k, v in measured.items()})
                variables = method.finish(frozen, state, ()) if draw or watch else None
                if draw:
                    drawn = jax.device_get(draw(variables, meshes.put_replicated(mesh, samples)))
                    sheet = reconstruction_sheet(samples, drawn)
                    writer.samples(done, sheet, png=encode(sheet, quality=None))
                if watch:
                    with jax.transfer_guard("allow"):  # `watch` may run a detector
                        watch(done, jax.device_get(variables), totals["train_seconds"])
                checkpoints.save(done, state, totals, loss=measured["loss"])
                meter.start_clock()
            if meter.asked_to_stop:
                if not evals:
                    meter.stop_clock()
                    checkpoints.save(done, state, totals, loss=math.inf)
                break

        # ---- Choose ----------------------------------------------------------------------------
        chosen = c.steps
        if c.select == "best" and not meter.asked_to_stop:
            chosen = checkpoints.best() or c.steps
            state = checkpoints.restore(chosen, state)
    stop.asked |= meter.asked_to_stop
    if meshes.asked_anywhere(stop):
        logger.info(
            "stopped on request after step %d; run the same command again to continue", done
        )
        meshes.requeue_all()
    if not first:
        return state, {}  # only the first host has the log
    summary = {
        "steps": c.steps,
        "selected_step": chosen,
        "select": c.select,
        "parameters": parameters,
        "training_images": images.images,
        **speed(totals),
        **explained(read_log(workdir / "log.jsonl"), chosen, patches=chosen * c.batch_size),
    }
    if summary["message"]:
        logger.warning("%s", summary["message"])
    return state, summary


def memory_size(memory: Mapping[str, Array]) -> str:
    """Return the sizes of the arrays that a method collects features in, for the log.

    Arrays of one number for each feature or image are left out.
    """
    sizes = {name: " × ".join(map(str, a.shape)) for name, a in memory.items() if a.ndim > 1}
    return f"memory of features: {', '.join(f'{name} {size}' for name, size in sizes.items())}"
