"""A cache of the frozen encoder's features of the training images.

It requires a training that sees the same input each time: the tiles of inference, not augmented.
Memory is bounded as for images (`recon_ad.data.pipeline.Images`), which are kept beside it.
"""

import logging
import tempfile
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree
from ml_collections import ConfigDict

from recon_ad.data.arrays import to_unit
from recon_ad.data.decode_cache import MEBI
from recon_ad.data.pipeline import Images, mapped
from recon_ad.methods.base import Method
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime.progress import progress

logger = logging.getLogger("recon_ad")


def prepare_all(
    images: Images, method: Method, frozen: PyTree, config: ConfigDict, mesh: Mesh
) -> Sequence[PyTree[np.ndarray]] | None:
    """Return the result of `method.prepare` for each tile, in the order of the tiles.

    Results are kept in memory up to `config.data.cache_mib`, then in a temporary file up to
    `disk_cache_mib`.

    Args:
      images: Training images.
      method: Method that is trained.
      frozen: Pretrained weights of the method, on the devices.
      config: Config of the run.
      mesh: Mesh of the devices.

    Returns:
      One result for each tile. None if the method has no encoder, if each step sees other parts of
      the images or other augmentations, if training needs the encoder itself, if the results exceed
      the limit, or with several hosts.
    """
    side, size = config.data.patch_size, config.train.batch_size
    if not frozen or not images.tiled or config.data.augment or jax.process_count() > 1:
        return None
    if not _by_image(method, frozen, (side, side, images.channels)):
        return None
    prepare = jax.jit(method.prepare)
    kept: list[PyTree[np.ndarray]] = []
    with tempfile.TemporaryFile() as file:
        for first in progress(range(0, len(images), size), "features, batches"):
            chosen = range(first, min(first + size, len(images)))
            part = np.stack([to_unit(images[i].image) for i in chosen])
            # Padded to one compiled program's batch, which the devices share evenly.
            filled = np.pad(part, [(0, size - len(part)), (0, 0), (0, 0), (0, 0)])
            made = jax.device_get(prepare(frozen, meshes.put_batch(mesh, filled)))
            for k in range(len(part)):
                row = jax.tree.map(lambda x, k=k: np.ascontiguousarray(x[k]), made)
                total = sum(x.nbytes for x in jax.tree.leaves(row)) * len(images)
                if total > config.data.disk_cache_mib * MEBI:
                    return None
                if total > config.data.cache_mib * MEBI:
                    row = jax.tree.map(lambda x: mapped(file, x), row)
                kept.append(row)
    logger.info(
        "cached features of %d tiles of %d images: %.1f MiB",
        len(images), images.images, total / MEBI,
    )  # fmt: skip
    return kept


def _by_image(method: Method, frozen: PyTree, shape: tuple[int, int, int]) -> bool:
    """Return whether every array that `prepare` returns has a row for each image."""
    one, two = (
        [x.shape[:1] for x in jax.tree.leaves(jax.eval_shape(method.prepare, frozen, images))]
        for images in (jax.ShapeDtypeStruct((n, *shape), np.float32) for n in (1, 2))
    )
    return all(a != b for a, b in zip(one, two, strict=True))
