"""The CAE of Schneider et al. 2022: parameters, layers against NumPy, the method's functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from recon_ad.errors import UserError
from recon_ad.methods import base, build_method
from recon_ad.models.cae import CAE, SLOPE, START, VAE


def small_config(variant="synthetic", size=32):
    config = default.default_config()
    config.method.variant = variant
    config.data.patch_size = size
    config.inference.stride = size
    return config


@pytest.mark.parametrize(
    ("variant", "parameters"), [("synthetic", 2_444_021), ("industrial", 2_517_877)]
)
def test_has_the_papers_number_of_parameters(variant, parameters):
    model = CAE(variant, (128, 128), 1, 100)
    image = jax.ShapeDtypeStruct((1, 128, 128, 1), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    assert sum(p.size for p in jax.tree.leaves(variables)) == parameters


@pytest.mark.parametrize("variant", ["synthetic", "industrial"])
@pytest.mark.parametrize(("size", "channels"), [((16, 16), 1), ((48, 32), 3), ((64, 80), 5)])
def test_reconstructs_any_size_divisible_by_16_and_any_channels(variant, size, channels):
    model = CAE(variant, size, channels, 7)
    images = jax.random.uniform(jax.random.key(0), (2, *size, channels))
    out, _ = model.init_with_output(jax.random.key(1), images)
    assert out["code"].shape == (2, 7)
    assert out["reconstruction"].shape == images.shape
    assert 0 < out["reconstruction"].min() < out["reconstruction"].max() < 1


def leaky(x):
    return np.where(x > 0, x, SLOPE * x)


def convolve(x, layer, stride=1):
    """3x3, SAME as TensorFlow pads: what is missing after, the odd pixel last."""
    kernel, bias = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)
    h, w = (-(-n // stride) for n in x.shape[:2])
    pad = [max((out - 1) * stride + 3 - n, 0) for out, n in zip((h, w), x.shape[:2], strict=True)]
    x = np.pad(
        x, [(pad[0] // 2, pad[0] - pad[0] // 2), (pad[1] // 2, pad[1] - pad[1] // 2), (0, 0)]
    )
    result = np.empty((h, w, kernel.shape[3]))
    for i in range(h):
        for j in range(w):
            window = x[i * stride : i * stride + 3, j * stride : j * stride + 3]
            result[i, j] = np.einsum("abc,abco->o", window, kernel) + bias
    return result


def transpose_convolve(x, layer):
    """3x3, stride 2: every input pixel spreads its kernel; the output has twice the size."""
    kernel, bias = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)
    h, w, _ = x.shape
    wide = np.zeros((2 * h + 1, 2 * w + 1, kernel.shape[3]))
    for i in range(h):
        for j in range(w):
            # Flax stores the kernel unflipped, as the correlation over the dilated input.
            spread = np.einsum("c,abco->abo", x[i, j], kernel[::-1, ::-1])
            wide[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += spread
    return wide[: 2 * h, : 2 * w] + bias


@pytest.mark.parametrize("variant", ["synthetic", "industrial"])
def test_agrees_with_numpy_layer_by_layer(variant):
    model = CAE(variant, (32, 16), 2, 5)
    image = np.random.default_rng(0).random((32, 16, 2)).astype(np.float32)
    variables = model.init(jax.random.key(3), jnp.asarray(image[None]))
    # Biases start at zero; random ones show whether they are used.
    leaves, tree = jax.tree.flatten(variables["params"])
    rng = np.random.default_rng(1)
    leaves = [p if p.ndim > 1 else rng.normal(0, 0.1, p.shape).astype(np.float32) for p in leaves]
    params = jax.tree.unflatten(tree, leaves)
    encoder, decoder = params["encoder"], params["decoder"]
    x = image.astype(np.float64)
    strides = {"synthetic": (1, 2, 2, 4, 1), "industrial": (1, 2, 2, 2, 2, 1)}[variant]
    for i, stride in enumerate(strides, start=1):
        x = leaky(convolve(x, encoder[f"conv{i}"], stride))
    assert x.shape == (2, 1, 16)
    x = x.ravel()
    dense = lambda x, layer: x @ np.asarray(layer["kernel"], np.float64) + layer["bias"]  # noqa: E731
    code = dense(leaky(dense(x, encoder["lin1"])), encoder["lin2"])
    x = leaky(dense(leaky(dense(code, decoder["lin3"])), decoder["lin4"])).reshape(2, 1, 16)
    ups = {"synthetic": (1, 4, 2, 2, 1), "industrial": (1, 2, 2, 2, 2, 1)}[variant]
    for i, up in enumerate(ups, start=1):
        layer = decoder[f"deconv{i}"]
        if up == 2:
            x = transpose_convolve(x, layer)
        else:
            x = convolve(x.repeat(up, axis=0).repeat(up, axis=1), layer)
        x = 1 / (1 + np.exp(-x)) if i == len(ups) else leaky(x)
    out = model.apply({"params": params}, jnp.asarray(image[None]))
    # float32 against float64 through a dozen layers.
    np.testing.assert_allclose(out["code"][0], code, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out["reconstruction"][0], x, rtol=1e-4, atol=1e-5)


def test_train_step_lowers_the_loss_and_counts():
    method = build_method(small_config(), channels=1)
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 1))
    state = method.init(jax.random.key(1), images)
    step = jax.jit(method.train_step)
    losses = []
    for _ in range(30):
        state, metrics = step(state, images, jax.random.key(2))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    assert int(state.step) == 30
    assert losses[-1] < 0.95 * losses[0]


def test_loss_is_the_mean_squared_error_of_the_reconstruction():
    method = build_method(small_config(), channels=3)
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))
    state = method.init(jax.random.key(1), images)
    reconstruction = np.asarray(method.reconstruct({"params": state.params}, images), np.float64)
    expected = np.mean((np.asarray(images, np.float64) - reconstruction) ** 2)
    _, metrics = method.train_step(state, images, jax.random.key(2))
    total, count = metrics["loss"]
    assert total / count == pytest.approx(expected, rel=1e-5)


def test_anomaly_map_is_the_squared_residual_averaged_over_channels():
    method = build_method(small_config(), channels=3)
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 3))
    variables = {"params": method.init(jax.random.key(1), images).params}
    residual = np.asarray(images - method.reconstruct(variables, images), np.float64)
    np.testing.assert_allclose(
        method.anomaly_map(variables, images), (residual**2).mean(axis=-1), rtol=1e-5
    )


def test_eval_step_leaves_padding_out():
    method = build_method(small_config(), channels=1)
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 1))
    state = method.init(jax.random.key(1), images)
    whole = method.eval_step(state, images[:3], jnp.ones(3, bool))
    padded = method.eval_step(state, images, jnp.array([True, True, True, False]))
    assert set(whole) == {"loss", "unexplained_variance"}
    for name in whole:
        np.testing.assert_allclose(padded[name], whole[name], rtol=1e-6)


def test_unexplained_variance_of_mean_perfect_and_wrong_reconstructions():
    images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 2))
    mean = jnp.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    mask = jnp.ones(3, bool)

    def ratio(reconstructions):
        residual, total = base.unexplained_variance(images, reconstructions, mask)
        return float(residual / total)

    assert ratio(mean) == pytest.approx(1)
    assert ratio(images) == 0
    assert ratio(1 - images) > 1


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("data.patch_size", 100, "multiple of 16"),
        ("method.variant", "paper", "synthetic"),
        ("method.name", "gan", "cae"),
        ("inference.stride", 0, "stride"),
        ("inference.stride", 33, "stride"),
    ],
)
def test_unfit_settings_are_refused_with_what_to_do(field, value, says):
    config = small_config()
    with config.unlocked():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=says):
        build_method(config, channels=1)


def test_gradients_are_finite_on_constant_images():
    method = build_method(small_config("industrial"), channels=1)
    for value in (0.0, 1.0):
        images = jnp.full((2, 32, 32, 1), value)
        state = method.init(jax.random.key(1), images)
        state, _ = method.train_step(state, images, jax.random.key(0))
        assert all(np.isfinite(p).all() for p in jax.tree.leaves(state.params))


def test_a_vaes_codes_begin_nearly_without_noise():
    model = VAE("synthetic", (32, 32), 1, 10)
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 1))
    noise = jnp.zeros((4, 10))
    out = model.apply(model.init(jax.random.key(1), images, noise), images, noise)
    # The last layer's weights add a little to its bias.
    np.testing.assert_allclose(out["log_variance"], START, atol=0.5)
