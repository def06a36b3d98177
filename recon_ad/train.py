"""Trains a method on good images, calibrates it, and evaluates it.

    python -m recon_ad.train --config configs/demo.py --workdir runs/demo

The same command again resumes a run that was stopped, or says that it is complete.
"""

import collections
import contextlib
import functools
import logging
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jaxtyping import Float, PyTree
from ml_collections import ConfigDict, config_flags

from recon_ad import cli, evaluate
from recon_ad.alignment.build_part import ALIGNED, aligned_source, find_part, found_in, identity
from recon_ad.calibrate import calibrate
from recon_ad.config import check_config, check_file
from recon_ad.data import Source, split_holdout
from recon_ad.data.augment import check_names
from recon_ad.data.build import build_source
from recon_ad.data.pipeline import Images, grid_patches, patch_batches, prepared_batches
from recon_ad.data.source import fingerprint, known_again
from recon_ad.detector import Detector, load
from recon_ad.diagnosis import explained
from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.methods.base import Method, TrainState, Variables
from recon_ad.prepared import prepare_all
from recon_ad.report import reconstruction_sheet
from recon_ad.report.pictures import encode
from recon_ad.resuming import same_run
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime import stopping
from recon_ad.runtime.checkpoints import Checkpoints
from recon_ad.runtime.compilation import keep_compiled, run_once
from recon_ad.runtime.writer import Writer, read_log
from recon_ad.steps import (
    Meter,
    eval_step,
    fetched_means,
    heldout_batches,
    named_key,
    new_book,
    speed,
    train_step,
)

logger = logging.getLogger("recon_ad")

WARM_UP, PROFILED = 10, 5  # steps before the profiler starts, and that it looks at
SAMPLES = 8  # patches whose reconstruction is drawn at each held-out evaluation
# Looks on at each held-out evaluation: step, what inference needs, seconds of training so far.
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
    """The training loop: the chosen state and, on the first host, what the run has to tell."""
    c = config.train

    # ---- Devices -------------------------------------------------------------------------------
    mesh = meshes.data_mesh()
    everywhere = meshes.replicated(mesh)
    first = meshes.is_first_host()
    # Made where it is used: a key cannot be sent to other hosts' devices.
    root = jax.jit(functools.partial(jax.random.key, config.seed), out_shardings=everywhere)()

    # ---- Model and optimiser: shapes first, then straight to where they live -------------------
    size = config.data.patch_size
    frozen = meshes.put_replicated(mesh, frozen)
    one = jax.ShapeDtypeStruct((1, size, size, images.channels), np.float32)
    shapes = jax.eval_shape(method.prepare, frozen, one)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    state = run_once(method.init, named_key(root, "init"), zeros, out_shardings=everywhere)
    parameters = sum(p.size for p in jax.tree.leaves(state.params))
    logger.info("%d parameters", parameters)

    # ---- Steps ---------------------------------------------------------------------------------
    step_fn = jax.jit(
        functools.partial(train_step, method=method, augmentations=tuple(config.data.augment)),
        donate_argnums=0,
        out_shardings=everywhere,
    )
    eval_fn = jax.jit(functools.partial(eval_step, method=method), out_shardings=everywhere)

    # ---- Restore -------------------------------------------------------------------------------
    checkpoints = Checkpoints(workdir / "checkpoints")
    book = new_book()
    start = checkpoints.latest() or 0
    if start:
        state, kept = checkpoints.restore(start, state)
        book |= kept
        logger.info("resumed at step %d of %d", start, c.steps)
    writer = Writer(workdir, start=start, total=c.steps)

    # ---- Data ----------------------------------------------------------------------------------
    began = time.perf_counter()
    prepared = prepare_all(images, method, frozen, config, mesh)
    book["train_seconds"] += time.perf_counter() - began
    if prepared is not None:
        batches = prepared_batches(prepared, seed=config.seed, batch_size=c.batch_size, start=start)
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
    # saved because the run was asked to stop has the figures not logged yet, and no evaluation.
    meter = Meter(book, batch_size=c.batch_size)
    warm = start + WARM_UP
    profiled = range(warm, min(warm + PROFILED, c.steps)) if profile and first else range(0)
    if profile and first and not profiled:
        logger.warning("fewer than %d steps are left, too few to profile", WARM_UP + 1)
    draw = jax.jit(method.reconstruct) if method.reconstruct else None
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
                # The first step of a process compiles: it is training time, not throughput.
                meter.stop_clock(steady=False)
                meter.start_clock()
            if logs or evals:
                writer.scalars(done, {f"train_{k}": v for k, v in meter.means().items()})
            if evals:
                meter.stop_clock()  # neither evaluation nor saving is training time
                measured = fetched_means(done, [eval_fn(state, frozen, b) for b in held])
                writer.scalars(done, {f"heldout_{k}": v for k, v in measured.items()})
                variables = method.finish(frozen, state, ()) if draw or watch else None
                if draw:
                    drawn = jax.device_get(draw(variables, meshes.put_replicated(mesh, samples)))
                    sheet = reconstruction_sheet(samples, drawn)
                    writer.samples(done, sheet, png=encode(sheet, quality=None))
                if watch:
                    with jax.transfer_guard("allow"):  # it may run a detector
                        watch(done, jax.device_get(variables), book["train_seconds"])
                checkpoints.save(done, state, book, loss=measured["loss"])
                meter.start_clock()
            if meter.asked_to_stop:
                if not evals:
                    meter.stop_clock()
                    checkpoints.save(done, state, book, loss=math.inf)
                break

        # ---- Choose ----------------------------------------------------------------------------
        chosen = c.steps
        if c.select == "best" and not meter.asked_to_stop:
            chosen = checkpoints.best() or c.steps
            state, _ = checkpoints.restore(chosen, state)
    stop.asked |= meter.asked_to_stop
    if meshes.asked_anywhere(stop):
        logger.info("asked to stop, after step %d: the same command goes on from there", done)
        meshes.requeue_all()
    if not first:
        return state, {}  # the log is the first host's
    story = {
        "steps": c.steps,
        "selected_step": chosen,
        "select": c.select,
        "parameters": parameters,
        "training_images": len(images),
        **speed(book),
        **explained(read_log(workdir / "log.jsonl"), chosen, patches=chosen * c.batch_size),
    }
    if story["message"]:
        logger.warning("%s", story["message"])
    return state, story


