"""Settings that a config derives from images and devices: tiles, steps, the encoder's type."""

import numpy as np
import pytest
from helpers.small_runs import small_config

from recon_ad.data import Record
from recon_ad.training.fitted import with_dtype, with_steps, with_tiles


def records(count, *sizes):
    """Return good images with these sizes in turn."""
    images = [np.zeros((*size, 1), np.uint8) for size in sizes]
    return [Record(f"{i}.png", lambda i=i: images[i % len(images)]) for i in range(count)]


def config_of(method="knn", **fields):
    spec = f"configs/folder.py:method={method},weights=random,scale=cpu"
    return small_config(spec, **fields)


@pytest.mark.parametrize(
    ("count", "sizes", "side"),
    [
        (10, [(512, 512)], 512),  # the images' own
        (10, [(300, 900)], 304),  # their shorter side, rounded to a patch of 16 px
        (10, [(2000, 3000)], 768),  # 48 patches at most
        (10, [(60, 80)], 224),  # 14 patches at least
        (240, [(512, 512)], 400),  # 240 · 25² is the most within 150,000
        (120, [(460, 1130)], 352),  # 120 · 2.457 · 22² likewise
        (100_000, [(512, 512)], 224),
        (30, [(400, 400), (300, 320), (304, 500)], 304),  # the median
    ],
)
def test_tiles_have_the_images_shorter_side_as_far_as_time_allows(count, sizes, side):
    config = with_tiles(config_of(), records(count, *sizes), part=None)
    assert config.data.patch_size == side
    assert tuple(config.data.resize) == (side, 0)


def test_what_is_named_is_not_fitted():
    some = records(10, (500, 500))
    assert with_tiles(config_of(**{"data.patch_size": 160}), some, part=None).data.patch_size == 160
    named = with_tiles(config_of(**{"data.resize": (250, 300)}), some, part=None)
    assert (named.data.patch_size, tuple(named.data.resize)) == (240, (250, 300))
    pixels = config_of("cae")
    assert with_tiles(pixels, some, part=None) is pixels


def test_each_tile_is_seen_once_where_no_steps_are_named():
    assert with_steps(config_of(), entries=33).train.steps == 5  # of 8
    assert with_steps(config_of(**{"train.steps": 7}), entries=33).train.steps == 7


def test_an_encoder_is_in_bfloat16_on_gpus_only_and_only_if_left_to_the_devices(monkeypatch):
    automatic = config_of(**{"encoder.dtype": "auto"})
    assert with_dtype(automatic).encoder.dtype == "float32"
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert with_dtype(automatic).encoder.dtype == "bfloat16"
    assert automatic.encoder.dtype == "auto"
    assert with_dtype(config_of()).encoder.dtype == "float32"
