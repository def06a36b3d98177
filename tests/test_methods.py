"""Every method on pixels against its formulas in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import small_config

from recon_ad.config import load_config
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, WITH_ENCODER, aae, build_method, vae
from recon_ad.models.cae import VAE, Critic
from recon_ad.models.dae import ResidualAE

PATCH = (4, 32, 32, 2)
ON_PIXELS = [name for name in METHODS if name not in WITH_ENCODER]


def config_of(method, **fields):
    return small_config(f"configs/folder.py:method={method},smoke", **fields)


def started(method, shape=PATCH, **fields):
    """The method, its first state, and a batch."""
    built = build_method(config_of(method, **fields), channels=shape[3])
    built = built._replace(
        init=jax.jit(built.init),
        train_step=jax.jit(built.train_step),
        eval_step=jax.jit(built.eval_step),
        reconstruct=jax.jit(built.reconstruct),
    )
    images = jax.random.uniform(jax.random.key(0), shape)
    return built, built.init(jax.random.key(1), images), images


def count(variables):
    return sum(p.size for p in jax.tree.leaves(variables))


def parameters(model, *arguments):
    return count(jax.eval_shape(model.init, jax.random.key(0), *arguments))


def test_has_the_papers_numbers_of_parameters():
    image, code = jnp.zeros((1, 128, 128, 1)), jnp.zeros((1, 100))
    assert parameters(Critic(), code) == 1_021
    for variant, cae in (("synthetic", 2_444_021), ("industrial", 2_517_877)):
        model = VAE(variant, (128, 128), 1, 100)
        assert parameters(model, image, code) == cae + 1024 * 100 + 100


def mean_of_loss(metrics, name="loss"):
    total, number = metrics[name]
    return float(total / number)


def reconstruction(method, state, images):
    variables = method.finish({}, state, ())
    return np.asarray(method.reconstruct(variables, images), np.float64)


@pytest.mark.parametrize("name", ["cae", "aae", "l2_ae", "dae"])
def test_the_heldout_loss_is_the_squared_error_per_pixel_and_channel(name):
    method, state, images = started(name)
    expected = (
        (np.asarray(images, np.float64) - reconstruction(method, state, images)) ** 2
    ).mean()
    measured = method.eval_step(state, images, jnp.ones(len(images), bool))
    assert mean_of_loss(measured) == pytest.approx(expected, rel=1e-5)


def ssim(x, y, *, window=11, sigma=1.5):
    """Mean S over the windows inside, straight from the definition, in float64."""
    offsets = np.arange(window) - window // 2
    line = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights = np.outer(line, line) / line.sum() ** 2
    windows = [
        np.lib.stride_tricks.sliding_window_view(a.astype(np.float64), (window, window), (1, 2))
        for a in (x, y)
    ]
    mean = [np.einsum("bijcuv,uv->bijc", w, weights) for w in windows]
    products = {
        (i, j): np.einsum("bijcuv,bijcuv,uv->bijc", windows[i], windows[j], weights)
        - mean[i] * mean[j]
        for i, j in ((0, 0), (1, 1), (0, 1))
    }
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean[0] * mean[1] + c1) / (mean[0] ** 2 + mean[1] ** 2 + c1)
    rest = (2 * products[0, 1] + c2) / (products[0, 0] + products[1, 1] + c2)
    return (luminance * rest).mean()


@pytest.mark.parametrize("name", ["ssim_ae", "ssim_l1"])
def test_the_ssim_loss_is_one_minus_the_mean_over_windows_inside(name):
    method, state, images = started(name)
    expected = 1 - ssim(np.asarray(images), reconstruction(method, state, images))
    measured = method.eval_step(state, images, jnp.ones(len(images), bool))
    assert mean_of_loss(measured) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ON_PIXELS)
def test_the_heldout_loss_leaves_padding_out(name):
    method, state, images = started(name)
    mask = jnp.array([True, True, True, False])
    padded = method.eval_step(state, images.at[3].set(0.5), mask)
    for key, value in method.eval_step(state, images, mask).items():
        np.testing.assert_allclose(padded[key], value, rtol=1e-6, err_msg=key)


def test_the_divergence_is_the_closed_form_and_what_sampling_gives():
    random = np.random.default_rng(0)
    mean, log_variance = random.normal(size=(2, 3, 5)).astype(np.float32)
    found = np.asarray(vae.divergence(jnp.asarray(mean), jnp.asarray(log_variance)))
    variance = np.exp(log_variance.astype(np.float64))
    closed = 0.5 * (variance + mean**2 - 1 - log_variance).sum(axis=1)
    np.testing.assert_allclose(found, closed, rtol=1e-5)
    assert vae.divergence(jnp.zeros((1, 7)), jnp.zeros((1, 7))) == 0
    # E_q[log q(z) − log p(z)] with a million samples: about 0.3 % of standard error.
    z = mean + np.sqrt(variance) * random.normal(size=(1_000_000, *mean.shape)).astype(np.float32)
    log_q = -0.5 * (np.log(variance) + (z - mean) ** 2 / variance)
    sampled = (log_q + 0.5 * z**2).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(found, sampled, rtol=0.02)


@pytest.mark.parametrize(("given", "weight"), [(None, 1 / (32 * 32 * 2)), (1.0, 1.0), (0.0, 0.0)])
def test_the_vaes_loss_is_the_error_and_the_weighted_divergence(given, weight):
    method, state, images = started("vae", **{"method.kl_weight": given})
    assert method.protocol["kl_weight"] == weight
    measured = method.eval_step(state, images, jnp.ones(len(images), bool))
    error = ((np.asarray(images, np.float64) - reconstruction(method, state, images)) ** 2).mean()
    assert mean_of_loss(measured, "squared_error") == pytest.approx(error, rel=1e-5)
    expected = error + weight * mean_of_loss(measured, "kl")
    assert mean_of_loss(measured) == pytest.approx(expected, rel=1e-5)


def test_the_vae_draws_its_code_in_training_and_not_afterwards():
    model = VAE("synthetic", (16, 16), 1, 5)
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 1))
    noise = jax.random.normal(jax.random.key(1), (2, 5))
    out, _ = model.init_with_output(jax.random.key(2), images, noise)
    spread = np.exp(0.5 * np.asarray(out["log_variance"], np.float64))
    np.testing.assert_allclose(out["code"], out["mean"] + spread * noise, rtol=1e-5, atol=1e-6)
    method, state, images = started("vae")
    first, second, same = (
        mean_of_loss(method.train_step(state, images, jax.random.key(k))[1]) for k in (3, 4, 3)
    )
    assert first != second and first == same


def test_the_critic_is_clipped_to_its_box_and_the_box_binds():
    clip = 0.01
    method, state, images = started("aae", **{"method.critic_clip": clip})
    for i in range(3):
        state, metrics = method.train_step(state, images, jax.random.key(i))
    weights = np.concatenate([p.ravel() for p in jax.tree.leaves(state.params["critic"])])
    assert np.abs(weights).max() == np.float32(clip)  # clipped, and some stand at the wall
    assert {"critic_distance", "code_mean", "code_covariance", "prior_mean"} <= metrics.keys()
    _, wide, _ = started("aae", **{"method.critic_clip": 10.0})
    assert max(np.abs(p).max() for p in jax.tree.leaves(wide.params["critic"])) > clip


def test_the_critics_step_is_adam_on_the_difference_of_means():
    config = config_of("aae", **{"method.n_z": 3, "method.critic_clip": 1e6})
    method = build_method(config, channels=1)
    settings = method.train_step.keywords["settings"]
    random = np.random.default_rng(0)
    codes, prior = jnp.asarray(random.normal(size=(2, 6, 3)), jnp.float32)
    params = settings.critic.init(jax.random.key(0), codes)["params"]

    def critic(p, z):
        def leaky(x):
            return np.where(x >= 0, x, 0.01 * x)

        z = np.asarray(z, np.float64)
        hidden = leaky(z @ p["lind1"]["kernel"] + p["lind1"]["bias"])
        return leaky(hidden @ p["lind2"]["kernel"] + p["lind2"]["bias"])[:, 0]

    def distance(p):
        return critic(p, prior).mean() - critic(p, codes).mean()

    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    state = settings.critic_tx.init(params)
    moved, _, found = aae.critic_step(params, state, codes, prior, settings=settings)
    assert float(found) == pytest.approx(distance(exact), rel=1e-4)
    # Adam's first step is the learning rate times the gradient's sign; uphill in the distance.
    for layer, name, place in (("lind1", "kernel", (0, 4)), ("lind2", "kernel", (7, 0))):
        slope = []
        for sign in (1, -1):
            nudged = jax.tree.map(np.copy, exact)
            nudged[layer][name][place] += sign * 1e-6
            slope.append(distance(nudged))
        change = float(moved[layer][name][place] - params[layer][name][place])
        expected = config.optim.learning_rate * np.sign(slope[0] - slope[1])
        assert change == pytest.approx(expected, rel=1e-2)


@pytest.fixture(scope="module")
def regularised():
    """A first step of the aae, and the cae after the same reconstruction phase."""
    fields, key = {"optim.learning_rate": 1e-3, "method.critic_clip": 1.0}, jax.random.key(5)
    method, state, images = started("aae", **fields)
    plain, plain_state, _ = started("cae", **fields)
    alone = plain_state._replace(params=state.params["autoencoder"])
    alone, _ = plain.train_step(alone, images, key)
    codes = plain.encode({"params": alone.params}, images)
    return state, *method.train_step(state, images, key), alone, codes, key


def test_the_critic_takes_its_steps_on_the_codes_behind_the_reconstruction(regularised):
    state, moved, metrics, _, codes, key = regularised
    config = config_of("aae", **{"optim.learning_rate": 1e-3, "method.critic_clip": 1.0})
    settings = build_method(config, channels=2).train_step.keywords["settings"]
    step = jax.jit(functools.partial(aae.critic_step, settings=settings))
    critic = state.params["critic"]
    of_critic = settings.critic_tx.init(critic)
    for k in jax.random.split(key, 5):
        prior = jax.random.normal(k, codes.shape)
        critic, of_critic, distance = step(critic, of_critic, codes, prior)
    assert mean_of_loss(metrics, "critic_distance") == pytest.approx(float(distance), rel=1e-4)
    # Codes differ by rounding, and a step of Adam by a small part of its rate.
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, moved.params["critic"], critic)


def test_the_encoder_follows_the_critic_and_the_decoder_does_not(regularised):
    # A still decoder and no reconstruction to speak of: all that moves is regularisation's.
    _, moved, _, alone, _, _ = regularised
    ours = moved.params["autoencoder"]
    # Adam divides by the root of squared gradients that are almost nothing: a difference of
    # rounding shows in single weights.
    same = [
        np.mean(np.isclose(a, b, rtol=1e-4, atol=1e-6))
        for a, b in zip(
            jax.tree.leaves(ours["decoder"]), jax.tree.leaves(alone.params["decoder"]), strict=True
        )
    ]
    assert min(same) > 0.9
    shift = np.abs(
        np.asarray(ours["encoder"]["lin2"]["bias"] - alone.params["encoder"]["lin2"]["bias"])
    )
    step = 1e-3 * config_of("aae").method.encoder_rate  # of Adam
    assert np.median(shift) == pytest.approx(step, rel=0.1)


def test_the_regularisation_brings_the_codes_moments_near_the_priors():
    fields = {"optim.learning_rate": 2e-3, "method.n_z": 4, "train.steps": 400}
    images = jax.random.uniform(jax.random.key(0), (32, 16, 16, 1))

    def variance_after(name):
        config = config_of(name, **fields, **{"data.patch_size": 16, "inference.stride": 16})
        method = build_method(config, channels=1)
        state = method.init(jax.random.key(1), images)
        step = jax.jit(method.train_step)
        for i in range(400):
            state, _ = step(state, images, jax.random.key(i))
        codes = method.encode(method.finish({}, state, ()), images)
        found = aae.moments(codes)
        return float(found["covariance"])

    assert variance_after("aae") < 0.1 * variance_after("cae")


def test_moments_are_those_of_numpy():
    codes = np.random.default_rng(0).normal(2, 3, (50, 4)).astype(np.float32)
    found = aae.moments(jnp.asarray(codes))
    assert float(found["mean"]) == pytest.approx(np.sqrt((codes.mean(0) ** 2).mean()), rel=1e-5)
    gap = np.cov(codes, rowvar=False, bias=True) - np.eye(4)
    assert float(found["covariance"]) == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-4)


def test_two_thresholds_are_one_map():
    fields = {"method.ssim_threshold": 0.3, "method.l1_threshold": 0.08}
    method, state, images = started("ssim_l1", **fields)
    variables = method.finish({}, state, [images])
    found = np.asarray(method.anomaly_map(variables, images))
    shown = method.reconstruct(variables, images)
    l1 = np.abs(np.asarray(images - shown)).mean(axis=-1)
    of_ssim, _, _ = started("ssim_ae")
    one_minus_s = 2 * np.asarray(of_ssim.anomaly_map({"params": variables["params"]}, images))
    defective = (one_minus_s > 0.3) | (l1 > 0.08)
    assert defective.mean() > 0 and np.mean(defective == (found > 1)) > 0.9999  # rounding
    np.testing.assert_allclose(found, np.maximum(one_minus_s / 0.3, l1 / 0.08), rtol=1e-4)


def test_thresholds_that_are_not_given_are_percentiles_of_heldout_pixels():
    method, state, images = started("ssim_l1", **{"calibration.pixel_percentile": 90.0})
    variables = method.finish({}, state, [images[:2], images[2:]])
    shown = np.asarray(method.reconstruct(variables, images))
    l1 = np.abs(np.asarray(images) - shown).mean(axis=-1)
    assert float(variables["thresholds"]["l1"]) == pytest.approx(np.percentile(l1, 90), rel=1e-4)
    found = np.asarray(method.anomaly_map(variables, images))
    assert 0.1 <= (found > 1).mean() <= 0.2  # either map's tenth


def test_the_dae_learns_the_clean_image_from_a_noisy_one_and_scores_without_noise():
    quiet, state, images = started("dae", **{"method.noise": 0.0})
    noisy, _, _ = started("dae", **{"method.noise": 0.5})
    key = jax.random.key(7)
    # Twice the parameters, or little of the image reaches the end of so many layers.
    state = state._replace(params=jax.tree.map(lambda p: 2 * p, state.params))
    variables = quiet.finish({}, state, ())
    shown = quiet.reconstruct(variables, images + 0.5 * jax.random.normal(key, images.shape))
    expected = ((np.asarray(images, np.float64) - np.asarray(shown)) ** 2).mean()
    measured = mean_of_loss(noisy.train_step(state, images, key)[1])
    assert measured == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(*(m.anomaly_map(variables, images) for m in (quiet, noisy)))


@pytest.mark.parametrize("shape", [(16, 16), (5, 7), (33, 64), (100, 50), (1, 1)])
def test_the_residual_network_takes_any_shape(shape):
    model = ResidualAE(1, (4, 4, 4, 4), 2)
    images = jax.random.uniform(jax.random.key(0), (2, *shape, 1))
    variables = model.init(jax.random.key(1), jnp.zeros((1, 16, 16, 1)))
    out = model.apply(variables, images)
    assert out["reconstruction"].shape == images.shape
    assert np.isfinite(out["reconstruction"]).all()


@pytest.mark.parametrize("name", ON_PIXELS)
def test_gradients_are_finite_on_constant_images(name):
    for value in (0.0, 1.0):
        method, state, images = started(name)
        state, _ = method.train_step(state, jnp.full_like(images, value), jax.random.key(0))
        assert all(np.isfinite(p).all() for p in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("method", "field", "value", "says"),
    [
        ("vae", "method.kl_weight", -1.0, "kl_weight"),
        ("vae", "method.variant", "bergman", "synthetic, industrial, bergmann"),
        ("aae", "method.critic_steps", 0, "critic_steps"),
        ("aae", "method.critic_clip", 0.0, "critic_clip"),
        ("ssim_ae", "ssim.window", 10, "odd"),
        ("ssim_ae", "ssim.window", 33, "patch size"),
        ("ssim_ae", "ssim.kind", "box", "uniform"),
        ("l2_ae", "data.patch_size", 24, "multiple of 16"),
        ("l2_ae", "method.n_z", 0, "n_z"),
        ("ssim_l1", "method.l1_threshold", 0.0, "l1_threshold"),
        ("dae", "method.noise", -0.1, "noise"),
        ("dae", "method.bottleneck", 0, "bottleneck"),
        ("cae", "residual.squared", 0.0, "residual"),
        ("cae", "residual.absolute", -1.0, "residual"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(method, field, value, says):
    with pytest.raises(UserError, match=says):
        build_method(config_of(method, **{field: value}), channels=1)


@pytest.mark.parametrize(
    "spec",
    [
        "schneider2022.py:method=vae", "schneider2022.py:method=aae,scale=cpu",
        "bergmann2019.py:method=l2_ae", "bergmann2019.py:dataset=grid,scale=cpu",
        "preste.py", "preste.py:dataset=grid,scale=cpu", "covision.py",
    ],
)  # fmt: skip
def test_the_papers_configs_build_their_methods(spec):
    config = load_config(f"configs/{spec}")
    assert build_method(config, channels=1).geometry.tile == (config.data.patch_size,) * 2
