"""Training from Python: images or a folder in, a detector out."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from recon_ad.data import memory_source
from recon_ad.data.arrays import given_range
from recon_ad.detector.jax_detector import Detector
from recon_ad.training.run import train


def fit(
    images_or_path: str | os.PathLike[str] | np.ndarray | Sequence[np.ndarray],
    config: ConfigDict,
    *,
    workdir: str | os.PathLike[str] | None = None,
) -> Detector:
    """Train and calibrate a detector on good images, as `python -m recon_ad.train` does.

    Args:
      images_or_path: A folder, as for `configs/folder.py:path=`; or good images [h, w] or
        [h, w, c], uint8, uint16 or float in [0, 1], as a list or as one array [n, h, w, c].
      config: A config, for example `recon_ad.load_config("configs/folder.py")`. It is not changed.
      workdir: Directory for checkpoints and logs; a temporary one by default.

    Raises:
      UserError: If the images or the config are unusable. The message says why.
    """
    config = config.copy_and_resolve_references()
    source = None
    if isinstance(images_or_path, (str, os.PathLike)):
        config.data.source, config.data.path = "folder", os.fspath(images_or_path)
    else:
        source = memory_source(images_or_path, input_range=given_range(config.data.input_range))
        config.data.source = "memory"
    if workdir is not None:
        return train(config, Path(workdir), source=source)
    with tempfile.TemporaryDirectory(prefix="recon_ad_") as scratch:
        return train(config, Path(scratch), source=source)
