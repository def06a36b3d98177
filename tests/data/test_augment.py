"""Augmentations: keyed by the example, within the range, and true to their names."""

import jax
import numpy as np
import pytest

from recon_ad.data.augment import AUGMENTATIONS, augment, check_names
from recon_ad.errors import UserError

IMAGES = np.random.default_rng(0).random((12, 16, 16, 3), np.float32)
INDEX = np.arange(100, 112)
TWICE = "flip_left_right+flip_left_right"


@jax.jit  # one program for all
def each(seed, images, index):
    key, names = jax.random.key(seed), (*AUGMENTATIONS, TWICE)
    return {n: augment(key, images, index, names=tuple(n.split("+"))) for n in names}


def run(images=IMAGES, index=INDEX, seed=1):
    return jax.tree.map(np.asarray, each(seed, images, index))


def test_each_changes_something_stays_in_range_and_hangs_on_seed_and_index_alone():
    once, again, other, order = run(), run(), run(seed=2), np.array([7, 2, 9, *[11] * 9])
    some = run(IMAGES[order], INDEX[order])
    for name in AUGMENTATIONS:
        result = once[name]
        assert result.shape == IMAGES.shape, name
        assert result.min() >= 0 and result.max() <= 1, name  # both are false for NaN
        assert (result != IMAGES).any() and (result != other[name]).any(), name
        np.testing.assert_array_equal(result, again[name], name)
        np.testing.assert_allclose(some[name], result[order], atol=1e-5, err_msg=name)


def test_each_of_several_augmentations_has_its_own_chance():
    flipped = [(x == image[:, ::-1]).all() for x, image in zip(run()[TWICE], IMAGES, strict=True)]
    assert any(flipped) and not all(flipped)


def test_flips_and_turns_only_move_pixels_and_all_of_them_occur():
    image = IMAGES[0]
    made = [run(np.broadcast_to(image, IMAGES.shape), seed=seed) for seed in range(4)]
    for name, possible in {
        "flip_left_right": [image, image[:, ::-1]],
        "flip_up_down": [image, image[::-1]],
        "rot90": [np.rot90(image, k) for k in range(4)],
    }.items():
        shown = np.concatenate([result[name] for result in made])
        same = np.array([[np.array_equal(x, moved) for moved in possible] for x in shown])
        assert (same.sum(axis=1) == 1).all() and same.any(axis=0).all(), name


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match="flip_up_down"):
        check_names(("flip", "rot90"))
