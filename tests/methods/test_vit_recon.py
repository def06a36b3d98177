"""Reconstruction of features: linear attention, the mined loss, and the map."""

import functools
import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.convolutions import dense, drawn_params
from helpers.small_encoder import CELLS, IMAGES, SIDE, WIDTH, config_for, started
from helpers.small_runs import small_config
from scipy import special, stats

from recon_ad.methods import vit_recon
from recon_ad.methods.features import Encoder
from recon_ad.models.feature_decoder import FeatureDecoder, LinearAttention


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def attended(x, p, heads=3):
    """Compute linear attention in NumPy with all pairwise weights, which the code never builds."""
    parts = np.split(dense(x, p["qkv"]), 3, axis=-1)
    q, k, v = (part.reshape(*part.shape[:-1], heads, -1) for part in parts)
    q, k = (np.where(a > 0, a + 1, np.exp(np.minimum(a, 0))) for a in (q, k))
    weights = np.einsum("bqhd,bkhd->bhqk", q, k)
    weights /= weights.sum(axis=-1, keepdims=True)
    return dense(np.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape), p["proj"])


def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8) * p["scale"] + p["bias"]


def mlp(x, p, published):
    has = {"kernel", "bias"} if published else {"kernel"}
    assert set(p["fc1"]) == set(p["fc2"]) == has
    first, second = ({"bias": 0.0} | p[name] for name in ("fc1", "fc2"))
    hidden = dense(x, first)
    assert hidden.shape[-1] == 4 * x.shape[-1]
    return dense(hidden * special.ndtr(hidden), second)  # the exact GELU


@pytest.mark.parametrize("published", [False, True])
def test_bottleneck_and_blocks_are_numpys_and_only_training_is_noisy(published):
    model, tokens = FeatureDecoder(2, 3, published), normal(2, 9, 6)
    params = drawn_params(model, tokens, spread=0.3, noisy=False)

    @jax.jit
    def decode(params, tokens, key):
        noisy = model.apply({"params": params}, tokens, noisy=True, rngs={"dropout": key})
        return model.apply({"params": params}, tokens, noisy=False), noisy["block1"]

    found, noisy = decode(params, tokens, jax.random.key(0))
    exact = jax.tree.map(np.float64, params)
    x = mlp(np.float64(tokens), exact, published)
    for name in ("block0", "block1"):
        x = x + attended(norm(x, exact[name]["norm1"]), exact[name]["attn"])
        x = x + mlp(norm(x, exact[name]["norm2"]), exact[name], published)
        assert np.abs(x).max() > 0.5
        np.testing.assert_allclose(found[name], x, rtol=1e-4, atol=1e-4)
    again, other = decode(params, tokens, jax.random.key(1))
    np.testing.assert_array_equal(again["block1"], found["block1"])
    assert np.abs(noisy - other).max() > 1e-3


def test_a_fifth_is_dropped_before_between_and_after_the_layers_of_the_bottleneck():
    d = 6
    model = FeatureDecoder(1, 3, False)
    tokens = np.full((20, 100, d), 10, np.float32)  # large enough for GELU to be the identity
    # Values pass unmixed, and the block adds nothing.
    params = drawn_params(model, tokens, spread=0.0, noisy=False)
    params["fc1"]["kernel"] = np.eye(d, 4 * d, dtype=np.float32)
    params["fc2"]["kernel"] = np.eye(4 * d, d, dtype=np.float32)
    decode = jax.jit(functools.partial(model.apply, noisy=True))
    found = decode({"params": params}, tokens, rngs={"dropout": jax.random.key(2)})["block0"]
    found = np.asarray(found)
    np.testing.assert_allclose(found[found != 0], 10 / 0.8**3, rtol=1e-5)
    # Five standard errors for 12 000 values.
    assert np.mean(found != 0) == pytest.approx(0.8**3, abs=0.023)


def test_published_parameters_begin_narrow_and_ours_by_their_inputs():
    @jax.jit
    def begun(key):
        models = (FeatureDecoder(1, 3, published) for published in (True, False))
        return [m.init(key, jnp.zeros((1, 2, 48)), noisy=False)["params"] for m in models]

    params, ours = begun(jax.random.key(0))
    for part in (params, params["block0"], params["block0"]["attn"]):
        for name, layer in part.items():
            if "kernel" in layer:
                kernel = np.ravel(layer["kernel"])
                np.testing.assert_array_equal(layer["bias"], 0.0)
                assert np.abs(kernel).max() <= 0.03
                # Five standard errors for 48 × 48 values and more.
                expected = stats.truncnorm(-3, 3, scale=0.01).std()
                assert kernel.std() == pytest.approx(expected, rel=0.075), name
    for name, inputs in (("fc1", 48), ("fc2", 192)):
        assert np.std(ours[name]["kernel"]) == pytest.approx(inputs**-0.5, rel=0.05)


