"""The normalising flow: its determinant, its inverse, and the likelihood that is a map."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from small_runs import small_config

from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.models.flow import CLAMP, COUPLINGS, Flow, Subnet


def randomised(params, scale=0.5):
    """Parameters far from the identity that a flow begins as."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    moved = [x + scale * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def make_flow(channels=5, steps=3, shape=(3, 2), scale=0.5, coupling="convolution"):
    flow = Flow(steps, channels, 1.0, coupling)
    x = jax.random.normal(jax.random.key(0), (2, *shape, channels))
    return flow, {"params": randomised(flow.init(jax.random.key(1), x)["params"], scale)}, x


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("channels", [4, 5])
def test_the_log_determinant_is_that_of_the_jacobian(channels, coupling):
    flow, variables, x = make_flow(channels, coupling=coupling)
    out = flow.apply(variables, x)
    for i in range(2):
        flat = x[i].ravel()

        def latent(v, shape=x[i].shape):
            return flow.apply(variables, v.reshape(1, *shape))["latent"].ravel()

        sign, expected = np.linalg.slogdet(np.asarray(jax.jacrev(latent)(flat), np.float64))
        assert abs(sign) == 1  # a shuffle may be odd
        found = float(jnp.sum(out["log_determinant"][i]))
        # The Jacobian's entries are float32 and up to e^2 each.
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert abs(found) > 0.1  # or it would be easy


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_it_can_be_undone(coupling):
    flow, variables, x = make_flow(8, steps=8, shape=(6, 5), scale=0.2, coupling=coupling)
    latent = flow.apply(variables, x)["latent"]
    assert float(jnp.max(jnp.abs(latent - x))) > 1
    back = flow.apply(variables, latent, method="inverse")
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_it_begins_as_a_shuffle_of_channels():
    flow = Flow(8, 6, 0.5, "convolution")
    x = jax.random.normal(jax.random.key(0), (1, 3, 3, 6))
    out = flow.apply(flow.init(jax.random.key(1), x), x)
    np.testing.assert_array_equal(np.sort(out["latent"], axis=-1), np.sort(x, axis=-1))
    assert not np.any(out["log_determinant"])


@pytest.mark.parametrize("looks", ["", *COUPLINGS])
def test_scales_are_clamped(looks):
    subnet = Subnet(4, 3, looks)
    x = 1e3 * jax.random.normal(jax.random.key(0), (1, 4, 4, 2))
    params = randomised(subnet.init(jax.random.key(1), x)["params"], scale=10.0)
    log_scale, shift = subnet.apply({"params": params}, x)
    assert float(jnp.max(jnp.abs(log_scale))) <= CLAMP
    assert float(jnp.max(jnp.abs(log_scale))) > 0.99 * CLAMP  # it binds here
    assert log_scale.shape == shift.shape == (1, 4, 4, 3)


def dense(x, layer):
    return x @ layer["kernel"] + layer["bias"]


def convolve(x, layer):
    """3x3, zeros around."""
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    return np.einsum("bijcuv,uvco->bijo", windows, layer["kernel"]) + layer["bias"]


def subnet_of(p, x, looks):
    """Log-scales and shifts in NumPy."""
    layer = convolve if looks == "convolution" else dense
    y = layer(x, p["first"])
    if looks == "attention":
        tokens = y.reshape(len(y), -1, y.shape[-1])
        q, k, v = np.split(dense(tokens, p["attn"]["qkv"]), 3, axis=-1)
        weights = special.softmax(q @ np.moveaxis(k, 1, 2) / np.sqrt(q.shape[-1]), axis=-1)
        y = y + dense(weights @ v, p["attn"]["proj"]).reshape(y.shape)
    y = layer(np.maximum(y, 0), p["second"]) * p["strength"]
    log_scale, shift = np.split(y, 2, axis=-1)
    return 2 * np.tanh(log_scale / 2), shift


