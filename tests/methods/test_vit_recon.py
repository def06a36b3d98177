"""Reconstruction of features: linear attention, the mined loss, and what becomes a map."""

import functools
import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.convolutions import dense, drawn_params
from helpers.small_encoder import CELLS, IMAGES, SIDE, WIDTH, config_for, started
from scipy import special

from recon_ad.methods import vit_recon
from recon_ad.methods.features import Encoder
from recon_ad.models.feature_decoder import FeatureDecoder, LinearAttention


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def attended(x, p, heads=3):
    """Linear attention in NumPy, with the weights of all to all, which are never made here."""
    parts = np.split(dense(x, p["qkv"]), 3, axis=-1)
    q, k, v = (part.reshape(*part.shape[:-1], heads, -1) for part in parts)
    q, k = (np.where(a > 0, a + 1, np.exp(np.minimum(a, 0))) for a in (q, k))
    weights = np.einsum("bqhd,bkhd->bhqk", q, k)
    weights /= weights.sum(axis=-1, keepdims=True)
    return dense(np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape), p["proj"])


def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8) * p["scale"] + p["bias"]


def mlp(x, p):
    hidden = x @ p["fc1"]["kernel"]
    assert hidden.shape[-1] == 4 * x.shape[-1] and set(p["fc1"]) == set(p["fc2"]) == {"kernel"}
    return hidden * special.ndtr(hidden) @ p["fc2"]["kernel"]  # the exact GELU


def test_bottleneck_and_blocks_are_numpys_and_only_training_is_noisy():
    model, tokens = FeatureDecoder(2, 3), normal(2, 9, 6)
    params = drawn_params(model, tokens, spread=0.3, noisy=False)

    @jax.jit
    def decode(params, tokens, key):
        noisy = model.apply({"params": params}, tokens, noisy=True, rngs={"dropout": key})
        return model.apply({"params": params}, tokens, noisy=False), noisy["block1"]

    found, noisy = decode(params, tokens, jax.random.key(0))
    exact = jax.tree.map(np.float64, params)
    x = mlp(np.float64(tokens), exact)
    for name in ("block0", "block1"):
        x = x + attended(norm(x, exact[name]["norm1"]), exact[name]["attn"])
        x = x + mlp(norm(x, exact[name]["norm2"]), exact[name])
        assert np.abs(x).max() > 0.5
        np.testing.assert_allclose(found[name], x, rtol=1e-4, atol=1e-4)
    again, other = decode(params, tokens, jax.random.key(1))
    np.testing.assert_array_equal(again["block1"], found["block1"])
    assert np.abs(noisy - other).max() > 1e-3


def test_a_fifth_is_dropped_before_between_and_after_the_layers_of_the_bottleneck():
    d = 6
    model, tokens = FeatureDecoder(1, 3), np.full((20, 100, d), 10, np.float32)  # beyond GELU
    # Numbers go through unmixed, and the block adds nothing.
    params = drawn_params(model, tokens, spread=0.0, noisy=False)
    params["fc1"]["kernel"] = np.eye(d, 4 * d, dtype=np.float32)
    params["fc2"]["kernel"] = np.eye(4 * d, d, dtype=np.float32)
    decode = jax.jit(functools.partial(model.apply, noisy=True))
    found = decode({"params": params}, tokens, rngs={"dropout": jax.random.key(2)})["block0"]
    found = np.asarray(found)
    np.testing.assert_allclose(found[found != 0], 10 / 0.8**3, rtol=1e-5)
    # Of 12 000 numbers: five standard errors.
    assert np.mean(found != 0) == pytest.approx(0.8**3, abs=0.023)


def test_attention_and_loss_stay_finite_where_there_is_nothing_to_attend_to():
    x, attention = normal(1, 4, 6), LinearAttention(heads=3)
    params = drawn_params(attention, x, spread=0.3)
    params["qkv"]["bias"] = np.full(18, -30, np.float32)
    total = jax.jit(jax.value_and_grad(lambda p, x: attention.apply({"params": p}, x).sum()))
    value, grads = total(params, x)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    nothing = np.zeros((1, 2, 2, 2, 3), np.float32)
    slope = jax.jit(jax.grad(lambda f, t: vit_recon.mined_loss(t, f, 0.5).sum()))
    for found in (nothing, nothing + 1):
        assert np.isfinite(slope(found, nothing + 1)).all()


def apart(x, y):
    x, y = np.float64(x), np.float64(y)
    return 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)


