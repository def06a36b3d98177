"""Settings that a config leaves to the images and the devices.

By default, tiles have the images' own resolution, as far as time allows, and training sees each of
them once. The same images on the same kind of device give the same config.
"""

import logging
import math
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from recon_ad.alignment.part import Part
from recon_ad.data import Record
from recon_ad.methods import ON_FEATURES
from recon_ad.pretrained import preset

LOOKED_AT = 32  # number of images, spread over all, whose size is checked
# Patches of the encoder along a side: as in its training at 224 px, and more than three times that.
LEAST, MOST = 14, 48

logger = logging.getLogger("recon_ad")


def with_tiles(config: ConfigDict, records: Sequence[Record], *, part: Part | None) -> ConfigDict:
    """Return the config with tiles that fit the images if `data.patch_size` is 0.

    The shorter side of the images becomes the side of a tile, rounded to patches of the encoder. It
    is smaller if all training images together would have more than `encoder.tokens` patches, and
    `LEAST` to `MOST` patches long. If `data.resize` is set, its shorter side, rounded down to
    patches, is used without these limits.

    Args:
      config: Config of a run.
      records: Training images, at least one.
      part: Part that they are aligned to, if any.
    """
    if config.data.patch_size or config.method.name not in ON_FEATURES or not records:
        return config
    patch = preset(config.encoder.name).spec.patch
    height, width = config.data.resize
    if height:
        side = patch * max(1, (min(height, width) if width else height) // patch)
    else:
        spread = np.unique(np.linspace(0, len(records) - 1, LOOKED_AT).round().astype(int))
        sizes = [records[i].load().shape[:2] for i in spread]
        if part is not None:
            sizes = [part.foreground.shape]
        shorter = float(np.median([min(size) for size in sizes]))
        squares = len(records) * float(np.mean([max(size) / min(size) for size in sizes]))
        affordable = int(math.sqrt(config.encoder.tokens / squares))
        side = patch * max(LEAST, min(round(shorter / patch), affordable, MOST))
        logger.info(
            "images are resized to a shorter side of %d px (originally %d), in tiles of %d px",
            side, round(shorter), side,
        )  # fmt: skip
    fitted = config.copy_and_resolve_references()
    fitted.data.patch_size = side
    if not height:
        fitted.data.resize = (side, 0)
    return fitted


def with_dtype(config: ConfigDict) -> ConfigDict:
    """Return the config with the type that suits the devices if `encoder.dtype` is "auto".

    It is bfloat16 on GPUs. On CPUs it is float32, because JAX is no faster in bfloat16 there, even
    with AMX. The detector keeps the type, so that it judges alike on every machine.
    """
    if config.encoder.dtype != "auto":
        return config
    fitted = config.copy_and_resolve_references()
    fitted.encoder.dtype = "bfloat16" if jax.default_backend() == "gpu" else "float32"
    return fitted


def with_steps(config: ConfigDict, *, entries: int) -> ConfigDict:
    """Return the config with steps that see each image or tile once if `train.steps` is 0.

    Args:
      config: Config of a run.
      entries: Number of images or tiles.
    """
    if config.train.steps:
        return config
    fitted = config.copy_and_resolve_references()
    fitted.train.steps = math.ceil(entries / config.train.batch_size)
    return fitted
