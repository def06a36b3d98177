"""The autoencoder of Bergmann et al. 2019: parameters, layers against NumPy, initial state."""

import functools

import jax
import numpy as np
import pytest
from helpers import convolutions
from helpers.convolutions import convolve, dense, parameter_count, transpose_convolve
from helpers.detectors import random_state
from helpers.small_runs import small_config

from recon_ad.methods import build_method
from recon_ad.models.bergmann import LOG_VARIANCE, BergmannAE, BergmannVAE, Decoder

# The paper's table: channels, side of the kernel, stride. The code layer covers the rest.
ENCODER = [
    (32, 4, 2), (32, 4, 2), (32, 3, 1), (64, 4, 2), (64, 3, 1), (128, 4, 2), (64, 3, 1),
    (32, 3, 1),
]  # fmt: skip
# Its mirror image, without the layer for the code and with the image's channels last.
DECODER = [
    (64, 3, 1), (128, 3, 1), (64, 4, 2), (64, 3, 1), (32, 4, 2), (32, 3, 1), (32, 4, 2),
    (None, 4, 2),
]  # fmt: skip


def test_has_the_tables_number_of_parameters():
    image = (1, 128, 128, 1)
    # The layers below, and the linear ones for 8x8x32.
    assert parameter_count(BergmannAE((128, 128), 1, 100), image) == 1_050_565
    more = parameter_count(BergmannVAE((128, 128), 1, 100), image, (1, 100))
    assert more == 1_050_565 + 2048 * 100 + 100


leaky = functools.partial(convolutions.leaky, slope=0.2)


def encode(encoder, image):
    """Compute the output of each convolution of the encoder, with the last one's activation."""
    maps, x = [], 4 * (image.astype(np.float64) - 0.5)
    for i, (channels, side, stride) in enumerate(ENCODER, start=1):
        layer = encoder[f"conv{i}"]
        assert layer["kernel"].shape == (side, side, x.shape[2], channels)
        maps.append(convolve(x, layer, stride))
        x = leaky(maps[-1])
    return maps, x


def test_agrees_with_numpy_layer_by_layer():
    model = BergmannAE((48, 32), 2, 5)
    image = np.random.default_rng(0).random((48, 32, 2), np.float32)
    params = convolutions.drawn_params(model, image[None])
    encoder, decoder = params["encoder"], params["decoder"]

    _, x = encode(encoder, image)
    assert x.shape == (3, 2, 32)
    code = dense(x.ravel(), encoder["conv9"])
    x = leaky(dense(code, decoder["deconv1"])).reshape(3, 2, 32)
    for i, (channels, side, stride) in enumerate(DECODER, start=2):
        layer = decoder[f"deconv{i}"]
        assert layer["kernel"].shape == (side, side, x.shape[2], channels or 2)
        x = transpose_convolve(x, layer) if stride == 2 else convolve(x, layer)
        x = leaky(x) if channels else 1 / (1 + np.exp(-x))

    out = jax.jit(model.apply)({"params": params}, image[None])
    # float32 against float64 through eighteen layers.
    np.testing.assert_allclose(out["code"][0], code, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(out["reconstruction"][0], x, rtol=1e-5, atol=1e-6)


def test_the_signal_keeps_its_spread_in_the_encoder_and_ends_near_gray():
    config = small_config("configs/folder.py:method=l2_ae,smoke", **{"method.width": 1.0})
    method = build_method(config, channels=2)
    images = np.random.default_rng(0).random((4, 32, 32, 2), np.float32)

    @jax.jit
    def begin(key, images):
        params = method.init(key, images).params
        return params, method.reconstruct({"params": params}, images)

    params, reconstructions = begin(jax.random.key(1), images)
    maps, _ = encode(params["encoder"], np.tile(images[0], (2, 2, 1)))
    spreads = [np.sqrt(np.mean(x**2)) for x in maps]
    # Slightly above 1, as for the images; the zeros around the last maps, of 4x4, reduce it.
    assert 0.5 < min(spreads) < max(spreads) < 1.5
    assert np.abs(reconstructions - 0.5).max() < 0.05


def test_their_vae_paints_the_code_it_draws_in_training_and_shows_the_mean():
    config = small_config("configs/bergmann2019.py:method=vae,smoke", **{"method.n_z": 5})
    method, width = build_method(config, channels=1), config.method.width
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    state = random_state(method, images)
    # enough noise to show
    state.params["encoder"][LOG_VARIANCE]["bias"] = np.full(5, 2, np.float32)
    model, decoder = BergmannVAE((32, 32), 1, 5, width), Decoder((32, 32), 1, width)
    variables = method.finish({}, state, ())

    @jax.jit
    def run(state, variables, images, key):
        out = model.apply(variables, images, jax.random.normal(key, (2, 5)))
        still = model.apply(variables, images, jax.numpy.zeros((2, 5)))
        params = {"params": state.params["decoder"]}
        decoded = [decoder.apply(params, out[name]) for name in ("code", "mean")]
        shown = method.encode(variables, images), method.reconstruct(variables, images)
        return out, still, decoded, shown, method.train_step(state, images, key)[1]

    key = jax.random.key(2)
    out, still, decoded, shown, metrics = run(state, variables, images, key)
    spread = np.exp(out["log_variance"] / 2) * jax.random.normal(key, (2, 5))
    np.testing.assert_allclose(out["code"], out["mean"] + spread, rtol=1e-6)
    np.testing.assert_allclose(shown[0], still["mean"], rtol=1e-5)
    np.testing.assert_allclose(shown[1], still["reconstruction"], rtol=1e-5)
    drawn, mean = (np.asarray(x, np.float64) for x in decoded)
    np.testing.assert_allclose(out["reconstruction"], drawn, rtol=1e-5)
    error, without = (((images - x) ** 2).mean() for x in (drawn, mean))
    assert float(metrics["squared_error"][0]) == pytest.approx(2 * error, rel=1e-5)
    assert abs(error - without) > 3e-4 * error  # otherwise either would do
