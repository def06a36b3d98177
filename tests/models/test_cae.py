"""The CAE of Schneider et al. 2022: parameters, layers against NumPy, the method's functions."""

import functools

import jax
import numpy as np
import pytest
from helpers import convolutions
from helpers.convolutions import convolve, dense, parameter_count, transpose_convolve
from helpers.detectors import random_state
from helpers.small_runs import small_config

from recon_ad.errors import UserError
from recon_ad.methods import base, build_method
from recon_ad.models import bergmann, cae
from recon_ad.models.cae import CAE, VAE


def small_cae(*, channels=1, **fields):
    fields = {"data.patch_size": 32, "inference.stride": 32} | fields
    return build_method(
        small_config("configs/folder.py:method=cae,smoke", **fields), channels=channels
    )


@pytest.mark.parametrize(
    ("variant", "parameters"), [("synthetic", 2_444_021), ("industrial", 2_517_877)]
)
def test_has_the_papers_number_of_parameters(variant, parameters):
    image = (1, 128, 128, 1)
    assert parameter_count(CAE(variant, (128, 128), 1, 100), image) == parameters
    more = parameter_count(VAE(variant, (128, 128), 1, 100), image, (1, 100))
    assert more == parameters + 102_500


leaky = functools.partial(convolutions.leaky, slope=0.01)


@pytest.mark.parametrize(
    ("variant", "strides", "ups"),
    [
        ("synthetic", (1, 2, 2, 4, 1), (1, 4, 2, 2, 1)),
        ("industrial", (1, 2, 2, 2, 2, 1), (1, 2, 2, 2, 2, 1)),
    ],
)
def test_agrees_with_numpy_layer_by_layer(variant, strides, ups):
    model = CAE(variant, (32, 16), 2, 5)
    image = np.random.default_rng(0).random((32, 16, 2), np.float32)
    params = convolutions.drawn_params(model, image[None])
    encoder, decoder = params["encoder"], params["decoder"]
    x = image.astype(np.float64)
    for i, stride in enumerate(strides, start=1):
        x = leaky(convolve(x, encoder[f"conv{i}"], stride))
    assert x.shape == (2, 1, 16)
    code = dense(leaky(dense(x.ravel(), encoder["lin1"])), encoder["lin2"])
    x = leaky(dense(leaky(dense(code, decoder["lin3"])), decoder["lin4"])).reshape(2, 1, 16)
    for i, up in enumerate(ups, start=1):
        layer = decoder[f"deconv{i}"]
        if up == 2:
            x = transpose_convolve(x, layer)
        else:
            x = convolve(x.repeat(up, axis=0).repeat(up, axis=1), layer)
        x = 1 / (1 + np.exp(-x)) if i == len(ups) else leaky(x)
    out = jax.jit(model.apply)({"params": params}, image[None])
    # float32 against float64 through a dozen layers.
    np.testing.assert_allclose(out["code"][0], code, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["reconstruction"][0], x, rtol=1e-4, atol=1e-5)
    assert 0 < x.min() < x.max() < 1


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((4, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def trained(images):
    """Return the method, a first state of it, and its compiled step."""
    method = small_cae(channels=3, **{"optim.learning_rate": 2e-3})
    return method, random_state(method, images), jax.jit(method.train_step)


def test_train_step_lowers_the_loss_and_counts(trained, images):
    _, state, step = trained
    losses = []
    for _ in range(60):
        state, metrics = step(state, images, jax.random.key(2))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    assert int(state.step) == 60 and losses[-1] < 0.95 * losses[0]


def test_gradients_are_finite_on_constant_images(trained, images):
    _, state, step = trained
    for value in (0.0, 1.0):
        after, _ = step(state, np.full_like(images, value), jax.random.key(2))
        assert all(np.isfinite(p).all() for p in jax.tree.leaves(after.params))


def test_loss_and_map_are_the_squared_residual_and_padding_is_left_out(trained, images):
    method, state, step = trained

    @jax.jit
    def run(state, images, mask):
        variables = {"params": state.params}
        shown = [f(variables, images) for f in (method.reconstruct, method.anomaly_map)]
        return shown, method.eval_step(state, images, mask)

    (reconstruction, anomaly_map), metrics = run(state, images, np.arange(4) < 3)
    squared = (images.astype(np.float64) - np.asarray(reconstruction)) ** 2
    np.testing.assert_allclose(anomaly_map, squared.mean(axis=-1), rtol=1e-5)
    total, count = step(state, images, jax.random.key(2))[1]["loss"]
    assert total / count == pytest.approx(squared.mean(), rel=1e-5)
    variance = ((images - images.mean(axis=(1, 2), keepdims=True)) ** 2)[:3].sum()
    expected = {
        "loss": (squared[:3].mean(axis=(1, 2, 3)).sum(), 3),
        "unexplained_variance": (squared[:3].sum(), variance),
    }
    assert set(metrics) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(metrics[name], values, rtol=1e-5)


def test_unexplained_variance_of_mean_perfect_and_wrong_reconstructions(images):
    mean = np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    ratio = jax.jit(base.unexplained_variance)
    given = [ratio(images, shown, np.ones(4, bool)) for shown in (mean, images, 1 - images)]
    found = [float(residual / total) for residual, total in given]
    assert found[0] == pytest.approx(1) and found[1] == 0 and found[2] > 1


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("data.patch_size", 100, "multiple of 16"),
        ("method.variant", "paper", "synthetic"),
        ("method.name", "gan", "cae"),
        ("inference.stride", -1, "stride"),
        ("inference.stride", 33, "stride"),
    ],
)
def test_unfit_settings_are_refused_with_what_to_do(field, value, says):
    with pytest.raises(UserError, match=says):
        small_cae(**{field: value})


@pytest.mark.parametrize(
    # The last layer's weights add to its bias, little for Schneider's network, more for Bergmann's.
    ("encoder", "apart"),
    [
        (cae.Encoder("synthetic", 10, (cae.MEAN, cae.LOG_VARIANCE), 0.25), 0.5),
        (bergmann.Encoder(10, (bergmann.MEAN, bergmann.LOG_VARIANCE), 0.25), 3),
    ],
    ids=["Schneider's", "Bergmann's"],
)
def test_a_vaes_codes_begin_nearly_without_noise(encoder, apart):
    images = np.random.default_rng(0).random((4, 32, 32, 1), np.float32)
    (_, log_variance), _ = jax.jit(encoder.init_with_output)(jax.random.key(1), images)
    np.testing.assert_allclose(log_variance, -5, atol=apart)
