"""A training run: data, loop, calibration, the saved detector."""

import collections
from pathlib import Path

import jax
from ml_collections import ConfigDict

from recon_ad.alignment.build_part import ALIGNED, aligned_source, find_part, found_in, identity
from recon_ad.config import check_config
from recon_ad.data import Source, split_holdout
from recon_ad.data.augment import check_names
from recon_ad.data.build import build_source
from recon_ad.data.pipeline import Images, grid_patches
from recon_ad.data.source import fingerprint, known_again
from recon_ad.detector.jax_detector import Detector, load
from recon_ad.detector.thresholds import calibrate
from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.runtime import mesh as meshes
from recon_ad.training.loop import Watch, fit_state, logger
from recon_ad.training.same_run import same_run


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
