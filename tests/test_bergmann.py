"""The autoencoder of Bergmann et al. 2019: parameters, layers against NumPy, how it begins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import small_config

from recon_ad.methods import build_method
from recon_ad.models.bergmann import LOG_VARIANCE, BergmannAE, BergmannVAE, Decoder

# The paper's table: channels, side of the kernel, stride. The code's layer covers what is left.
ENCODER = [
    (32, 4, 2), (32, 4, 2), (32, 3, 1), (64, 4, 2), (64, 3, 1), (128, 4, 2), (64, 3, 1),
    (32, 3, 1),
]  # fmt: skip
# Its mirror image, without the layer that covers the code and with the image's channels last.
DECODER = [
    (64, 3, 1), (128, 3, 1), (64, 4, 2), (64, 3, 1), (32, 4, 2), (32, 3, 1), (32, 4, 2),
    (None, 4, 2),
]  # fmt: skip


def test_has_the_tables_number_of_parameters():
    expected = 2048 * 100 + 100 + 100 * 2048 + 2048  # the linear layers that cover 8x8x32
    for before, table in ((1, ENCODER), (32, DECODER)):
        for channels, side, _ in table:
            expected += side * side * before * (channels or 1) + (channels or 1)
            before = channels
    image = jax.ShapeDtypeStruct((1, 128, 128, 1), jnp.float32)
    variables = jax.eval_shape(BergmannAE((128, 128), 1, 100).init, jax.random.key(0), image)
    found = sum(p.size for p in jax.tree.leaves(variables))
    assert found == expected == 1_050_565
    code = jax.ShapeDtypeStruct((1, 100), jnp.float32)
    vae = jax.eval_shape(BergmannVAE((128, 128), 1, 100).init, jax.random.key(0), image, code)
    assert sum(p.size for p in jax.tree.leaves(vae)) == expected + 2048 * 100 + 100


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def convolve(x, kernel, bias, stride):
    """One pixel of zeros around: a 3x3 kernel keeps the size, a 4x4 one of stride 2 halves it."""
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((1, 1), (1, 1), (0, 0))), kernel.shape[:2], (0, 1)
    )
    return np.einsum("ijcuv,uvco->ijo", windows[::stride, ::stride], kernel) + bias


def transpose_convolve(x, kernel, bias):
    """4x4, stride 2: every pixel spreads its kernel, and a pixel around the result falls off."""
    h, w, _ = x.shape
    wide = np.zeros((2 * h + 2, 2 * w + 2, kernel.shape[3]))
    for i in range(4):
        for j in range(4):
            # Flax stores the kernel unflipped, as the correlation over the dilated input.
            wide[i : i + 2 * h : 2, j : j + 2 * w : 2] += x @ kernel[3 - i, 3 - j]
    return wide[1:-1, 1:-1] + bias


def encode(encoder, image):
    """The map of each convolution of the encoder, and the last one's activation."""
    maps, x = [], 4 * (image.astype(np.float64) - 0.5)
    for i, (channels, side, stride) in enumerate(ENCODER, start=1):
        layer = encoder[f"conv{i}"]
        assert layer["kernel"].shape == (side, side, x.shape[2], channels)
        maps.append(convolve(x, **layer, stride=stride))
        x = leaky(maps[-1])
    return maps, x


