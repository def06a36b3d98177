"""A training run: data, loop, calibration, the saved detector."""

import contextlib
import logging
from pathlib import Path

import jax
from ml_collections import ConfigDict

from recon_ad.alignment.build_part import ALIGNED
from recon_ad.config import check_config
from recon_ad.data import Source
from recon_ad.data.augment import check_names
from recon_ad.data.source import training_digests
from recon_ad.detector.directory import load
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.thresholds import calibrate, summary
from recon_ad.errors import UserError
from recon_ad.methods import WITH_ENCODER, build_method, use_method
from recon_ad.methods.features import RANDOM
from recon_ad.ops.scores import check_score
from recon_ad.pretrained.weights import HUB, check_given
from recon_ad.runtime import memory
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime.waiting import RUN_LOCK, exclusive_lock
from recon_ad.training.data import TrainingData, open_data, prepare_data
from recon_ad.training.fitted import with_dtype, with_steps, with_tiles
from recon_ad.training.loop import Watch, fit_state
from recon_ad.training.same_run import same_run

logger = logging.getLogger("recon_ad")


def check_run(config: ConfigDict) -> None:
    """Check at the start what would otherwise stop a training later.

    Raises:
      UserError: If a field's value is not usable. The message says which values are.
    """
    check_config(config)
    use_method(config.method.name)
    check_score(config.inference.score)
    if config.calibration.rule == "cross" and config.train.select == "best":
        raise UserError(
            "config.calibration.rule is cross, so no image is held out from training to select "
            "the best checkpoint: set config.train.select to last, or the rule to split."
        )


def check_weights(config: ConfigDict, workdir: Path) -> None:
    """Check that given weights exist, before images are read; a trained run needs none.

    Raises:
      UserError: If they do not.
    """
    weights = config.encoder.weights
    trained = (workdir / "detector" / "detector.json").is_file()
    if config.method.name in WITH_ENCODER and weights not in (HUB, RANDOM) and not trained:
        check_given(weights)


def train(
    config: ConfigDict,
    workdir: Path | str,
    *,
    source: Source | None = None,
    profile: bool = False,
    watch: Watch | None = None,
) -> Detector:
    """Train or resume, and calibrate; the detector is in `workdir/detector` afterwards.

    Args:
      config: Config of the run (see configs/default.py).
      workdir: Directory of this run, created if absent.
      source: Images that replace those of the config.
      profile: Whether to write a profile of a few steps to `workdir/profile`.
      watch: Function called at each held-out evaluation. Its time does not count as training time.
        After a resumption it may see a step again.

    Raises:
      UserError: If the config, the images or the workdir do not fit, or another process trains
        there. The message says what to change.
      FloatingPointError: If a loss became NaN or infinite.
    """
    workdir = Path(workdir)
    check_run(config)
    check_names(config.data.augment)
    raw = open_data(config, source)
    if meshes.broadcast_from_first((workdir / "detector" / "detector.json").is_file()):
        # This also determines in which images the part is found, so none is registered again.
        same_run(workdir, config, raw.identity, unknown=[ALIGNED])
        logger.info("training in %s is complete", workdir)
        return load(workdir / "detector")
    asked = config  # the config that identifies the run
    config = with_dtype(with_tiles(config, raw.source.train, part=raw.part))
    data = prepare_data(config, raw)
    config = with_steps(config, entries=len(data.images))
    method = build_method(config, channels=data.images.channels)
    if data.holdout.crossed and method.without is None:
        raise UserError(
            f"config.calibration.rule is cross, but {config.method.name} would have to be "
            "retrained for each block of images: set the rule to split."
        )
    meshes.check_batch_size(config.train.batch_size, meshes.data_mesh())
    frozen, origin = method.pretrained()
    # Checked last, so that a rejected config is never recorded as this run's.
    lock = (
        exclusive_lock(workdir / RUN_LOCK) if meshes.is_first_host() else contextlib.nullcontext()
    )
    with lock:
        same_run(workdir, asked, data.identity)
        encoder = f", encoder {origin['encoder']}" if origin else ""
        logger.info("method %s%s, %d steps", config.method.name, encoder, config.train.steps)
        logger.info("calibration images: %s", data.holdout.how)
        state, outcome = fit_state(
            config,
            workdir,
            data.images,
            data.patches,
            method=method,
            frozen=frozen,
            profile=profile,
            watch=watch,
        )
        memory.give_back()
        size = config.train.batch_size
        heldout = [data.patches[i : i + size] for i in range(0, len(data.patches), size)]
        variables = jax.device_get(method.finish(frozen, state, heldout))
        trained = Detector(
            config.copy_and_resolve_references(),
            channels=data.images.channels,
            variables=variables,
            record={"training": outcome, "notes": list(data.source.notes), "pretrained": origin},
        )
        path = workdir / "detector"
        made: list[Detector] = []
        with meshes.stopping_together() as stop:
            meshes.on_first_host(lambda: made.append(_calibrated(trained, data, path)))
            logger.info("detector: %s", path)
            detector = made[0] if made else load(path)  # the other hosts read it
            meshes.stop_together(stop)
        return detector


def _calibrated(detector: Detector, data: TrainingData, path: Path) -> Detector:
    """Set the thresholds and save the detector, which then aligns its images."""
    raw, kept, holdout = data.raw, data.source.train, data.holdout
    unseen = () if holdout.crossed else holdout.heldout
    digests = training_digests(raw.source.train, kept=kept, but=unseen)
    calibrated = calibrate(
        detector,
        holdout,
        fpr=detector.config.calibration.fpr,
        of_regions=any(record.load_roi for record in raw.source.train),
        trained_on=() if holdout.crossed else digests,
    )
    logger.info("%s", summary(calibrated.record))
    finished = calibrated.with_part(raw.part).with_record({"learnt_from": digests})
    finished.save(path)
    return finished