@pytest.mark.parametrize("looks", ["", *COUPLINGS])
def test_subnets_are_numpys(looks):
    subnet = Subnet(4, 3, looks)
    x = jax.random.normal(jax.random.key(0), (2, 3, 5, 2))
    params = randomised(subnet.init(jax.random.key(1), x)["params"])
    found = subnet.apply({"params": params}, x)
    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    for a, b in zip(found, subnet_of(exact, np.asarray(x, np.float64), looks), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_other_step_of_the_flow_looks_around_from_the_first_on(coupling):
    # Attention that is no sharper than this sees all positions.
    flow, variables, x = make_flow(12, steps=4, shape=(5, 5), scale=0.2, coupling=coupling)
    moved = x.at[:, 0, 0].add(1.0)
    latent = jax.jit(lambda params, x: flow.apply({"params": params}, x)["latent"])
    for step in range(4):
        params = dict(variables["params"])
        for i in range(4):  # all other couplings are taken out
            strength = jnp.full((1, 1, 1, 1), 1.0 if i == step else 0.0)
            params[f"subnets_{i}"] = params[f"subnets_{i}"] | {"strength": strength}
        changed = np.abs(latent(params, x) - latent(params, moved)).max(axis=(0, 3)) > 0
        looks = step % 2 == 0
        assert changed[0, 0] and changed[0, 1] == looks
        assert changed[4, 4] == (looks and coupling == "attention")


def started(**fields):
    fields = {"data.patch_size": 64, "encoder.blocks": (1, 2)} | fields
    method = build_method(
        small_config("configs/vit.py:method=vit_flow,smoke", **fields), channels=1
    )
    frozen, _ = method.pretrained()
    images = jax.random.uniform(jax.random.key(0), (4, 64, 64, 1))
    features = jax.jit(method.prepare)(frozen, images)
    return method, frozen, images, features, jax.jit(method.init)(jax.random.key(1), features)


def test_the_loss_begins_as_that_of_a_standard_normal():
    method, _, _, features, state = started()
    mask = jnp.array([True, True, False, True])
    total, count = method.eval_step(state, features, mask)["loss"]
    expected = -stats.norm.logpdf(np.asarray(features, np.float64)).mean(axis=(1, 2, 3))
    assert float(total) == pytest.approx(expected[np.asarray(mask)].sum(), rel=1e-5)
    assert float(count) == 3
    # Channels are normalised: half of 1 and of log 2π.
    np.testing.assert_allclose(expected, 0.5 + 0.5 * np.log(2 * np.pi), rtol=1e-3)


@pytest.mark.parametrize(("coupling", "ratio"), [("convolution", 0.05), ("attention", 0.1)])
def test_the_likelihood_is_that_of_the_latent_and_the_volume(coupling, ratio):
    settings = {"flow_steps": 3, "flow_coupling": coupling, "flow_ratio": ratio}
    method, frozen, images, features, state = started(
        **{f"method.{name}": value for name, value in settings.items()}
    )
    params = randomised(state.params, scale=0.1)
    parts = []
    for name, part in zip(("block1", "block2"), jnp.split(features, 2, axis=-1), strict=True):
        # Of other channels, steps or couplings, the parameters would not fit.
        out = jax.jit(Flow(3, 192, ratio, coupling).apply)({"params": params[name]}, part)
        volume = np.asarray(out["log_determinant"], np.float64)
        assert np.abs(volume).mean() > 0.5 and out["latent"].shape == (4, 4, 4, 192)
        density = stats.norm.logpdf(np.asarray(out["latent"], np.float64)).sum(axis=-1)
        parts.append(-(density + volume) / 192)
    expected = np.mean(parts, axis=0)
    state = state._replace(params=params)
    total, _ = jax.jit(method.eval_step)(state, features, jnp.ones(4, bool))["loss"]
    assert float(total) == pytest.approx(expected.mean(axis=(1, 2)).sum(), rel=1e-5)
    maps = jax.jit(method.anomaly_map)(method.finish(frozen, state, ()), images)
    enlarged = [cv2.resize(x, (64, 64), interpolation=cv2.INTER_LINEAR) for x in expected]
    np.testing.assert_allclose(maps, enlarged, rtol=1e-4)


def test_what_was_learnt_is_likelier_than_what_was_not():
    method, frozen, images, features, state = started(
        **{"optim.learning_rate": 2e-3, "train.steps": 60}
    )
    step = jax.jit(method.train_step)
    losses = []
    for i in range(60):
        state, metrics = step(state, features, jax.random.key(i))
        losses.append(float(metrics["loss"][0]) / 4)
    assert losses[-1] < losses[0] - 0.5
    variables = method.finish(frozen, state, ())
    maps = np.asarray(jax.jit(method.anomaly_map)(variables, images.at[0, :32, :32].set(1.0)))
    assert maps.shape == (4, 64, 64)
    assert maps[0, :32, :32].mean() > maps[1:].max()


def test_attention_sees_the_other_end_of_the_map_and_a_convolution_does_not():
    far = {}
    for looks in ("", *COUPLINGS):
        subnet = Subnet(4, 3, looks)
        x = jax.random.normal(jax.random.key(0), (1, 9, 9, 2))
        params = {"params": randomised(subnet.init(jax.random.key(1), x)["params"])}
        moved = x.at[0, 0, 0].add(1.0)
        apart = [a - b for a, b in zip(*(subnet.apply(params, v) for v in (x, moved)), strict=True)]
        far[looks] = float(max(jnp.max(jnp.abs(a[0, 8, 8])) for a in apart))
    assert far[""] == far["convolution"] == 0 < far["attention"]


def test_settings_that_do_not_fit_get_a_sentence():
    with pytest.raises(UserError, match="convolution or attention"):
        started(**{"method.flow_coupling": "both"})
    for field, value in (("method.flow_steps", 0), ("method.flow_ratio", 0.0)):
        with pytest.raises(UserError, match="1 step or more"):
            started(**{field: value})