def test_agrees_with_numpy_layer_by_layer():
    model = BergmannAE((48, 32), 2, 5)
    rng = np.random.default_rng(0)
    image = rng.random((48, 32, 2)).astype(np.float32)

    def draw(p):  # biases too, which start at zero: does the network use them?
        spread = np.sqrt(1.9 / np.prod(p.shape[:-1])) if len(p.shape) > 1 else 0.1
        return rng.normal(0, spread, p.shape).astype(np.float32)

    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.asarray(image[None]))
    params = jax.tree.map(draw, shapes["params"])
    exact = jax.tree.map(lambda p: p.astype(np.float64), params)
    encoder, decoder = exact["encoder"], exact["decoder"]

    _, x = encode(encoder, image)
    assert x.shape == (3, 2, 32)
    code = x.ravel() @ encoder["conv9"]["kernel"] + encoder["conv9"]["bias"]
    x = leaky(code @ decoder["deconv1"]["kernel"] + decoder["deconv1"]["bias"]).reshape(3, 2, 32)
    for i, (channels, side, stride) in enumerate(DECODER, start=2):
        layer = decoder[f"deconv{i}"]
        assert layer["kernel"].shape == (side, side, x.shape[2], channels or 2)
        x = transpose_convolve(x, **layer) if stride == 2 else convolve(x, **layer, stride=1)
        x = leaky(x) if channels else 1 / (1 + np.exp(-x))

    out = jax.jit(model.apply)({"params": params}, jnp.asarray(image[None]))
    # float32 against float64 through eighteen layers.
    np.testing.assert_allclose(out["code"][0], code, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out["reconstruction"][0], x, rtol=1e-5, atol=1e-6)


def test_the_signal_keeps_its_spread_in_the_encoder_and_ends_near_gray():
    # Compiled as in test_methods, so once for both.
    method = build_method(small_config("configs/folder.py:method=l2_ae,smoke"), channels=2)
    images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 2))
    params = jax.jit(method.init)(jax.random.key(1), images).params
    maps, _ = encode(jax.tree.map(np.asarray, params["encoder"]), np.tile(images[0], (2, 2, 1)))
    spreads = [np.sqrt(np.mean(x**2)) for x in maps]
    # A little above 1 as the images are; the zeros around the last maps, of 4x4, take some.
    assert 0.5 < min(spreads) < max(spreads) < 1.5
    reconstructions = jax.jit(method.reconstruct)({"params": params}, images)
    assert np.abs(reconstructions - 0.5).max() < 0.05


def test_their_vae_draws_its_code_and_shows_the_mean():
    config = small_config("configs/bergmann2019.py:method=vae,smoke", **{"method.n_z": 5})
    method = build_method(config, channels=1)
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 1))
    state = method.init(jax.random.key(1), images)
    model = BergmannVAE((32, 32), 1, 5)
    variables = method.finish({}, state, ())
    noise = jax.random.normal(jax.random.key(2), (2, 5))
    out = model.apply(variables, images, noise)
    np.testing.assert_allclose(
        out["code"], out["mean"] + jnp.exp(out["log_variance"] / 2) * noise, rtol=1e-6
    )
    assert float(jnp.max(jnp.abs(out["log_variance"] + 5))) < 3  # begins near log σ² = −5
    still = model.apply(variables, images, jnp.zeros((2, 5)))
    np.testing.assert_allclose(method.encode(variables, images), still["mean"], rtol=1e-5)
    np.testing.assert_allclose(
        method.reconstruct(variables, images), still["reconstruction"], rtol=1e-5
    )


def test_their_vae_paints_the_drawn_code_in_training():
    config = small_config("configs/bergmann2019.py:method=vae,smoke", **{"method.n_z": 5})
    method = build_method(config, channels=1)
    images = jax.random.uniform(jax.random.key(0), (2, 32, 32, 1))
    state = jax.jit(method.init)(jax.random.key(1), images)
    head = state.params["encoder"][LOG_VARIANCE]
    head["bias"] = jnp.full_like(head["bias"], 2.0)  # so much noise that it shows
    key = jax.random.key(2)
    noise = jax.random.normal(key, (2, 5))
    out = jax.jit(BergmannVAE((32, 32), 1, 5).apply)({"params": state.params}, images, noise)
    decode = jax.jit(Decoder((32, 32), 1).apply)
    drawn, mean = (
        np.asarray(decode({"params": state.params["decoder"]}, out[name]), np.float64)
        for name in ("code", "mean")
    )
    np.testing.assert_allclose(out["reconstruction"], drawn, rtol=1e-5)
    _, metrics = jax.jit(method.train_step)(state, images, key)
    error, without = (((np.asarray(images) - x) ** 2).mean() for x in (drawn, mean))
    assert float(metrics["squared_error"][0]) == pytest.approx(2 * error, rel=1e-5)
    assert abs(error - without) > 3e-4 * error  # or either would do
