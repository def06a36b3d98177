"""The data of a training run: good images, aligned, split, and ready to be cut into patches."""

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
    """Unprocessed images, and the part that is located in them.

    Attributes:
      source: Images of the run.
      part: Part that images are aligned to. None uses them without alignment.
      identity: Entries of data.json that distinguish these images and this part from others.
    """

    source: Source
    part: Part | None
    identity: dict[str, Any]


class TrainingData(NamedTuple):
    """Input of the training loop and the calibration.

    Attributes:
      images: Images to cut patches from.
      patches: Held-out patches for the held-out loss. Cross-calibration has none.
      holdout: Split of the good images, which are aligned if there is a part.
      source: Aligned images, with notes on those that were left out.
      raw: Unprocessed images.
      identity: Entries of data.json, with the images in which the part was found.
    """

    images: Images
    patches: Float[np.ndarray, "n p p c"]
    holdout: HoldOut
    source: Source
    raw: RawData
    identity: dict[str, Any]


def open_data(config: ConfigDict, source: Source | None = None) -> RawData:
    """Open the images of a run without aligning any.

    Args:
      config: Config of the run.
      source: Images that replace those of the config.

    Raises:
      UserError: If the images or the part do not fit.
    """
    source = source or build_source(config)
    part = find_part(config, source.train)
    data = {"good_images": len(source.train), "fingerprint": fingerprint(source.train)}
    return RawData(source, part, data | identity(part, config))


def prepare_data(config: ConfigDict, raw: RawData) -> TrainingData:
    """Align the good images, split them, and keep what training reads.

    Raises:
      UserError: If too few images are left, or patches do not fit into them.
    """
    source = aligned_source(raw.source, raw.part)
    for note in source.notes:
        logger.warning("%s", note)
    size = tuple(config.data.resize) if any(config.data.resize) else None
    if size:
        _check_several(source.train)
    patch_size = config.data.patch_size
    # The only image of a category cannot be held out whole.
    fewest = min(
        collections.Counter(record.category for record in source.train).values(), default=0
    )
    # The data set's own validation images, if any, are the best ones to hold out.
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
    """Raise UserError if a category has a single image, which would be resized in regions."""
    counts = collections.Counter(record.category for record in records)
    if 1 in counts.values():
        of = "" if len(counts) == 1 else f" of {min(counts, key=counts.__getitem__)}"
        raise UserError(
            f"only 1 good image{of} was found, and the region of it that is held out for "
            "calibration cannot be resized like the whole image: give more images, or leave out "
            "config.data.resize."
        )
