"""Resampling against Pillow and OpenCV, which are independent of it."""

import itertools

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from recon_ad.ops.resampling import resample, resampling_matrix

PILLOW = {"linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}
OPENCV = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
SIZES = [(14, 24), (37, 28), (5, 5), (9, 31), (16, 7)]


def test_antialiased_is_pillows_and_without_opencvs():
    values = np.random.default_rng(0).normal(size=(14, 37)).astype(np.float32)
    picture = Image.fromarray(values)
    cases = list(itertools.product(SIZES, PILLOW, (False, True)))

    @jax.jit  # one program for all
    def resampled(maps):
        return [resample(maps, size, kind=k, antialias=a)[0, ..., 0] for size, k, a in cases]

    found = resampled(values[None, ..., None])
    for (size, kind, antialias), ours in zip(cases, found, strict=True):
        if antialias:
            expected, off = np.asarray(picture.resize(size[::-1], PILLOW[kind])), 2e-6
        else:  # it rounds positions to float32
            expected, off = cv2.resize(values, size[::-1], interpolation=OPENCV[kind]), 2e-5
        np.testing.assert_allclose(ours, expected, atol=off, err_msg=f"{size} {kind} {antialias}")


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("kind", PILLOW)
def test_weights_add_up_and_the_same_size_changes_nothing(kind, antialias):
    for old, new in [(7, 7), (7, 3), (3, 7), (1, 5), (5, 1)]:
        matrix = resampling_matrix(old, new, kind=kind, antialias=antialias)
        np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
        if old == new:
            np.testing.assert_allclose(matrix, np.eye(old), atol=1e-12)
