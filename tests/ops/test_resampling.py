"""Resampling against Pillow and OpenCV, which are independent of it."""

import functools
import itertools

import cv2
import jax
import numpy as np
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


def test_one_sample_and_one_wanted_and_the_same_size():
    for kind, antialias in itertools.product(PILLOW, (False, True)):
        matrix = functools.partial(resampling_matrix, kind=kind, antialias=antialias)
        np.testing.assert_allclose(matrix(1, 5), 1, atol=1e-12)
        np.testing.assert_allclose(matrix(5, 1).sum(), 1, atol=1e-12)
        np.testing.assert_allclose(matrix(7, 7), np.eye(7), atol=1e-12)
