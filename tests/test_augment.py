"""Augmentations: keyed by the example, in range, each one doing what its name says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_ad.data.augment import AUGMENTATIONS, augment, check_names
from recon_ad.errors import UserError

IMAGES = jax.random.uniform(jax.random.key(0), (12, 16, 16, 3))
INDEX = jnp.arange(100, 112)


def run(*names, images=IMAGES, index=INDEX, seed=1):
    return np.asarray(augment(jax.random.key(seed), images, index, names=names))


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_changes_something_stays_in_range_and_is_deterministic(name):
    result = run(name)
    assert result.shape == IMAGES.shape
    assert result.min() >= 0
    assert result.max() <= 1
    assert np.isfinite(result).all()
    assert (result != np.asarray(IMAGES)).any()
    np.testing.assert_array_equal(result, run(name))
    assert (result != run(name, seed=2)).any()


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_what_happens_to_an_example_hangs_on_its_index_alone(name):
    whole = run(name)
    order = jnp.array([7, 2, 9])
    some = run(name, images=IMAGES[order], index=INDEX[order])
    # Another batch size may round differently: the turned coordinates, up to 16, in their last bit.
    np.testing.assert_allclose(some, whole[np.asarray(order)], atol=1e-5)


def test_flips_and_turns_only_move_pixels():
    for name in ("flip_left_right", "flip_up_down", "rot90"):
        before = np.sort(np.asarray(IMAGES).reshape(12, -1), axis=1)
        np.testing.assert_array_equal(np.sort(run(name).reshape(12, -1), axis=1), before)


def test_all_four_quarter_turns_occur():
    index = jnp.arange(64)
    images = jnp.broadcast_to(IMAGES[:1], (64, 16, 16, 3))
    result = run("rot90", images=images, index=index)
    turns = {k for k in range(4) for x in result if (x == np.rot90(IMAGES[0], k)).all()}
    assert turns == {0, 1, 2, 3}


def test_no_names_leave_the_images():
    np.testing.assert_array_equal(run(), IMAGES)


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(UserError, match="flip_up_down"):
        check_names(("flip", "rot90"))
