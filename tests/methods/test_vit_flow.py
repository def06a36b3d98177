"""The normalising flow: its determinant, its inverse, and the likelihood that is a map."""

import cv2
import jax
import numpy as np
import pytest
from helpers.detectors import random_state
from helpers.small_encoder import CELLS, CORNER, DAMAGED, IMAGES, SIDE, WIDTH, config_for
from scipy import special, stats

from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.models.flow import CLAMP, COUPLINGS, Flow, Subnet

key = jax.random.key


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def randomised(shapes, scale=0.5):
    """Parameters far from the identity that a flow begins as."""
    random = np.random.default_rng(5)
    return jax.tree.map(lambda p: random.normal(0, scale, p.shape).astype(np.float32), shapes)


def make(model, x, scale=0.5):
    return {"params": randomised(jax.eval_shape(model.init, key(0), x)["params"], scale)}


@pytest.mark.parametrize(("channels", "coupling"), [(4, "convolution"), (5, "attention")])
def test_the_log_determinant_is_that_of_the_jacobian(channels, coupling):
    flow, x = Flow(3, channels, 1.0, coupling), normal(2, 3, 2, channels)
    variables = make(flow, x)

    @jax.jit
    def look(variables, x):
        def latent(one):
            return flow.apply(variables, one[None])["latent"][0]

        jacobian = jax.vmap(jax.jacrev(latent))(x).reshape(2, x[0].size, x[0].size)
        return flow.apply(variables, x)["log_determinant"], jacobian

    found, jacobian = map(np.asarray, look(variables, x))
    sign, expected = np.linalg.slogdet(np.float64(jacobian))
    assert (abs(sign) == 1).all()  # a shuffle may be odd
    # The Jacobian's entries are float32 and up to e^2 each.
    np.testing.assert_allclose(found.sum(axis=(1, 2)), expected, rtol=1e-4, atol=1e-4)
    assert (abs(expected) > 0.1).all()  # or it would be easy


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_it_can_be_undone(coupling):
    flow, x = Flow(4, 8, 1.0, coupling), normal(2, 6, 5, 8)
    variables = make(flow, x, scale=0.3)

    @jax.jit
    def there_and_back(variables, x):
        latent = flow.apply(variables, x)["latent"]
        return latent, flow.apply(variables, latent, method="inverse")

    latent, back = there_and_back(variables, x)
    assert np.abs(latent - x).max() > 1
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_it_begins_as_a_shuffle_of_channels():
    flow, x = Flow(4, 6, 0.5, "convolution"), normal(1, 3, 3, 6)
    out, _ = jax.jit(flow.init_with_output)(key(1), x)
    np.testing.assert_array_equal(np.sort(out["latent"], axis=-1), np.sort(x, axis=-1))
    assert not np.any(out["log_determinant"])


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
def test_subnets_are_numpys_their_scales_clamped_and_only_attention_looks_far(looks):
    subnet, x = Subnet(4, 3, looks), normal(2, 5, 9, 2)
    variables = make(subnet, x)
    look = jax.jit(subnet.apply)
    exact = jax.tree.map(np.float64, variables["params"])
    for a, b in zip(look(variables, x), subnet_of(exact, np.float64(x), looks), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert a.shape == (2, 5, 9, 3)
    log_scale, _ = look(make(subnet, x, scale=10.0), 1e3 * x)
    largest = np.abs(log_scale).max()
    assert 0.99 * CLAMP < largest <= CLAMP  # it binds here
    moved = x.copy()
    moved[:, 0, 0] += 1
    apart = [a - b for a, b in zip(*(look(variables, v) for v in (x, moved)), strict=True)]
    far = max(np.abs(np.asarray(a)[:, 4, 8]).max() for a in apart)
    assert (far > 0) == (looks == "attention")


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_other_step_of_the_flow_looks_around_from_the_first_on(coupling):
    flow, x = Flow(4, 12, 1.0, coupling), normal(2, 5, 5, 12)
    # Attention that is no sharper than this sees all positions.
    variables = make(flow, x, scale=0.2)
    moved = x.copy()
    moved[:, 0, 0] += 1
    latent = jax.jit(lambda params, x: flow.apply({"params": params}, x)["latent"])
    for step in range(4):
        params = dict(variables["params"])
        for i in range(4):  # all other couplings are taken out
            strength = np.full((1, 1, 1, 1), i == step, np.float32)
            params[f"subnets_{i}"] = params[f"subnets_{i}"] | {"strength": strength}
        changed = np.abs(latent(params, x) - latent(params, moved)).max(axis=(0, 3)) > 0
        looks = step % 2 == 0
        assert changed[0, 0] and changed[0, 1] == looks
        assert changed[4, 4] == (looks and coupling == "attention")


@pytest.fixture(scope="module")
def build(small_encoder):
    def built(**fields):
        fields = {"encoder.blocks": (0, 1)} | fields
        return build_method(config_for(small_encoder, "vit_flow", **fields), channels=1)

    return built


@pytest.fixture(scope="module")
def started(build):
    """The method, its frozen weights, features of IMAGES, and a first state."""
    method = build(**{"optim.learning_rate": 5e-3})
    frozen, _ = method.pretrained()
    features = np.asarray(jax.jit(method.prepare)(frozen, IMAGES))
    return method, frozen, features, random_state(method, features)


def test_the_loss_begins_as_that_of_a_standard_normal(started):
    method, _, features, state = started
    mask = np.array([True, True, False, True])
    total, count = jax.jit(method.eval_step)(state, features, mask)["loss"]
    expected = -stats.norm.logpdf(np.float64(features)).mean(axis=(1, 2, 3))
    assert float(total) == pytest.approx(expected[mask].sum(), rel=1e-5)
    assert float(count) == 3
    # Channels are normalised: half of 1 and of log 2π.
    np.testing.assert_allclose(expected, 0.5 + 0.5 * np.log(2 * np.pi), rtol=1e-3)


@pytest.mark.parametrize(("coupling", "ratio"), [("convolution", 0.5), ("attention", 1.0)])
def test_the_likelihood_is_that_of_the_latent_and_the_volume(build, started, coupling, ratio):
    _, frozen, features, _ = started
    settings = {"flow_steps": 2, "flow_coupling": coupling, "flow_ratio": ratio}
    method = build(**{f"method.{name}": value for name, value in settings.items()})
    state = random_state(method, features)
    state = state._replace(params=randomised(state.params, scale=0.3))
    # Of other channels, steps or couplings, the parameters would not fit.
    flow = Flow(2, WIDTH, ratio, coupling)

    @jax.jit
    def look(state, variables, features, images):
        parts = np.split(np.arange(2 * WIDTH), 2)
        outs = [
            flow.apply({"params": state.params[name]}, features[..., part])
            for name, part in zip(("block0", "block1"), parts, strict=True)
        ]
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


def test_what_was_learnt_is_likelier_than_what_was_not(started):
    method, frozen, features, state = started
    step = jax.jit(method.train_step)
    losses = []
    for i in range(80):
        state, metrics = step(state, features, key(i))
        losses.append(float(metrics["loss"][0]) / 4)
    assert losses[-1] < losses[0] - 0.5
    maps = np.asarray(jax.jit(method.anomaly_map)(method.finish(frozen, state, ()), DAMAGED))
    assert maps.shape == (4, SIDE, SIDE)
    assert maps[CORNER].mean() > 2 * maps[1:].max()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("vit_flow.coupling", "both", "convolution or attention"),
        ("vit_flow.steps", 0, "1 step or more"),
        ("vit_flow.ratio", 0.0, "1 step or more"),
    ],
)
def test_settings_that_do_not_fit_get_a_sentence(build, field, value, says):
    with pytest.raises(UserError, match=says):
        build(**{field: value})
