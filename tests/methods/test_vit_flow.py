"""The normalising flow: its determinant, its inverse, and the likelihood map."""

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.convolutions import convolve, dense, drawn, drawn_params
from helpers.small_encoder import CELLS, IMAGES, SIDE, WIDTH, started
from scipy import special, stats

from recon_ad.models.flow import CLAMP, COUPLINGS, Flow, Subnet

key = jax.random.key


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make(model, x, spread=0.5):
    """Draw parameters far from the identity at which a flow begins."""
    return {"params": drawn_params(model, x, spread=spread)}


@pytest.mark.parametrize(("channels", "coupling"), [(4, "convolution"), (5, "attention")])
def test_the_log_determinant_is_that_of_the_jacobian_and_all_can_be_undone(channels, coupling):
    flow, x = Flow(3, channels, 1.0, coupling), normal(2, 3, 2, channels)
    variables = make(flow, x)

    @jax.jit
    def look(variables, x):
        def latent(one):
            return flow.apply(variables, one[None])["latent"][0]

        jacobian = jax.vmap(jax.jacrev(latent))(x).reshape(2, x[0].size, x[0].size)
        out = flow.apply(variables, x)
        return out, jacobian, flow.apply(variables, out["latent"], method="inverse")

    out, jacobian, back = jax.device_get(look(variables, x))
    sign, expected = np.linalg.slogdet(np.float64(jacobian))
    assert (abs(sign) == 1).all()  # a shuffle may be odd
    found = out["log_determinant"].sum(axis=(1, 2))
    # The Jacobian's entries are float32 and up to e^2 each.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (abs(expected) > 0.1).all()  # otherwise it would be too easy
    assert np.abs(out["latent"] - x).max() > 1
    np.testing.assert_allclose(back, x, atol=1e-4)


def subnet_of(p, x, looks):
    """Compute log-scales and shifts in NumPy."""

    def layer(x, name):
        if looks == "convolution":
            return np.stack([convolve(image, p[name]) for image in x])
        return dense(x, p[name])

    y = layer(x, "first")
    if looks == "attention":
        tokens = y.reshape(len(y), -1, y.shape[-1])
        q, k, v = np.split(dense(tokens, p["attn"]["qkv"]), 3, axis=-1)
        weights = special.softmax(q @ np.moveaxis(k, 1, 2) / np.sqrt(q.shape[-1]), axis=-1)
        y = y + dense(weights @ v, p["attn"]["proj"]).reshape(y.shape)
    log_scale, shift = np.split(layer(np.maximum(y, 0), "second") * p["strength"], 2, axis=-1)
    return CLAMP * np.tanh(log_scale / CLAMP), shift


@pytest.mark.parametrize("looks", ["", *COUPLINGS])
def test_subnets_are_numpys_and_their_scales_clamped(looks):
    subnet, x = Subnet(4, 3, looks), normal(2, 5, 9, 2)
    variables, look = make(subnet, x), jax.jit(subnet.apply)
    expected = subnet_of(variables["params"], np.float64(x), looks)
    for a, b in zip(look(variables, x), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    log_scale, _ = look(make(subnet, x, spread=10.0), 1e3 * x)
    assert 0.99 * CLAMP < np.abs(log_scale).max() <= CLAMP == 2  # the clamp is active here


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_other_step_of_the_flow_looks_around_from_the_first_on(coupling):
    flow, x = Flow(4, 12, 1.0, coupling), normal(2, 5, 5, 12)
    # Attention that is no sharper than this covers all positions.
    variables = make(flow, x, spread=0.2)
    moved = x.copy()
    moved[:, 0, 0] += 1
    latent = jax.jit(lambda params, x: flow.apply({"params": params}, x)["latent"])
    for step in range(4):
        params = dict(variables["params"])
        for i in range(4):  # all other couplings are removed
            strength = np.full((1, 1, 1, 1), i == step, np.float32)
            params[f"subnets_{i}"] = params[f"subnets_{i}"] | {"strength": strength}
        changed = np.abs(latent(params, x) - latent(params, moved)).max(axis=(0, 3)) > 0
        looks = step % 2 == 0
        assert changed[0, 0] and changed[0, 1] == looks
        assert changed[4, 4] == (looks and coupling == "attention")


@pytest.fixture(scope="module")
def build(small_encoder):
    fields = {"encoder.blocks": (0, 1), "optim.learning_rate": 5e-3}
    return functools.partial(started, small_encoder, "vit_flow", **fields)


@pytest.fixture(scope="module")
def plain(build):
    return build()


def test_the_loss_begins_as_that_of_a_standard_normal(plain):
    method, _, features, state = plain
    mask = np.array([True, True, False, True])
    expected = -stats.norm.logpdf(np.float64(features)).mean(axis=(1, 2, 3))
    loss = jax.jit(method.eval_step)(state, features, mask)["loss"]
    assert loss == (pytest.approx(expected[mask].sum(), rel=1e-5), 3)
    # Channels have variance 1, so the mean is 0.5 · 1 + 0.5 · log 2π.
    np.testing.assert_allclose(expected, 0.5 + 0.5 * np.log(2 * np.pi), rtol=1e-3)


@pytest.mark.parametrize(("coupling", "ratio"), [("convolution", 0.5), ("attention", 1.0)])
def test_the_likelihood_is_that_of_the_latent_and_the_volume(build, coupling, ratio):
    settings = {"steps": 2, "coupling": coupling, "ratio": ratio}
    fields = {f"vit_flow.{name}": value for name, value in settings.items()}
    method, frozen, features, state = build(**fields)
    state = state._replace(params=drawn(state.params, 0.4))
    # With other channels, steps or couplings the parameters would not fit.
    flow = Flow(2, WIDTH, ratio, coupling)

    @jax.jit
    def look(state, variables, features, images):
        parts = zip(("block0", "block1"), jnp.split(features, 2, axis=-1), strict=True)
        outs = [flow.apply({"params": state.params[name]}, part) for name, part in parts]
        loss = method.eval_step(state, features, images[:, 0, 0, 0] >= 0)["loss"]
        return outs, loss, method.anomaly_map(variables, images)

    variables = method.finish(frozen, state, ())
    outs, (total, _), maps = jax.device_get(look(state, variables, features, IMAGES))
    expected = 0
    for out in outs:
        volume = np.float64(out["log_determinant"])
        assert np.abs(volume).mean() > 0.5 and out["latent"].shape == (4, CELLS, CELLS, WIDTH)
        density = stats.norm.logpdf(np.float64(out["latent"])).sum(axis=-1)
        expected = expected - (density + volume) / WIDTH / 2
    assert float(total) == pytest.approx(expected.mean(axis=(1, 2)).sum(), rel=1e-5)
    enlarged = [cv2.resize(x, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for x in expected]
    np.testing.assert_allclose(maps, enlarged, rtol=1e-4)
