"""Feature matching: its loss against NumPy, and that the encoder is there in training only."""

import jax
import numpy as np
import pytest
from helpers.detectors import random_state
from helpers.small_encoder import SIDE
from helpers.small_runs import small_config

from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.methods.features import Encoder

WEIGHT = 100.0  # so much that the pixels' part of the gradient is a hundredth
STEP = 3e-3  # of finite differences, along a direction of length 1
IMAGES = np.random.default_rng(0).random((4, SIDE, SIDE, 1), np.float32)
EXACT = IMAGES.astype(np.float64)
MASK = np.array([True, False, True, True])


def config_of(fields):
    return small_config("configs/bergmann2019.py:method=fm_ae,smoke", **fields)


@pytest.fixture(scope="module")
def looked(small_encoder):
    """The method's first state, batch and step, and what it makes of them."""
    fields = {
        "encoder.blocks": (0, 2),
        "fm_ae.feature_weight": WEIGHT,
        "optim.learning_rate": 3e-3,
    }
    config = config_of(small_encoder | fields)
    method, encoder = build_method(config, channels=1), Encoder(config, channels=1)
    batch = method.prepare(method.pretrained()[0], jax.device_put(IMAGES))
    state, random = random_state(method, batch), np.random.default_rng(1)
    # Biases, too, or some activations would stand at the kink of their function.
    params = jax.tree.map(
        lambda p: p + random.normal(0, 0.1, p.shape).astype(np.float32), state.params
    )
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
    assert apart.min() > 0.1  # or it would not show
    expected = {"squared_error": pixels, "feature_error": apart, "loss": pixels + WEIGHT * apart}
    for name, values in expected.items():
        total, count = measured[name]
        assert count == 3
        assert total == pytest.approx(values[MASK].sum(), rel=1e-4), name
    trained = step(state, batch, jax.random.key(2))[1]
    assert float(trained["loss"][0]) == pytest.approx(expected["loss"].sum(), rel=1e-4)


def test_the_unexplained_variance_is_numpys_and_the_map_the_squared_residual(looked):
    *_, measured, painted, maps, _ = looked
    residual, total = measured["unexplained_variance"]
    assert residual == pytest.approx(((EXACT - painted) ** 2)[MASK].sum(), rel=1e-5)
    assert total == pytest.approx(EXACT[MASK].var(axis=(1, 2, 3)).sum() * SIDE**2, rel=1e-5)
    np.testing.assert_allclose(maps, ((IMAGES - painted) ** 2)[..., 0], rtol=1e-5)


def test_learning_brings_the_features_nearer(looked):
    state, batch, step, *_ = looked
    errors = []
    for i in range(80):
        state, metrics = step(state, batch, jax.random.key(i))
        errors.append(float(metrics["feature_error"][0]) / 4)
    assert errors[-1] < 0.8 * errors[0]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


def test_the_gradient_of_the_features_is_what_the_loss_does(looked):
    state, batch, step, *_ = looked
    # Adam's first moment after one step is a tenth of the gradient.
    moment = step(state, batch, jax.random.key(0))[0].opt_state[0].mu
    grads = jax.tree.map(lambda m: 10 * np.asarray(m), moment)
    norm = np.sqrt(sum(np.vdot(g, g) for g in jax.tree.leaves(grads)))

    def moved(distance):
        params = jax.tree.map(lambda p, g: p + distance * g / norm, state.params, grads)
        found = step(state._replace(params=params), batch, jax.random.key(0))[1]
        return {name: float(total) / 4 for name, (total, _) in found.items()}

    after, before = moved(STEP), moved(-STEP)
    slopes = {name: (after[name] - before[name]) / (2 * STEP) for name in after}
    assert abs(slopes["squared_error"]) < 0.01 * slopes["loss"]
    # Along the gradient the slope is its norm; a loss of some 30 is rounded to 1e-5 of it.
    assert slopes["loss"] == pytest.approx(float(norm), rel=0.02)
    assert WEIGHT * slopes["feature_error"] == pytest.approx(float(norm), rel=0.03)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("fm_ae.feature_weight", 0.0, "feature_weight is 0"),
        ("encoder.name", "vit_small_patch14_dinov2", "multiple of it"),
    ],
)
def test_settings_that_do_not_fit_get_a_sentence(field, value, says):
    with pytest.raises(UserError, match=says):
        build_method(config_of({field: value}), channels=1)
