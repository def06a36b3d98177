"""Resampling against Pillow and OpenCV, which are independent of it."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from recon_ad.ops.resampling import resample, resampling_matrix

PILLOW = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}
OPENCV = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
SIZES = [(14, 24), (37, 28), (5, 5), (9, 31), (16, 7)]


@pytest.fixture
def maps():
    return np.random.default_rng(0).normal(size=(1, 14, 37, 1)).astype(np.float32)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", PILLOW)
def test_antialiased_is_pillows(maps, size, kind):
    picture = Image.fromarray(maps[0, ..., 0])
    expected = np.asarray(picture.resize(size[::-1], PILLOW[kind]))
    found = resample(jnp.asarray(maps), size, kind=kind, antialias=True)[0, ..., 0]
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", OPENCV)
def test_without_antialiasing_is_opencvs(maps, size, kind):
    expected = cv2.resize(maps[0, ..., 0], size[::-1], interpolation=OPENCV[kind])
    found = resample(jnp.asarray(maps), size, kind=kind, antialias=False)[0, ..., 0]
    np.testing.assert_allclose(found, expected, atol=2e-5)  # it rounds positions to float32


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("kind", PILLOW)
def test_weights_add_up_and_the_same_size_changes_nothing(kind, antialias):
    for old, new in [(7, 7), (7, 3), (3, 7), (1, 5), (5, 1)]:
        matrix = resampling_matrix(old, new, kind=kind, antialias=antialias)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
        if old == new:
            np.testing.assert_allclose(matrix, np.eye(old), atol=1e-12)
