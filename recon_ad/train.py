"""Trains a method on good images, calibrates it, and evaluates it.

    python -m recon_ad.train --config configs/demo.py --workdir runs/demo

The same command again resumes a run that was stopped, or says that it is complete.
"""

import contextlib
import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jaxtyping import Float, PyTree
from ml_collections import ConfigDict, config_flags

from recon_ad import cli, evaluate
from recon_ad.calibrate import calibrate
from recon_ad.config import check_config, check_file, differences
from recon_ad.data import Source, split_holdout
from recon_ad.data.augment import check_names
from recon_ad.data.build import build_source
from recon_ad.data.pipeline import Images, grid_patches, patch_batches
from recon_ad.data.source import fingerprint
from recon_ad.detector import Detector, load
from recon_ad.diagnosis import verdict
from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.methods.base import Method, TrainState, Variables
from recon_ad.report import reconstruction_sheet
from recon_ad.report.pictures import encode
from recon_ad.runtime import files
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime.checkpoints import Checkpoints
from recon_ad.runtime.compilation import keep_compiled
from recon_ad.runtime.writer import Writer, read_log
from recon_ad.steps import (
    Meter,
    check_finite,
    eval_step,
    heldout_batches,
    named_key,
    new_book,
    summed,
    train_step,
)

logger = logging.getLogger("recon_ad")

WARM_UP, PROFILED = 10, 5  # steps before the profiler starts, and that it looks at
SAMPLES = 8  # patches whose reconstruction is drawn at each held-out evaluation
# Looks on at each held-out evaluation: step, what inference needs, seconds of training so far.
Watch = Callable[[int, Variables, float], None]


def check_same_run(workdir: Path, name: str, content: dict[str, Any]) -> None:
    """Writes workdir/name, or checks that the run in the workdir began with the same.

    Raises:
      UserError: it began with another; says in what they differ.
    """
    path = workdir / name
    if not path.is_file():
        files.write_json(path, content)
        return
    try:
        before = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}): choose another --workdir.") from None
    changed = differences(before, content)
    if changed:
        raise UserError(
            f"{workdir} holds a run with another {path.stem} ({'; '.join(changed[:5])}): "
            "choose another --workdir, or delete this one to start anew."
        )


