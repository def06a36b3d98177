"""Augmentations: keyed by the example, in range, each one doing what its name says."""

import jax
import numpy as np
import pytest

from recon_ad.data.augment import AUGMENTATIONS, augment, check_names
from recon_ad.errors import UserError

IMAGES = np.random.default_rng(0).random((12, 16, 16, 3), np.float32)
INDEX = np.arange(100, 112)
TWICE = "flip_left_right+flip_left_right"


@pytest.fixture(scope="module")
def run():
    """Returns a function that augments a batch, by each augmentation: one program for all."""

    def each(seed, images, index):
        key = jax.random.key(seed)
        names = (*AUGMENTATIONS, TWICE)
        return {n: augment(key, images, index, names=tuple(n.split("+"))) for n in names}

    program = jax.jit(each)

    def run(images=IMAGES, index=INDEX, seed=1):
        return jax.tree.map(np.asarray, program(seed, images, index))

    return run


def test_each_changes_something_stays_in_range_and_is_deterministic(run):
    once, again, other = run(), run(), run(seed=2)
    for name in AUGMENTATIONS:
        result = once[name]
        assert result.shape == IMAGES.shape, name
        assert result.min() >= 0 and result.max() <= 1, name  # of NaN neither is true
        assert (result != IMAGES).any() and (result != other[name]).any(), name
        np.testing.assert_array_equal(result, again[name], name)


def test_what_happens_to_an_example_hangs_on_its_index_alone(run):
    whole, order = run(), np.array([7, 2, 9, *[11] * 9])
    some = run(IMAGES[order], INDEX[order])
    for name in AUGMENTATIONS:
        np.testing.assert_allclose(some[name], whole[name][order], atol=1e-5, err_msg=name)


def test_each_of_several_augmentations_has_its_own_chance(run):
    flipped = [(x == image[:, ::-1]).all() for x, image in zip(run()[TWICE], IMAGES, strict=True)]
    assert any(flipped) and not all(flipped)


def test_flips_and_turns_only_move_pixels(run):
    before = np.sort(IMAGES.reshape(12, -1), axis=1)
    for name in ("flip_left_right", "flip_up_down", "rot90"):
        np.testing.assert_array_equal(np.sort(run()[name].reshape(12, -1), axis=1), before)


def test_all_four_quarter_turns_occur(run):
    images = np.broadcast_to(IMAGES[:1], IMAGES.shape)
    turned = [x for seed in range(4) for x in run(images, seed=seed)["rot90"]]
    turns = {k for k in range(4) for x in turned if (x == np.rot90(IMAGES[0], k)).all()}
    assert turns == {0, 1, 2, 3}


def test_no_names_leave_the_images():
    images = jax.device_put(IMAGES)
    assert augment(jax.random.key(0), images, jax.device_put(INDEX), names=()) is images


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match="flip_up_down"):
        check_names(("flip", "rot90"))
