"""Reconstruction of features: linear attention, the mined loss, and what becomes a map."""

import functools
import itertools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from small_runs import small_config

from recon_ad.errors import UserError
from recon_ad.methods import build_method, vit_recon
from recon_ad.methods.features import Encoder
from recon_ad.models.feature_decoder import FeatureDecoder, LinearAttention

SIZE = {"data.patch_size": 64}


def test_linear_attention_is_a_weighted_mean_over_all_tokens():
    x = np.random.default_rng(0).normal(size=(2, 7, 6)).astype(np.float32)
    attention = LinearAttention(heads=3)
    params = attention.init(jax.random.key(0), jnp.asarray(x))["params"]
    found = attention.apply({"params": params}, jnp.asarray(x))
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    q, k, v = np.split(x @ p["qkv"]["kernel"] + p["qkv"]["bias"], 3, axis=-1)
    q, k = (np.where(a > 0, a + 1, np.exp(np.minimum(a, 0))) for a in (q, k))
    heads = []
    for h in range(3):
        here = np.s_[..., 2 * h : 2 * h + 2]
        weights = q[here] @ np.moveaxis(k[here], 1, 2)  # all to all, what is never made here
        heads.append(weights / weights.sum(axis=-1, keepdims=True) @ v[here])
    expected = np.concatenate(heads, axis=-1) @ p["proj"]["kernel"] + p["proj"]["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def norm(x, p):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-8) * p["scale"] + p["bias"]


def mlp(x, p):
    hidden = x @ p["fc1"]["kernel"]
    assert hidden.shape[-1] == 4 * x.shape[-1] and set(p["fc1"]) == set(p["fc2"]) == {"kernel"}
    return hidden * special.ndtr(hidden) @ p["fc2"]["kernel"]  # the exact GELU


def test_bottleneck_and_blocks_are_numpys():
    model, attention = FeatureDecoder(2, 3), LinearAttention(3)
    tokens = jax.random.normal(jax.random.key(0), (2, 9, 6))
    params = model.init(jax.random.key(1), tokens, noisy=False)["params"]
    # Scales and biases of the norms too, which begin as 1 and 0.
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + random.normal(0, 0.3, p.shape).astype(np.float32), params)
    found = model.apply({"params": params}, tokens, noisy=False)
    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    x = mlp(np.asarray(tokens, np.float64), exact)
    for name in ("block0", "block1"):
        seen = norm(x, exact[name]["norm1"]).astype(np.float32)
        # Held against NumPy above.
        x = x + np.asarray(attention.apply({"params": params[name]["attn"]}, jnp.asarray(seen)))
        x = x + mlp(norm(x, exact[name]["norm2"]), exact[name])
        assert np.abs(x).max() > 0.5
        np.testing.assert_allclose(found[name], x, rtol=1e-4, atol=1e-4)


def test_a_fifth_is_dropped_before_between_and_after_the_layers_of_the_bottleneck():
    d = 6
    model = FeatureDecoder(1, 3)
    tokens = jnp.full((20, 100, d), 10.0)  # of which GELU takes nothing away
    params = model.init(jax.random.key(1), tokens, noisy=False)["params"]
    # Numbers go through unmixed, and the block adds nothing.
    params = jax.tree.map(jnp.zeros_like, params)
    params["fc1"]["kernel"] = jnp.eye(d, 4 * d)
    params["fc2"]["kernel"] = jnp.eye(4 * d, d)
    found = model.apply({"params": params}, tokens, noisy=True, rngs={"dropout": jax.random.key(2)})
    found = np.asarray(found["block0"])
    np.testing.assert_allclose(found[found != 0], 10 / 0.8**3, rtol=1e-5)
    # Of 12 000 numbers: five standard errors.
    assert np.mean(found != 0) == pytest.approx(0.8**3, abs=0.023)


def test_attention_and_loss_stay_finite_where_there_is_nothing_to_attend_to():
    attention = LinearAttention(heads=3)
    x = jax.random.normal(jax.random.key(0), (1, 4, 6))
    params = attention.init(jax.random.key(0), x)["params"]
    params["qkv"]["bias"] = jnp.full(18, -30.0)

    def total(params):
        return jnp.sum(attention.apply({"params": params}, x))

    value, grads = jax.value_and_grad(total)(params)
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    nothing = jnp.zeros((1, 2, 2, 2, 3))
    for found in (nothing, nothing + 1):
        loss = lambda f: vit_recon.mined_loss(nothing + 1, f, 0.5).sum()  # noqa: E731
        assert np.isfinite(jax.grad(loss)(found)).all()