def test_attention_and_loss_stay_finite_where_there_is_nothing_to_attend_to():
    x, attention = normal(1, 4, 6), LinearAttention(heads=3, published=True)
    params = drawn_params(attention, x, spread=0.3)
    params["qkv"]["bias"] = np.full(18, -30, np.float32)
    total = jax.jit(jax.value_and_grad(lambda p, x: attention.apply({"params": p}, x).sum()))
    value, grads = total(params, x)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    nothing = np.zeros((1, 4, 2, 3), np.float32)
    slope = jax.jit(jax.grad(lambda f, t: vit_recon.mined_loss(t, f, 0.5).sum()))
    for found in (nothing, nothing + 1):
        assert np.isfinite(slope(found, nothing + 1)).all()


def apart(x, y):
    x, y = np.float64(x), np.float64(y)
    return 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)


def test_the_loss_is_one_minus_the_cosine_of_images_and_what_is_easy_counts_a_tenth_in_its_slope():
    a, b = normal(3, 20, 2, 6), normal(3, 20, 2, 6, seed=1)  # two groups of three images

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def slope_and_loss(b, easy):
        found = vit_recon.mined_loss(jnp.asarray(a), b, easy)
        return found.sum(), found

    slopes = {}
    whole = [np.moveaxis(x, 2, 1).reshape(3, 2, -1) for x in (a, b)]
    for easy in (0.0, 0.5, 0.8, 0.9):  # mining changes gradients only
        slopes[easy], found = slope_and_loss(b, easy)
        np.testing.assert_allclose(found, apart(*whole).mean(axis=1), rtol=1e-5)
    share = np.linalg.norm(slopes[0.8], axis=-1) / np.linalg.norm(slopes[0.0], axis=-1)
    for g in range(2):
        here = apart(a, b)[..., g]
        hard = here >= np.quantile(here, 0.8)
        assert 0.15 < hard.mean() < 0.25
        np.testing.assert_allclose(share[..., g], np.where(hard, 1.0, 0.1), rtol=1e-4)


@pytest.fixture(scope="module", params=["ours", "published"])
def on_three(small_encoder, request):
    """Return a method on three blocks, as `started`, its programs, and whether it is published."""
    recipe = request.param
    fields = {"optim.learning_rate": 5e-3, "train.steps": 100, "vit_recon.recipe": recipe}
    method, *rest = started(small_encoder, "vit_recon", **fields)
    steps = [jax.jit(f) for f in (method.train_step, method.eval_step, method.anomaly_map)]
    return method, *rest, steps, recipe == "published"


def at_the_corners(cells):
    """Enlarge cells to maps [b, SIDE, SIDE] whose corners have the values of the corner cells."""
    points = np.linspace(0, CELLS - 1, SIDE), np.arange(CELLS)
    for axis in (1, 2):
        cells = np.apply_along_axis(lambda row: np.interp(*points, row), axis, cells)
    return cells


