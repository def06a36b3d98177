"""Image scores against NumPy, on maps of which only some pixels count."""

import jax.numpy as jnp
import numpy as np
import pytest

from recon_ad.ops.scores import SCORES, mean_of_top

EXPECTED = {
    "max": np.max,
    "mean": np.mean,
    "sum": np.sum,
    "top_1%": lambda v: np.sort(v)[-int(np.ceil(0.01 * v.size)) :].mean(),
}
# A float32 sum of up to two thousand numbers of size 1, of which some cancel; the others are exact
# or sums of at most twenty numbers of one sign.
TOLERANCE = {
    "max": {"rel": 1e-6, "abs": 0},
    "mean": {"abs": 1e-6},
    "sum": {"abs": 1e-4},
    "top_1%": {"rel": 1e-6, "abs": 0},
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("size", [(3, 4), (40, 50), (64, 33)])
def test_agrees_with_numpy_and_leaves_out_what_does_not_count(name, size):
    random = np.random.default_rng(0)
    values = random.normal(size=size).astype(np.float32)
    valid = random.random(size) < 0.6
    expected = EXPECTED[name](values[valid].astype(np.float64))
    spoiled = jnp.asarray(np.where(valid, values, 1e6), jnp.float32)
    found = float(SCORES[name](spoiled, jnp.asarray(valid)))
    assert found == pytest.approx(expected, **TOLERANCE[name])


@pytest.mark.parametrize("outlier", [1e3, 1e6])
def test_outliers_do_not_hide_the_rest_of_the_top(outlier):
    # Over nine decades; the least of the top is far below the range's thousandth part.
    random = np.random.default_rng(3)
    values = (10 ** random.uniform(-9, 0, (60, 70))).astype(np.float32)
    values[17, 30] = outlier
    expected = EXPECTED["top_1%"](values.ravel().astype(np.float64))
    found = SCORES["top_1%"](jnp.asarray(values), jnp.ones(values.shape, bool))
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_padding_changes_nothing(name):
    values = np.random.default_rng(1).random((30, 31)).astype(np.float32)
    padded, valid = np.zeros((64, 64), np.float32), np.zeros((64, 64), bool)
    padded[:30, :31], valid[:30, :31] = values, True
    alone = SCORES[name](jnp.asarray(values), jnp.ones(values.shape, bool))
    np.testing.assert_allclose(
        SCORES[name](jnp.asarray(padded), jnp.asarray(valid)), alone, rtol=1e-5
    )


def test_the_whole_share_is_the_mean_and_the_least_is_the_maximum():
    values = jnp.asarray(np.random.default_rng(2).random((8, 9)), jnp.float32)
    valid = jnp.ones(values.shape, bool)
    np.testing.assert_allclose(mean_of_top(values, valid, one_in=1), values.mean(), rtol=1e-5)
    assert mean_of_top(values, valid, one_in=1_000_000) == values.max()