def random_groups(seed, shape=(3, 4, 5, 2, 6)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_loss_is_one_minus_the_cosine_of_whole_images():
    a, b = random_groups(0), random_groups(1)
    expected = np.zeros(3)
    for i in range(3):
        for g in range(2):
            x, y = a[i, :, :, g].ravel(), b[i, :, :, g].ravel()
            expected[i] += (1 - x @ y / np.linalg.norm(x) / np.linalg.norm(y)) / 2
    for easy in (0.0, 0.5, 0.9):  # mining changes gradients only
        found = vit_recon.mined_loss(jnp.asarray(a), jnp.asarray(b), easy)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_easy_counts_a_tenth_in_the_gradient():
    a, b = jnp.asarray(random_groups(0)), jnp.asarray(random_groups(1))

    def gradient(easy):
        return np.asarray(jax.grad(lambda x: vit_recon.mined_loss(a, x, easy).sum())(b))

    plain, mined = gradient(0.0), gradient(0.8)
    share = np.linalg.norm(mined, axis=-1) / np.linalg.norm(plain, axis=-1)
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    apart = 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    for g in range(2):
        hard = apart[..., g] >= np.quantile(apart[..., g], 0.8)
        assert 0.15 < hard.mean() < 0.25
        np.testing.assert_allclose(share[..., g][hard], 1.0, rtol=1e-4)
        np.testing.assert_allclose(share[..., g][~hard], 0.1, rtol=1e-4)


def test_only_training_is_noisy():
    model = FeatureDecoder(2, 3)
    tokens = jax.random.normal(jax.random.key(0), (2, 9, 6))
    variables = model.init(jax.random.key(1), tokens, noisy=False)
    still = [model.apply(variables, tokens, noisy=False)["block1"] for _ in range(2)]
    np.testing.assert_array_equal(*still)
    noisy = [
        model.apply(variables, tokens, noisy=True, rngs={"dropout": jax.random.key(i)})["block1"]
        for i in range(2)
    ]
    assert float(jnp.max(jnp.abs(noisy[0] - noisy[1]))) > 1e-3


def started(blocks=(0, 1, 2), **fields):
    fields = SIZE | {"encoder.blocks": blocks} | fields
    config = small_config("configs/vit.py:method=vit_recon,smoke", **fields)
    method = build_method(config, channels=1)
    frozen, _ = method.pretrained()
    images = jax.random.uniform(jax.random.key(0), (4, 64, 64, 1))
    return method, frozen, images, jax.jit(method.prepare)(frozen, images)


def test_groups_are_the_means_of_earlier_and_later_blocks():
    groups = started()[3]
    single = [started(blocks=(i, i + 1))[3][..., 0, :] for i in (0, 1)]
    assert groups.shape == (4, 4, 4, 2, 192)
    np.testing.assert_allclose(groups[..., 0, :], single[0], atol=1e-5)
    both = started(blocks=(1, 2))[3]
    np.testing.assert_allclose(groups[..., 1, :], both.mean(axis=3), atol=1e-5)


def apart(x, y):
    return 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)