def test_groups_are_means_of_blocks_and_the_decoders_are_the_encoders_in_reverse(
    small_encoder, on_three
):
    method, frozen, groups, state, (_, evaluate, maps), published = on_three
    before = 2 if published else 0  # class and distillation token
    encoder = Encoder(config_for(small_encoder, "vit_recon"), channels=1)
    assert encoder.prefix == 2
    seen = jax.jit(encoder.tokens_of)(frozen, IMAGES)
    seen = np.float64([seen[f"block{i}"] for i in range(3)])[:, :, 2 - before :]
    earlier_and_later = np.stack([seen[0], seen[1:].mean(axis=0)], axis=2)
    np.testing.assert_allclose(groups, earlier_and_later, atol=1e-5)
    patches = jax.jit(encoder.blocks_of)(frozen, IMAGES)["block0"].reshape(4, CELLS**2, WIDTH)
    np.testing.assert_allclose(seen[0][:, before:], patches, atol=1e-5)
    apply = jax.jit(functools.partial(FeatureDecoder(3, 3, published).apply, noisy=False))

    def pairs(blocks):
        """Return the groups of the encoder and of the decoder, [b, n, d] each, patches only."""
        # Each block has the same weight, whatever its group.
        found = apply({"params": state.params}, np.mean(blocks, axis=0).astype(np.float32))
        found = np.float64([found[f"block{i}"] for i in range(3)])[:, :, before:]
        blocks = blocks[:, :, before:]
        return [(blocks[0], found[2]), (np.mean(blocks[1:], axis=0), np.mean(found[:2], axis=0))]

    # The blocks have nothing in common, so that each of them matters.
    blocks = np.float64(normal(3, 4, before + CELLS**2, WIDTH))
    targets = np.stack([blocks[0], blocks[1:].mean(axis=0)], axis=2).astype(np.float32)
    whole = [apart(x.reshape(4, -1), y.reshape(4, -1)) for x, y in pairs(blocks)]
    total, _ = evaluate(state, targets, np.ones(4, bool))["loss"]
    assert float(total) == pytest.approx(np.mean(whole, axis=0).sum(), rel=1e-5)

    each = np.mean([apart(x, y) for x, y in pairs(seen)], axis=0).reshape(4, CELLS, CELLS)
    if published:
        expected = at_the_corners(each)
    else:
        expected = [cv2.resize(x, (SIDE, SIDE)) for x in each]  # bilinear
    found = maps(method.finish(frozen, state, ()), IMAGES)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_training_is_noisy_and_mines_ever_harder_in_its_first_tenth(on_three):
    _, _, groups, state, (step, *_), published = on_three
    before = 2 if published else 0

    @jax.jit
    def expected(params, groups, easy):
        mean = (groups[..., 0, :] + 2 * groups[..., 1, :]) / 3

        def loss(params):
            found = FeatureDecoder(3, 3, published).apply(
                {"params": params}, mean, noisy=True, rngs={"dropout": jax.random.key(2)}
            )
            blocks = [found[f"block{i}"] for i in range(3)]
            found = jnp.stack([blocks[2], (blocks[0] + blocks[1]) / 2], axis=2)
            each = vit_recon.mined_loss(groups[:, before:], found[:, before:], easy)
            return jnp.mean(each), each

        return jax.grad(loss, has_aux=True)(params)

    seen = []
    for done, easy in ((0, 0.0), (5, 0.45), (10, 0.9), (60, 0.9)):
        after, metrics = step(state._replace(step=np.int32(done)), groups, jax.random.key(2))
        # The optimiser's first moment after one step is a tenth of the gradient.
        found = 10 * np.asarray(optax.tree.get(after.opt_state, "mu")["fc1"]["kernel"])
        grads, losses = jax.device_get(expected(state.params, groups, easy))
        length = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
        if published:
            assert length > 0.2  # a tenth of which is left
            grads = jax.tree.map(lambda g, n=length: 0.1 / n * g, grads)
        np.testing.assert_allclose(found, grads["fc1"]["kernel"], atol=1e-4 * found.max())
        assert float(metrics["loss"][0]) == pytest.approx(losses.sum(), rel=1e-5)
        seen.append(found if not published else length / 0.1 * found)
    for a, b in itertools.pairwise(seen[:3]):
        assert np.linalg.norm(a - b) > 0.05 * np.linalg.norm(a)
    # Each key drops other values.
    _, other = step(state, groups, jax.random.key(3))
    assert float(other["loss"][0]) != pytest.approx(float(metrics["loss"][0]), rel=1e-4)


def test_published_weights_decay_at_a_rate_that_ends_at_a_tenth():
    fields = {"optim.learning_rate": 0.01, "optim.schedule": "cosine", "optim.warmup": 4}
    fields["vit_recon.recipe"] = "published"
    config = small_config(
        "configs/folder.py:method=vit_recon,smoke", **fields, **{"train.steps": 20}
    )
    tx = vit_recon.build_optimizer(config)
    two, nothing = jnp.full(3, 2.0), jnp.zeros(3)

    def step(state, _):
        update, state = tx.update(nothing, state, two)
        return state, update[0]

    _, updates = jax.jit(lambda state: jax.lax.scan(step, state, length=22))(tx.init(two))
    rates = {0: 0, 2: 0.005, 4: 0.01, 12: 0.0055, 20: 0.001, 21: 0.001}
    expected = [-2 * 1e-4 * rate for rate in rates.values()]
    np.testing.assert_allclose(updates[np.array(list(rates))], expected, rtol=1e-5)