def fit_state(
    config: ConfigDict,
    workdir: Path,
    images: Images,
    patches: Float[np.ndarray, "n p p c"],
    *,
    method: Method,
    profile: bool,
    watch: Watch | None = None,
) -> tuple[TrainState, dict[str, Any]]:
    """The training loop: the chosen state and what the run has to tell."""
    c = config.train

    # ---- Devices -------------------------------------------------------------------------------
    mesh = meshes.data_mesh()
    everywhere = meshes.replicated(mesh)
    root = jax.random.key(config.seed)

    # ---- Model and optimiser: shapes first, then straight to where they live -------------------
    size = config.data.patch_size
    frozen: PyTree = {}
    one = jax.ShapeDtypeStruct((1, size, size, images.channels), np.float32)
    prepared = jax.eval_shape(method.prepare, frozen, one)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), prepared)
    state = jax.jit(method.init, out_shardings=everywhere)(named_key(root, "init"), zeros)
    logger.info("%d parameters", sum(p.size for p in jax.tree.leaves(state.params)))

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
        state, book = checkpoints.restore(start, state)
        logger.info("resumed at step %d of %d", start, c.steps)
    writer = Writer(workdir, start=start, total=c.steps)

    # ---- Data ----------------------------------------------------------------------------------
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
    # At a checkpoint the order is: fetch what is pending, evaluate, save; then the next batch.
    # A checkpoint at step s thus has everything up to s and nothing of the batch after it.
    meter = Meter(book, batch_size=c.batch_size)
    first = start + WARM_UP
    profiled = range(first, min(first + PROFILED, c.steps)) if profile else range(0)
    if profile and not profiled:
        logger.warning("fewer than %d steps are left, too few to profile", WARM_UP + 1)
    draw = jax.jit(method.reconstruct) if method.reconstruct else None
    key = jax.device_put(root, everywhere)
    with (
        contextlib.closing(writer),
        contextlib.closing(checkpoints),
        jax.transfer_guard("disallow"),
    ):
        for step in range(start, c.steps):
            if profiled and step == profiled.start:
                jax.profiler.start_trace(str(workdir / "profile"))
            batch = meshes.put_batch(mesh, meter.waiting(batches))
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = step_fn(state, frozen, batch, key)
            done = step + 1
            meter.add(done, metrics)
            writer.step_done()
            if profiled and done == profiled.stop:
                meter.fetch()
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
                measured = [jax.device_get(eval_fn(state, frozen, b)) for b in held]
                for part in measured:
                    check_finite(done, part)  # before anything of it is kept
                measured = summed(measured)
                writer.scalars(done, {f"heldout_{k}": v for k, v in measured.items()})
                variables = method.finish(frozen, state, ()) if draw or watch else None
                if draw:
                    shown = jax.device_get(draw(variables, jax.device_put(samples, everywhere)))
                    sheet = reconstruction_sheet(samples, shown)
                    files.write_bytes(
                        workdir / "samples" / f"step_{done:07d}.png", encode(sheet, quality=None)
                    )
                    writer.image(done, "reconstructions", sheet)
                if watch:
                    with jax.transfer_guard("allow"):  # it may run a detector
                        watch(done, jax.device_get(variables), book["train_seconds"])
                # A copy: the checkpoint is written while training goes on.
                checkpoints.save(done, state, dict(book), loss=measured["loss"])
                meter.start_clock()

        # ---- Choose ----------------------------------------------------------------------------
        chosen = c.steps
        if c.select == "best":
            chosen = checkpoints.best() or c.steps
            state, _ = checkpoints.restore(chosen, state)
    log = [e for e in read_log(workdir / "log.jsonl") if "heldout_loss" in e]
    story = {
        "steps": c.steps,
        "selected_step": chosen,
        "select": c.select,
        "parameters": sum(p.size for p in jax.tree.leaves(state.params)),
        "training_images": len(images),
        "train_seconds": book["train_seconds"],
        "patches_per_second": (
            book["steady_patches"] / book["steady_seconds"] if book["steady_seconds"] else None
        ),
        "waited_for_data": (
            book["steady_waited"] / book["steady_seconds"] if book["steady_seconds"] else None
        ),
    }
    entry = next(e for e in log if e["step"] == chosen)
    story |= {"explained_variance": None, "message": ""}
    if "heldout_unexplained_variance" in entry:
        story["explained_variance"] = 1 - entry["heldout_unexplained_variance"]
        story["message"] = verdict(
            story["explained_variance"],
            [e["heldout_loss"] for e in log],
            patches=chosen * c.batch_size,
        )
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
    for note in source.notes:
        logger.warning("%s", note)
    resized = any(config.data.resize)
    if resized and len(source.train) == 1:
        raise UserError(
            "there is 1 good image, and a region of it, held out for calibration, cannot be "
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
    # Only now, when all of it is known to fit: a mistake that was put right is no other config.
    check_same_run(workdir, "config.json", json.loads(config.to_json()))
    data = {"good_images": len(source.train), "fingerprint": fingerprint(source.train)}
    check_same_run(workdir, "data.json", data)
    if (workdir / "detector" / "detector.json").is_file():
        logger.info("training in %s is complete", workdir)
        return load(workdir / "detector")

    logger.info("held out for calibration: %s", holdout.how)
    state, story = fit_state(
        config, workdir, images, patches, method=method, profile=profile, watch=watch
    )
    size = config.train.batch_size
    heldout = [patches[i : i + size] for i in range(0, len(patches), size)]
    detector = Detector(
        config,
        channels=images.channels,
        variables=jax.device_get(method.finish({}, state, heldout)),
        record={"training": story, "notes": list(source.notes)},
    )
    detector = calibrate(
        detector,
        holdout.heldout,
        fpr=config.calibration.fpr,
        how=holdout.how,
        regions_per_image=holdout.regions_per_image,
    )
    detector.save(workdir / "detector")
    return detector


def main() -> int | None:
    """The command."""
    keep_compiled()
    meshes.initialize_distributed()
    workdir = Path(_WORKDIR.value)
    # ml_collections reports a missing file only when a field is first asked for.
    path, _, _ = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    check_file(path)
    train(_CONFIG.value, workdir, profile=_PROFILE.value)
    if _STOP_AFTER.value == "train":
        return None
    if (workdir / "metrics.json").is_file() and (workdir / "report.html").is_file():
        logger.info("the run in %s is complete; see %s", workdir, workdir / "report.html")
        return None
    evaluate.evaluate_workdir(workdir)
    return None


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
    flags.mark_flag_as_required("config")
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    _PROFILE = flags.DEFINE_bool("profile", False, "Profile a few steps to WORKDIR/profile.")
    _STOP_AFTER = flags.DEFINE_enum(
        "stop_after", "", ["", "train"], "`train` leaves out the evaluation."
    )
    cli.run(main)