def test_the_groups_of_the_decoder_are_the_encoders_in_reverse():
    method, frozen, images, groups = started(blocks=(0, 1, 3))
    state = jax.jit(method.init)(jax.random.key(1), groups)
    apply = jax.jit(functools.partial(FeatureDecoder(3, 3).apply, noisy=False))

    def pairs(blocks):
        """Groups of the encoder and of the decoder, [b, r, k, d] each."""
        # Each block counts alike, whatever group it is in.
        mean = jnp.asarray(np.mean(blocks, axis=0).reshape(4, 16, 192), jnp.float32)
        found = apply({"params": state.params}, mean)
        found = [np.asarray(found[f"block{i}"], np.float64).reshape(4, 4, 4, 192) for i in range(3)]
        return [(blocks[0], found[2]), (np.mean(blocks[1:], axis=0), np.mean(found[:2], axis=0))]

    # Of blocks that have nothing in common, so that each matters.
    blocks = np.random.default_rng(0).normal(size=(3, 4, 4, 4, 192))
    targets = jnp.asarray(np.stack([blocks[0], blocks[1:].mean(axis=0)], axis=3), jnp.float32)
    whole = [apart(x.reshape(4, -1), y.reshape(4, -1)) for x, y in pairs(blocks)]
    total, _ = jax.jit(method.eval_step)(state, targets, jnp.ones(4, bool))["loss"]
    assert float(total) == pytest.approx(np.mean(whole, axis=0).sum(), rel=1e-5)

    config = small_config("configs/vit.py:smoke", **SIZE | {"encoder.blocks": (0, 1, 3)})
    seen = jax.jit(Encoder(config, channels=1).blocks_of)(frozen, images)
    each = [apart(x, y) for x, y in pairs([np.float64(seen[f"block{i}"]) for i in (0, 1, 3)])]
    maps = jax.jit(method.anomaly_map)(method.finish(frozen, state, ()), images)
    expected = [cv2.resize(x, (64, 64)) for x in np.mean(each, axis=0)]  # bilinear
    np.testing.assert_allclose(maps, expected, rtol=1e-4)


def test_training_is_noisy_and_mines_ever_harder_in_its_first_tenth():
    method, _, _, groups = started(blocks=(0, 1), **{"train.steps": 100})
    state = jax.jit(method.init)(jax.random.key(1), groups)
    step, key = jax.jit(method.train_step), jax.random.key(2)

    @jax.jit
    def expected(params, easy):
        def loss(params):
            found = FeatureDecoder(2, 3).apply(
                {"params": params},
                jnp.mean(groups, axis=3).reshape(4, 16, 192),
                noisy=True,
                rngs={"dropout": key},
            )
            found = [found[f"block{i}"].reshape(4, 4, 4, 192) for i in (1, 0)]
            each = vit_recon.mined_loss(groups, jnp.stack(found, axis=3), easy)
            return jnp.mean(each), each

        return jax.grad(loss, has_aux=True)(params)

    seen = []
    for done, easy in ((0, 0.0), (5, 0.45), (10, 0.9), (60, 0.9)):
        after, metrics = step(state._replace(step=jnp.int32(done)), groups, key)
        # Adam's first moment after one step is a tenth of the gradient.
        found = 10 * after.opt_state[0].mu["fc1"]["kernel"]
        grads, losses = expected(state.params, easy)
        limit = 1e-4 * float(jnp.max(jnp.abs(found)))
        np.testing.assert_allclose(found, grads["fc1"]["kernel"], atol=limit)
        assert float(metrics["loss"][0]) == pytest.approx(float(jnp.sum(losses)), rel=1e-5)
        seen.append(found)
    for a, b in itertools.pairwise(seen[:3]):
        assert float(jnp.linalg.norm(a - b)) > 0.05 * float(jnp.linalg.norm(a))
    # Each key drops other numbers.
    _, other = step(state, groups, jax.random.key(3))
    assert float(other["loss"][0]) != pytest.approx(float(metrics["loss"][0]), rel=1e-4)


def test_it_learns_to_paint_good_features_and_fails_on_others():
    method, frozen, images, groups = started(**{"optim.learning_rate": 2e-3, "train.steps": 80})
    state = method.init(jax.random.key(1), groups)
    step = jax.jit(method.train_step)
    mask = jnp.ones(4, bool)
    before = float(method.eval_step(state, groups, mask)["loss"][0]) / 4
    for i in range(80):
        state, _ = step(state, groups, jax.random.key(i))
    after = float(method.eval_step(state, groups, mask)["loss"][0]) / 4
    assert after < 0.5 * before
    variables = method.finish(frozen, state, ())
    maps = jax.jit(method.anomaly_map)
    normal = np.asarray(maps(variables, images))
    odd = np.asarray(maps(variables, images.at[0, :32, :32].set(1.0)))
    assert odd.shape == (4, 64, 64)
    assert odd[0, :32, :32].mean() > 1.5 * normal[0, :32, :32].mean()


def test_one_block_makes_no_two_groups():
    with pytest.raises(UserError, match="give two or more"):
        started(blocks=(3,))
