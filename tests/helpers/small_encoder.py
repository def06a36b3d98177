"""A Vision Transformer of three narrow blocks, written to a file without compiling anything."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy

from helpers import vit_reference
from helpers.detectors import random_state
from helpers.small_runs import small_config
from recon_ad.methods import build_method
from recon_ad.pretrained.presets import PRESETS, Preset

SIDE, CELLS, WIDTH = 16, 4, vit_reference.SMALL.width  # px, patches per side, features
# Values that differ between channels, and from each other.
MEAN, STD = (0.1, 0.4, 0.6), (0.2, 0.5, 0.3)

_random = np.random.default_rng(0)
IMAGES = (0.5 + 0.1 * _random.normal(size=(4, SIDE, SIDE, 1))).astype(np.float32)
CORNER = np.s_[0, : SIDE // 2, : SIDE // 2]  # the damaged corner of the first image
DAMAGED = IMAGES.copy()
DAMAGED[CORNER] = _random.random((SIDE // 2, SIDE // 2, 1)) > 0.5


@pytest.fixture(scope="module")
def small_encoder(tmp_path_factory) -> Iterator[dict[str, Any]]:
    """Add the preset "small", and yield the config fields that use it on images of SIDE px."""
    path = tmp_path_factory.mktemp("encoder") / "model.safetensors"
    spec = vit_reference.SMALL._replace(distilled=True)
    safetensors.numpy.save_file(vit_reference.make_tensors(spec), path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(PRESETS, "small", Preset(spec, MEAN, STD, "", ""))
        yield {
            "encoder.name": "small", "encoder.weights": str(path), "encoder.blocks": (0, 1, 2),
            "data.patch_size": SIDE, "inference.stride": SIDE,
        }  # fmt: skip


def config_for(small_encoder, method, **fields):
    """Return the smoke config of a method with the small encoder."""
    return small_config(f"configs/folder.py:method={method},smoke", **small_encoder | fields)


def started(small_encoder, method, images=IMAGES, **fields):
    """Return a method, its frozen weights, its prepared batch of the images and a first state."""
    built = build_method(config_for(small_encoder, method, **fields), channels=1)
    frozen, _ = built.pretrained()
    batch = jax.device_get(jax.jit(built.prepare)(frozen, images))
    return built, frozen, batch, random_state(built, batch)