def train(
    config: ConfigDict,
    workdir: Path | str,
    *,
    source: Source | None = None,
    profile: bool = False,
    watch: Watch | None = None,
) -> Detector:
    """Trains, or resumes, and calibrates; the detector is in `workdir/detector` afterwards.

    Args:
      config: see configs/default.py.
      workdir: directory of this run; made if absent.
      source: images, where they are not what the config names.
      profile: writes a profile of a few steps to `workdir/profile`.
      watch: called at each held-out evaluation; its time is no training time. After a resumption it
        may see a step again.

    Raises:
      UserError: the config, the images or the workdir do not fit; the sentence says how.
      FloatingPointError: a loss became NaN or infinite.
    """
    workdir = Path(workdir)
    check_config(config)
    check_names(config.data.augment)
    source = source or build_source(config)
    resized = any(config.data.resize)
    raw, part = source.train, find_part(config, source.train)
    data = {"good_images": len(raw), "fingerprint": fingerprint(raw), **identity(part, config)}
    if meshes.agreed((workdir / "detector" / "detector.json").is_file()):
        # In which images the part is found follows from all that: none is registered again.
        same_run(workdir, config, data, unknown=[ALIGNED])
        logger.info("training in %s is complete", workdir)
        return load(workdir / "detector")
    source = aligned_source(source, part)
    for note in source.notes:
        logger.warning("%s", note)
    counts = collections.Counter(record.category for record in source.train)
    if resized and 1 in counts.values():
        of = "" if len(counts) == 1 else f" of {min(counts, key=counts.__getitem__)}"
        raise UserError(
            f"there is 1 good image{of}, and a region of it, held out for calibration, cannot be "
            "resized as the whole is: give more images, or leave out config.data.resize."
        )
    holdout = split_holdout(
        source.train,
        fraction=config.holdout.fraction,
        group=config.holdout.group,
        few=0 if resized else config.holdout.few,
        gap=config.data.patch_size,
        min_side=config.data.patch_size,
    )
    images = Images(
        holdout.train,
        size=tuple(config.data.resize) if resized else None,
        patch_size=config.data.patch_size,
        memory_mib=config.data.cache_mib,
        disk_mib=config.data.disk_cache_mib,
    )
    patches = grid_patches(
        holdout.heldout,
        size=tuple(config.data.resize) if resized else None,
        patch_size=config.data.patch_size,
        limit=config.train.heldout_patches,
    )
    method = build_method(config, channels=images.channels)
    meshes.check_batch_size(config.train.batch_size, meshes.data_mesh())
    frozen, origin = method.pretrained()
    # Only now, when all of it is known to fit: a mistake that was put right is no other config.
    same_run(workdir, config, data | found_in(part, source.train))
    logger.info("held out for calibration: %s", holdout.how)
    state, story = fit_state(
        config, workdir, images, patches, method=method, frozen=frozen, profile=profile, watch=watch
    )
    size = config.train.batch_size
    heldout = [patches[i : i + size] for i in range(0, len(patches), size)]
    variables = jax.device_get(method.finish(frozen, state, heldout))

    def calibrate_and_save() -> None:
        detector = Detector(
            config,
            channels=images.channels,
            variables=variables,
            record={"training": story, "notes": list(source.notes), "pretrained": origin}
            | {"learnt_from": known_again(raw, kept=source.train, but=holdout.heldout)},
        )
        calibrated = calibrate(
            detector,
            holdout.heldout,
            fpr=config.calibration.fpr,
            how=holdout.how,
            regions_per_image=holdout.regions_per_image,
            of_regions=any(record.load_roi for record in raw),
        )
        calibrated.with_part(part).save(workdir / "detector")

    with meshes.stopping_together() as stop:
        meshes.on_first_host(calibrate_and_save)
        logger.info("detector: %s", workdir / "detector")
        detector = load(workdir / "detector")
        meshes.stop_together(stop)
    return detector


def _evaluate_once(workdir: Path) -> None:
    if meshes.agreed(all((workdir / name).is_file() for name in ("metrics.json", "report.html"))):
        logger.info("the run in %s is complete; see %s", workdir, workdir / "report.html")
    else:
        evaluate.evaluate_workdir(workdir)


def main() -> None:
    """The command."""
    keep_compiled()
    meshes.initialize_distributed()
    signal.signal(signal.SIGTERM, stopping.requeue)  # JAX's own handler would only take note
    if not meshes.is_first_host():
        logger.setLevel(logging.WARNING)  # the first host tells how it goes
    workdir = Path(_WORKDIR.value)
    # ml_collections reports a missing file only when a field is first asked for.
    check_file(config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0])
    train(_CONFIG.value, workdir, profile=_PROFILE.value)
    if _STOP_AFTER.value != "train":
        _evaluate_once(workdir)


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
    flags.mark_flag_as_required("config")
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    _PROFILE = flags.DEFINE_bool("profile", False, "Profile a few steps to WORKDIR/profile.")
    _STOP_AFTER = flags.DEFINE_enum("stop_after", "", ["", "train"], "train: do not evaluate.")
    with meshes.ending_at_once():
        cli.run(main)
