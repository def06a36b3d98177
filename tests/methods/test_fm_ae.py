"""Feature matching: its loss against NumPy, and an encoder that exists only in training."""

import jax
import numpy as np
import pytest
from helpers.convolutions import drawn
from helpers.small_encoder import SIDE, config_for, started

from recon_ad.methods.features import Encoder

WEIGHT = 100.0  # so large that the pixels' part of the gradient is 1 %
IMAGES = np.random.default_rng(0).random((4, SIDE, SIDE, 1), np.float32)
EXACT = IMAGES.astype(np.float64)
MASK = np.array([True, False, True, True])


@pytest.fixture(scope="module")
def looked(small_encoder):
    """Return the method's first state, batch and step, and its results."""
    fields = {"encoder.blocks": (0, 2), "fm_ae.feature_weight": WEIGHT}
    method, _, batch, state = started(small_encoder, "fm_ae", IMAGES, **fields)
    encoder = Encoder(config_for(small_encoder, "fm_ae", **fields), channels=1)
    # Biases are random too, or some activations would be at the kink of their function.
    params = jax.tree.map(np.add, state.params, drawn(state.params, 0.1))
    state = state._replace(params=params)
    variables = method.finish(batch["encoder"], state, ())
    assert set(variables) == {"params"}  # and no encoder

    @jax.jit
    def look(state, variables, batch, mask):
        painted = method.reconstruct(variables, batch["images"])
        seen = [encoder.blocks_of(batch["encoder"], x) for x in (batch["images"], painted)]
        measured = method.eval_step(state, batch, mask)
        return measured, painted, method.anomaly_map(variables, batch["images"]), seen

    found = jax.device_get(look(state, variables, batch, MASK))
    return state, batch, jax.jit(method.train_step), *found


def features(found):
    blocks = [np.asarray(found[f"block{i}"], np.float64) for i in (0, 2)]
    centred = [f - f.mean(-1, keepdims=True) for f in blocks]
    return np.concatenate([c / np.sqrt((c**2).mean(-1, keepdims=True)) for c in centred], axis=-1)


def test_the_loss_is_that_of_the_pixels_and_the_weighted_one_of_the_features(looked):
    state, batch, step, measured, painted, _, seen = looked
    pixels = ((EXACT - painted) ** 2).mean(axis=(1, 2, 3))
    apart = ((features(seen[0]) - features(seen[1])) ** 2).mean(axis=(1, 2, 3))
    assert apart.min() > 0.1  # otherwise it would not show
    expected = {"squared_error": pixels, "feature_error": apart, "loss": pixels + WEIGHT * apart}
    for name, values in expected.items():
        assert measured[name] == (pytest.approx(values[MASK].sum(), rel=1e-4), 3), name
    trained = step(state, batch, jax.random.key(2))[1]
    assert float(trained["loss"][0]) == pytest.approx(expected["loss"].sum(), rel=1e-4)


def test_the_unexplained_variance_is_numpys_and_the_map_the_squared_residual(looked):
    *_, measured, painted, maps, _ = looked
    residual, total = measured["unexplained_variance"]
    assert residual == pytest.approx(((EXACT - painted) ** 2)[MASK].sum(), rel=1e-5)
    assert total == pytest.approx(EXACT[MASK].var(axis=(1, 2, 3)).sum() * SIDE**2, rel=1e-5)
    np.testing.assert_allclose(maps, ((IMAGES - painted) ** 2)[..., 0], rtol=1e-5)


def test_the_gradient_is_what_the_loss_does(looked):
    state, batch, step, *_ = looked

    def after(params):
        state_after, metrics = step(state._replace(params=params), batch, jax.random.key(0))
        return state_after, float(metrics["loss"][0]) / 4

    # Adam's first moment after one step is a tenth of the gradient.
    grads = jax.tree.map(lambda m: 10 * m, after(state.params)[0].opt_state[0].mu)
    norm = float(np.sqrt(sum(np.vdot(g, g) for g in jax.tree.leaves(grads))))
    move = jax.tree.map(lambda g: 3e-3 * g / norm, grads)
    more, less = (after(jax.tree.map(f, state.params, move))[1] for f in (np.add, np.subtract))
    # Along the gradient the slope is its norm; a loss of about 30 is rounded to 1e-5 of it.
    assert (more - less) / 6e-3 == pytest.approx(norm, rel=0.02)
