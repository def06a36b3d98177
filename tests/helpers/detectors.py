"""Detectors with random weights, built without compiling or training, and images for them."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from helpers.small_runs import small_config
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import Detector
from recon_ad.methods import build_method
from recon_ad.methods.base import Method, TrainState

SIDE = 32  # px, tiles of a smoke config


def pictures(channels=1, dtype=np.uint8, sizes=((50, 70), (32, 32), (40, 33), (9, 10))):
    """Return noise images [h, w, channels] of several sizes."""
    random = np.random.default_rng(0)
    most = 1 if dtype == np.float32 else np.iinfo(dtype).max
    return [(random.random((*size, channels), np.float32) * most).astype(dtype) for size in sizes]


def random_state(method: Method, batch: Any) -> TrainState:
    """Draw an initial state for a method with NumPy; kernels have He's variance."""
    random = np.random.default_rng(0)

    def drawn(path: Sequence[Any], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        name = getattr(path[-1], "key", "")
        if name == "kernel":
            spread = np.sqrt(2 / np.prod(shape.shape[:-1]))
            return (spread * random.standard_normal(shape.shape)).astype(shape.dtype)
        return np.full(shape.shape, name == "scale", shape.dtype)

    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    params = jax.tree_util.tree_map_with_path(drawn, shapes.params)
    rest = jax.tree.map(lambda shape: np.zeros(shape.shape, shape.dtype), shapes)
    return rest._replace(params=params)


def make_detector(
    method="cae", *, channels=1, thresholds: Thresholds | None = None, **fields
) -> Detector:
    """Build a detector with random weights.

    Args:
      method: Name of the method.
      channels: Channels of the images.
      thresholds: Thresholds. By default half of `pictures` and a tenth of their pixels are above.
      **fields: Fields of the smoke config by their dotted names.
    """
    config = small_config(
        f"configs/folder.py:method={method},smoke",
        **({"inference.stride": 16, "data.channels": channels, "train.batch_size": 4} | fields),
    )
    built = build_method(config, channels=channels)
    size = config.data.patch_size
    example = np.random.default_rng(1).random((4, size, size, channels), np.float32)
    frozen, _ = built.pretrained()
    batch = jax.jit(built.prepare)(frozen, example) if frozen else example
    state = random_state(built, batch)
    if method == "knn":  # training fills its memory bank
        step = jax.jit(built.train_step)
        for i in range(config.train.steps):
            state, _ = step(state, batch, jax.random.key(i), image=np.arange(4))
    detector = Detector(
        config,
        channels=channels,
        variables=built.finish(frozen, state, [example]),
        record={"training": {}, "notes": []},
    )
    if thresholds is None:
        predictions = [detector.predict(image) for image in pictures(channels)]
        pixels = np.concatenate([p.anomaly_map.ravel() for p in predictions])
        score = float(np.median([p.score for p in predictions]))
        thresholds = Thresholds(score, float(np.quantile(pixels, 0.9)))
    return detector.with_thresholds(thresholds, detector.record)


@functools.cache
def plain_detector(**fields: Any) -> Detector:
    """Build the detector for tests that need any detector: a CAE of one channel with thresholds."""
    fields = {"inference.sigma": 1.0} | fields
    return make_detector(thresholds=Thresholds(0.05, 0.04), **fields)
