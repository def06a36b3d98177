"""A Vision Transformer of three narrow blocks, in a file: nothing is compiled to have it."""

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

SIDE, CELLS, WIDTH = 16, 4, vit_reference.SMALL.width  # px of an image, its patches, their numbers
# Of each channel another, and no two of them alike.
MEAN, STD = (0.1, 0.4, 0.6), (0.2, 0.5, 0.3)

_random = np.random.default_rng(0)
IMAGES = (0.5 + 0.1 * _random.normal(size=(4, SIDE, SIDE, 1))).astype(np.float32)
CORNER = np.s_[0, : SIDE // 2, : SIDE // 2]  # of the first image, which is damaged:
DAMAGED = IMAGES.copy()
DAMAGED[CORNER] = _random.random((SIDE // 2, SIDE // 2, 1)) > 0.5


@pytest.fixture(scope="module")
def small_encoder(tmp_path_factory) -> Iterator[dict[str, Any]]:
    """Adds the preset "small"; gives the fields of a config that sees images of SIDE px by it."""
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
    """The smoke config of a method that looks through the small encoder."""
    return small_config(f"configs/folder.py:method={method},smoke", **small_encoder | fields)


def started(small_encoder, method, images=IMAGES, **fields):
    """A method on images: itself, its frozen weights, what it prepares of them, a first state."""
    built = build_method(config_for(small_encoder, method, **fields), channels=1)
    frozen, _ = built.pretrained()
    batch = jax.device_get(jax.jit(built.prepare)(frozen, images))
    return built, frozen, batch, random_state(built, batch)
