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
        else:  # OpenCV rounds positions to float32
            expected, off = cv2.resize(values, size[::-1], interpolation=OPENCV[kind]), 2e-5
        np.testing.assert_allclose(ours, expected, atol=off, err_msg=f"{size} {kind} {antialias}")


def test_corners_that_stay_are_numpys_interpolation_between_the_first_and_the_last():
    values = np.random.default_rng(0).normal(size=(14, 37)).astype(np.float32)
    options = {"kind": "linear", "antialias": False, "corners": True}

    @jax.jit
    def resampled(maps):
        return [resample(maps, size, **options)[0, ..., 0] for size in SIZES]

    for size, ours in zip(SIZES, resampled(values[None, ..., None]), strict=True):
        expected = values
        for axis, (old, new) in enumerate(zip(values.shape, size, strict=True)):
            points = np.linspace(0, old - 1, new), np.arange(old)
            expected = np.apply_along_axis(lambda row, p=points: np.interp(*p, row), axis, expected)
        np.testing.assert_allclose(ours, expected, atol=2e-6, err_msg=f"{size}")
        for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            np.testing.assert_allclose(ours[corner], values[corner], rtol=1e-6)
    np.testing.assert_allclose(resampling_matrix(1, 5, **options), 1, atol=1e-12)
    np.testing.assert_allclose(resampling_matrix(5, 1, **options), [[1, 0, 0, 0, 0]], atol=1e-12)


def test_one_sample_and_one_wanted_and_the_same_size():
    for kind, antialias in itertools.product(PILLOW, (False, True)):
        matrix = functools.partial(resampling_matrix, kind=kind, antialias=antialias)
        np.testing.assert_allclose(matrix(1, 5), 1, atol=1e-12)
        np.testing.assert_allclose(matrix(5, 1).sum(), 1, atol=1e-12)
        np.testing.assert_allclose(matrix(7, 7), np.eye(7), atol=1e-12)
