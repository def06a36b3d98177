"""The data of a training run: good images, aligned, divided, and ready to be cut into patches."""

import collections
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from recon_ad.alignment.build_part import aligned_source, find_part, found_in, identity
from recon_ad.alignment.part import Part
from recon_ad.data import Record, Source, split_holdout
from recon_ad.data.build import build_source
from recon_ad.data.holdout import HoldOut, cross_holdout
from recon_ad.data.pipeline import Images, grid_patches
from recon_ad.data.source import fingerprint
from recon_ad.errors import UserError

logger = logging.getLogger("recon_ad")


class RawData(NamedTuple):
    """Images as they are, and the part that is looked for in them.

    Attributes:
      source: of the run.
      part: that images are aligned to; None: they are used as they are.
      identity: what tells these images and this part from others, for data.json.
    """

    source: Source
    part: Part | None
    identity: dict[str, Any]


class TrainingData(NamedTuple):
    """What the training loop and the calibration need.

    Attributes:
      images: to cut patches from.
      patches: held out, for the held-out loss; none where images are crossed.
      holdout: the good images divided, aligned where there is a part.
      source: the images aligned, with notes on those that were left out.
      raw: the images as they are.
      identity: for data.json, with the images in which the part was found.
    """

    images: Images
    patches: Float[np.ndarray, "n p p c"]
    holdout: HoldOut
    source: Source
    raw: RawData
    identity: dict[str, Any]


def open_data(config: ConfigDict, source: Source | None = None) -> RawData:
    """Opens the images of a run without aligning any.

    Args:
      config: of the run.
      source: images, where they are not what the config names.

    Raises:
      UserError: the images or the part do not fit.
    """
    source = source or build_source(config)
    part = find_part(config, source.train)
    data = {"good_images": len(source.train), "fingerprint": fingerprint(source.train)}
    return RawData(source, part, data | identity(part, config))


def prepare_data(config: ConfigDict, raw: RawData) -> TrainingData:
    """Aligns the good images, divides them, and keeps what training reads.

    Raises:
      UserError: too few images are left, or patches do not fit into them.
    """
    source = aligned_source(raw.source, raw.part)
    for note in source.notes:
        logger.warning("%s", note)
    size = tuple(config.data.resize) if any(config.data.resize) else None
    if size:
        _check_several(source.train)
    patch_size = config.data.patch_size
    # A category of one image cannot be held out whole.
    fewest = min(
        collections.Counter(record.category for record in source.train).values(), default=0
    )
    # Images that the data set itself keeps for validation are better held out than any others.
    divided = any(record.validation for record in source.train)
    if config.calibration.rule == "cross" and fewest > 1 and not divided:
        holdout = cross_holdout(source.train, group=config.holdout.group)
    else:
        holdout = split_holdout(
            source.train,
            fraction=config.holdout.fraction,
            group=config.holdout.group,
            few=0 if size else config.holdout.few,
            gap=patch_size,
            min_side=patch_size,
        )
    images = Images(
        holdout.train,
        size=size,
        patch_size=patch_size,
        memory_mib=config.data.cache_mib,
        disk_mib=config.data.disk_cache_mib,
        tiled=config.data.patches == "tiles",
    )
    if holdout.crossed:
        patches = np.zeros((0, patch_size, patch_size, images.channels), np.float32)
    else:
        patches = grid_patches(
            holdout.heldout, size=size, patch_size=patch_size, limit=config.train.heldout_patches
        )
    return TrainingData(
        images=images,
        patches=patches,
        holdout=holdout,
        source=source,
        raw=raw,
        identity=raw.identity | found_in(raw.part, source.train),
    )


def _check_several(records: Sequence[Record]) -> None:
    """Raises UserError where a category has a single image, which would be resized by parts."""
    counts = collections.Counter(record.category for record in records)
    if 1 in counts.values():
        of = "" if len(counts) == 1 else f" of {min(counts, key=counts.__getitem__)}"
        raise UserError(
            f"there is 1 good image{of}, and a region of it, held out for calibration, cannot be "
            "resized as the whole is: give more images, or leave out config.data.resize."
        )
