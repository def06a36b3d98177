"""Feature matching: its loss against NumPy, and that the encoder is there in training only."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import small_config

from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.methods.features import Encoder
from recon_ad.methods.reconstruction import minimize

WEIGHT = 0.3
STEP = 3e-3  # of finite differences, along a direction of length 1


def started(**fields):
    fields = {"method.feature_weight": WEIGHT, "encoder.blocks": (0, 2)} | fields
    config = small_config("configs/bergmann2019.py:method=fm_ae,smoke", **fields)
    method = build_method(config, channels=1)
    frozen, _ = method.pretrained()
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 1))
    batch = method.prepare(frozen, images)
    return method, Encoder(config, channels=1), frozen, images, batch


def features(encoder, frozen, images):
    found = encoder.blocks_of(frozen, jnp.asarray(images, jnp.float32))
    blocks = [np.asarray(found[f"block{i}"], np.float64) for i in (0, 2)]
    centred = [f - f.mean(-1, keepdims=True) for f in blocks]
    return np.concatenate([c / np.sqrt((c**2).mean(-1, keepdims=True)) for c in centred], axis=-1)


def test_the_loss_is_that_of_the_pixels_and_the_weighted_one_of_the_features():
    method, encoder, frozen, images, batch = started()
    state = method.init(jax.random.key(1), batch)
    variables = method.finish(frozen, state, ())
    painted = np.asarray(method.reconstruct(variables, images))
    pixels = ((np.asarray(images, np.float64) - painted) ** 2).mean(axis=(1, 2, 3))
    apart = features(encoder, frozen, images) - features(encoder, frozen, painted)
    seen = (apart**2).mean(axis=(1, 2, 3))
    assert seen.min() > 0.1  # or it would not show
    mask = jnp.array([True, False, True, True])
    measured = jax.jit(method.eval_step)(state, batch, mask)
    for name, expected in (
        ("squared_error", pixels),
        ("feature_error", seen),
        ("loss", pixels + WEIGHT * seen),
    ):
        total, count = measured[name]
        assert float(count) == 3
        assert float(total) == pytest.approx(expected[np.asarray(mask)].sum(), rel=1e-4), name
    _, trained = jax.jit(method.train_step)(state, batch, jax.random.key(2))
    assert float(trained["loss"][0]) == pytest.approx((pixels + WEIGHT * seen).sum(), rel=1e-4)


def test_learning_brings_the_features_nearer_and_keeps_no_encoder():
    method, _, frozen, _, batch = started(**{"optim.learning_rate": 1e-3})
    state = method.init(jax.random.key(1), batch)
    step = jax.jit(method.train_step)
    errors = []
    for i in range(40):
        state, metrics = step(state, batch, jax.random.key(i))
        errors.append(float(metrics["feature_error"][0]) / 4)
    assert errors[-1] < 0.8 * errors[0]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    variables = method.finish(frozen, state, ())
    assert set(variables) == {"params"}


def test_the_gradient_of_the_features_is_what_the_loss_does():
    # So much weight that the pixels' part of the gradient is a hundredth.
    method, _, _, _, batch = started(**{"method.feature_weight": 100.0})
    state = method.init(jax.random.key(1), batch)
    losses = method.train_step.keywords["losses"]
    grads, _ = jax.jit(functools.partial(minimize, losses))(state.params, batch, None)
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
    evaluate = jax.jit(method.eval_step)

    def loss(step, name):
        params = jax.tree.map(lambda p, g: p + step * g / norm, state.params, grads)
        total, count = evaluate(state._replace(params=params), batch, jnp.ones(4, bool))[name]
        return float(total / count)

    slopes = {
        name: (loss(STEP, name) - loss(-STEP, name)) / (2 * STEP)
        for name in ("loss", "feature_error", "squared_error")
    }
    assert abs(slopes["squared_error"]) < 0.01 * slopes["loss"]
    # Along the gradient the slope is its norm; a loss of some 50 is rounded to 1e-5 of it.
    assert slopes["loss"] == pytest.approx(float(norm), rel=0.02)
    assert 100 * slopes["feature_error"] == pytest.approx(float(norm), rel=0.03)


def test_the_unexplained_variance_is_numpys():
    method, _, frozen, images, batch = started()
    state = method.init(jax.random.key(1), batch)
    mask = np.array([True, False, True, True])
    residual, total = method.eval_step(state, batch, jnp.asarray(mask))["unexplained_variance"]
    exact = np.asarray(images, np.float64)[mask]
    painted = np.asarray(method.reconstruct(method.finish(frozen, state, ()), images))[mask]
    assert float(residual) == pytest.approx(((exact - painted) ** 2).sum(), rel=1e-5)
    assert float(total) == pytest.approx(exact.var(axis=(1, 2, 3)).sum() * 32 * 32, rel=1e-5)


def test_the_map_is_the_squared_residual():
    method, _, frozen, images, batch = started()
    variables = method.finish(frozen, method.init(jax.random.key(1), batch), ())
    painted = method.reconstruct(variables, images)
    np.testing.assert_allclose(
        method.anomaly_map(variables, images), ((images - painted) ** 2)[..., 0], rtol=1e-5
    )


def test_settings_that_do_not_fit_get_a_sentence():
    with pytest.raises(UserError, match="feature_weight is 0"):
        started(**{"method.feature_weight": 0.0})
    with pytest.raises(UserError, match="multiple of it"):
        started(**{"encoder.name": "vit_small_patch14_dinov2"})
