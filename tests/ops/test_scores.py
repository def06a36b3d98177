"""Image scores against NumPy, on maps in which only some pixels count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_ad.ops.scores import SCORES, mean_of_top

# By NumPy. A float32 sum of up to two thousand numbers of size 1, some of which cancel, has this
# error; the others are exact or sums of at most twenty numbers of one sign.
EXPECTED = {
    "max": (np.max, {"rel": 1e-6, "abs": 0}),
    "mean": (np.mean, {"abs": 1e-6}),
    "sum": (np.sum, {"abs": 1e-4}),
    "max+mean/2": (lambda v: v.max() + v.mean() / 2, {"abs": 1e-6}),
    "top_1%": (
        lambda v: np.sort(v)[-int(np.ceil(0.01 * v.size)) :].mean(),
        {"rel": 1e-6, "abs": 0},
    ),
}
scores = jax.jit(lambda values, valid: {name: rule(values, valid) for name, rule in SCORES.items()})


@pytest.mark.parametrize("size", [(3, 4), (64, 33)])
def test_agrees_with_numpy_and_leaves_out_what_does_not_count(size):
    random = np.random.default_rng(0)
    values = random.normal(size=size).astype(np.float32)
    valid = random.random(size) < 0.6
    found = scores(np.where(valid, values, np.float32(1e6)), valid)
    assert found.keys() == EXPECTED.keys()
    for name, (rule, off) in EXPECTED.items():
        assert found[name] == pytest.approx(rule(values[valid].astype(float)), **off), name


@pytest.mark.parametrize("outlier", [1e3, 1e6])
def test_outliers_do_not_hide_the_rest_of_the_top(outlier):
    # Over nine decades; the lowest of the top values is far below a thousandth of the range.
    values = (10 ** np.random.default_rng(3).uniform(-9, 0, (64, 33))).astype(np.float32)
    values[17, 30] = outlier
    expected = EXPECTED["top_1%"][0](values.ravel().astype(np.float64))
    found = scores(values, np.ones(values.shape, bool))["top_1%"]
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_the_whole_share_is_the_mean_and_the_least_is_the_maximum():
    values = jnp.asarray(np.random.default_rng(2).random((8, 9), np.float32))
    valid = jnp.ones((8, 9), bool)
    # Not compiled as one program, because the few repeated operations take less time.
    whole, least = (mean_of_top(values, valid, one_in=n) for n in (1, 1_000_000))
    np.testing.assert_allclose(whole, values.mean(), rtol=1e-5)
    assert least == values.max()