def test_the_loss_is_one_minus_the_cosine_of_images_and_what_is_easy_counts_a_tenth_in_its_slope():
    a, b = normal(3, 4, 5, 2, 6), normal(3, 4, 5, 2, 6, seed=1)  # two groups of three images

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def slope_and_loss(b, easy):
        found = vit_recon.mined_loss(jnp.asarray(a), b, easy)
        return found.sum(), found

    slopes = {}
    whole = [np.moveaxis(x, 3, 1).reshape(3, 2, -1) for x in (a, b)]
    for easy in (0.0, 0.5, 0.8, 0.9):  # mining changes gradients only
        slopes[easy], found = slope_and_loss(b, easy)
        np.testing.assert_allclose(found, apart(*whole).mean(axis=1), rtol=1e-5)
    share = np.linalg.norm(slopes[0.8], axis=-1) / np.linalg.norm(slopes[0.0], axis=-1)
    for g in range(2):
        here = apart(a, b)[..., g]
        hard = here >= np.quantile(here, 0.8)
        assert 0.15 < hard.mean() < 0.25
        np.testing.assert_allclose(share[..., g], np.where(hard, 1.0, 0.1), rtol=1e-4)


@pytest.fixture(scope="module")
def on_three(small_encoder):
    """The method on three blocks, as `started`, and its programs."""
    fields = {"optim.learning_rate": 5e-3, "train.steps": 100}
    method, *rest = started(small_encoder, "vit_recon", **fields)
    steps = [jax.jit(f) for f in (method.train_step, method.eval_step, method.anomaly_map)]
    return method, *rest, steps


def test_groups_are_means_of_blocks_and_the_decoders_are_the_encoders_in_reverse(
    small_encoder, on_three
):
    method, frozen, groups, state, (_, evaluate, maps) = on_three
    encoder = Encoder(config_for(small_encoder, "vit_recon"), channels=1)
    seen = jax.jit(encoder.blocks_of)(frozen, IMAGES)
    seen = np.float64([seen[f"block{i}"] for i in range(3)])
    earlier_and_later = np.stack([seen[0], seen[1:].mean(axis=0)], axis=3)
    np.testing.assert_allclose(groups, earlier_and_later, atol=1e-5)
    apply = jax.jit(functools.partial(FeatureDecoder(3, 3).apply, noisy=False))

    def pairs(blocks):
        """Groups of the encoder and of the decoder, [b, r, k, d] each."""
        # Each block counts alike, whatever group it is in.
        mean = np.mean(blocks, axis=0).reshape(4, CELLS**2, WIDTH).astype(np.float32)
        found = apply({"params": state.params}, mean)
        found = [np.float64(found[f"block{i}"]).reshape(blocks[0].shape) for i in range(3)]
        return [(blocks[0], found[2]), (np.mean(blocks[1:], axis=0), np.mean(found[:2], axis=0))]

    # Of blocks that have nothing in common, so that each matters.
    blocks = np.float64(normal(3, 4, CELLS, CELLS, WIDTH))
    targets = np.stack([blocks[0], blocks[1:].mean(axis=0)], axis=3).astype(np.float32)
    whole = [apart(x.reshape(4, -1), y.reshape(4, -1)) for x, y in pairs(blocks)]
    total, _ = evaluate(state, targets, np.ones(4, bool))["loss"]
    assert float(total) == pytest.approx(np.mean(whole, axis=0).sum(), rel=1e-5)

    each = [apart(x, y) for x, y in pairs(seen)]
    expected = [cv2.resize(x, (SIDE, SIDE)) for x in np.mean(each, axis=0)]  # bilinear
    found = maps(method.finish(frozen, state, ()), IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_training_is_noisy_and_mines_ever_harder_in_its_first_tenth(on_three):
    _, _, groups, state, (step, *_) = on_three

    @jax.jit
    def expected(params, groups, easy):
        mean = (groups[..., 0, :] + 2 * groups[..., 1, :]) / 3

        def loss(params):
            found = FeatureDecoder(3, 3).apply(
                {"params": params}, mean.reshape(4, CELLS**2, WIDTH), noisy=True,
                rngs={"dropout": jax.random.key(2)},
            )  # fmt: skip
            blocks = [found[f"block{i}"].reshape(mean.shape) for i in range(3)]
            found = jnp.stack([blocks[2], (blocks[0] + blocks[1]) / 2], axis=3)
            each = vit_recon.mined_loss(groups, found, easy)
            return jnp.mean(each), each

        return jax.grad(loss, has_aux=True)(params)

    seen = []
    for done, easy in ((0, 0.0), (5, 0.45), (10, 0.9), (60, 0.9)):
        after, metrics = step(state._replace(step=np.int32(done)), groups, jax.random.key(2))
        # Adam's first moment after one step is a tenth of the gradient.
        found = 10 * np.asarray(after.opt_state[0].mu["fc1"]["kernel"])
        grads, losses = jax.device_get(expected(state.params, groups, easy))
        np.testing.assert_allclose(found, grads["fc1"]["kernel"], atol=1e-4 * found.max())
        assert float(metrics["loss"][0]) == pytest.approx(losses.sum(), rel=1e-5)
        seen.append(found)
    for a, b in itertools.pairwise(seen[:3]):
        assert np.linalg.norm(a - b) > 0.05 * np.linalg.norm(a)
    # Each key drops other numbers.
    _, other = step(state, groups, jax.random.key(3))
    assert float(other["loss"][0]) != pytest.approx(float(metrics["loss"][0]), rel=1e-4)
