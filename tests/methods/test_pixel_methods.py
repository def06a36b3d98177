"""Every method on pixels against its formulas in NumPy."""

import functools

import jax
import numpy as np
import pytest
from helpers.detectors import random_state
from helpers.small_runs import small_config

from recon_ad.config import load_config
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, WITH_ENCODER, aae, build_method, vae
from recon_ad.models.cae import VAE, Critic
from recon_ad.models.dae import ResidualAE
from recon_ad.ops import residuals

IMAGES = np.random.default_rng(0).random((4, 32, 32, 2), np.float32)
EXACT = IMAGES.astype(np.float64)
ALL = np.ones(len(IMAGES), bool)
ON_PIXELS = [name for name in METHODS if name not in WITH_ENCODER]
RATE, CLIP = 1e-3, 1.0
FIELDS = {
    "cae": {"optim.learning_rate": RATE},
    "aae": {"optim.learning_rate": RATE, "aae.critic_clip": CLIP},
    "ssim_l1": {"ssim_l1.ssim_threshold": 0.3, "ssim_l1.l1_threshold": 0.08},
    "dae": {"dae.noise": 0.5},
}


def config_of(name, **fields):
    return small_config(f"configs/folder.py:method={name},smoke", **fields)


def looking(method):
    @jax.jit
    def look(state, variables, images, mask):
        shown = method.reconstruct(variables, images)
        return method.eval_step(state, images, mask), shown, method.anomaly_map(variables, images)

    return look


@functools.cache
def compiled(name):
    """The method with FIELDS, a first state, what it finishes with, its step, and `look`."""
    method = build_method(config_of(name, **FIELDS.get(name, {})), channels=2)
    state = random_state(method, IMAGES)
    variables = method.finish({}, state, [IMAGES])
    return method, state, variables, jax.jit(method.train_step), looking(method)


def seen(name, images=IMAGES, mask=ALL):
    """Held-out metrics, reconstructions and anomaly maps of the first state."""
    _, state, variables, _, look = compiled(name)
    return jax.device_get(look(state, variables, images, mask))


def mean_of(metrics, name="loss"):
    total, number = metrics[name]
    return float(total) / float(number)


def squared_error(shown):
    return ((EXACT - shown) ** 2).mean()


def parameters(model, *shapes):
    inputs = [np.zeros(shape, np.float32) for shape in shapes]
    return sum(p.size for p in jax.tree.leaves(jax.eval_shape(model.init, key(0), *inputs)))


key = jax.random.key


def test_has_the_papers_numbers_of_parameters():
    assert parameters(Critic(), (1, 100)) == 1_021
    for variant, cae in (("synthetic", 2_444_021), ("industrial", 2_517_877)):
        model = VAE(variant, (128, 128), 1, 100)
        assert parameters(model, (1, 128, 128, 1), (1, 100)) == cae + 1024 * 100 + 100


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
        (i, j): np.einsum("bijcuv,uv->bijc", windows[i] * windows[j], weights) - mean[i] * mean[j]
        for i, j in ((0, 0), (1, 1), (0, 1))
    }
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean[0] * mean[1] + c1) / (mean[0] ** 2 + mean[1] ** 2 + c1)
    rest = (2 * products[0, 1] + c2) / (products[0, 0] + products[1, 1] + c2)
    return (luminance * rest).mean()


@pytest.mark.parametrize("name", ON_PIXELS)
def test_the_heldout_loss_is_its_formula_and_leaves_padding_out(name):
    metrics, shown, _ = seen(name)
    if name != "vae":  # for which see below
        expected = 1 - ssim(IMAGES, shown) if "ssim" in name else squared_error(shown)
        assert mean_of(metrics) == pytest.approx(expected, rel=1e-5)
    mask = np.array([True, True, True, False])
    other = IMAGES.copy()
    other[3] = 0.5
    padded = seen(name, other, mask)[0]
    for figure, value in seen(name, mask=mask)[0].items():
        np.testing.assert_allclose(padded[figure], value, rtol=1e-6, err_msg=figure)


def test_the_divergence_is_the_closed_form_and_what_sampling_gives():
    random = np.random.default_rng(0)
    mean, log_variance = random.normal(size=(2, 3, 5)).astype(np.float32)
    divergence = jax.jit(vae.divergence)
    found = np.asarray(divergence(mean, log_variance))
    variance = np.exp(log_variance.astype(np.float64))
    closed = 0.5 * (variance + mean**2 - 1 - log_variance).sum(axis=1)
    np.testing.assert_allclose(found, closed, rtol=1e-5)
    assert not divergence(np.zeros_like(mean), np.zeros_like(mean)).any()
    # E_q[log q(z) − log p(z)] with so many samples: about 1 % of standard error.
    z = mean + np.sqrt(variance) * random.normal(size=(100_000, *mean.shape))
    log_q = -0.5 * (np.log(variance) + (z - mean) ** 2 / variance)
    sampled = (log_q + 0.5 * z**2).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(found, sampled, rtol=0.05)


def test_the_vaes_loss_is_the_error_and_the_weighted_divergence():
    weights = {None: 1 / (32 * 32 * 2), 1.0: 1.0, 0.0: 0.0}
    methods = [
        build_method(config_of("vae", **{"vae.kl_weight": given}), channels=2) for given in weights
    ]
    # In one program, which computes once what is the same in all.
    measure = jax.jit(lambda *given: [m.eval_step(*given) for m in methods])
    measured = measure(compiled("vae")[1], IMAGES, ALL)
    error = squared_error(seen("vae")[1])
    for method, weight, found in zip(methods, weights.values(), measured, strict=True):
        assert method.protocol["kl_weight"] == weight
        assert mean_of(found, "squared_error") == pytest.approx(error, rel=1e-5)
        expected = error + weight * mean_of(found, "kl")
        assert mean_of(found) == pytest.approx(expected, rel=1e-5)


def test_the_vae_draws_its_code_in_training_and_not_afterwards():
    method, state, _, step, _ = compiled("vae")
    model = VAE("industrial", (32, 32), 2, 8, 0.25)
    noise = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32)
    look = jax.jit(lambda v, x, noise: (model.apply(v, x, noise), method.encode(v, x)))
    out, codes = look({"params": state.params}, IMAGES, noise)
    spread = np.exp(0.5 * np.asarray(out["log_variance"], np.float64))
    assert spread.std() > 0
    np.testing.assert_allclose(out["code"], out["mean"] + spread * noise, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(codes, out["mean"], rtol=1e-4, atol=1e-6)
    first, second, same = (mean_of(step(state, IMAGES, key(k))[1]) for k in (3, 4, 3))
    assert first != second and first == same


def test_the_critics_step_is_adam_on_the_difference_of_means():
    rate = 5e-4
    config = config_of(
        "aae", **{"method.n_z": 3, "aae.critic_clip": 1e6, "optim.learning_rate": rate}
    )
    method = build_method(config, channels=1)
    settings = method.train_step.keywords["settings"]
    random = np.random.default_rng(0)
    codes, prior = random.normal(size=(2, 6, 3)).astype(np.float32)
    shapes = jax.eval_shape(settings.critic.init, key(0), codes)["params"]
    params = jax.tree.map(lambda p: random.normal(0, 0.5, p.shape).astype(np.float32), shapes)

    def critic(p, z):
        def leaky(x):
            return np.where(x >= 0, x, 0.01 * x)

        z = np.asarray(z, np.float64)
        hidden = leaky(z @ p["lind1"]["kernel"] + p["lind1"]["bias"])
        return leaky(hidden @ p["lind2"]["kernel"] + p["lind2"]["bias"])[:, 0]

    def distance(p):
        return critic(p, prior).mean() - critic(p, codes).mean()

    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), params)

    step = jax.jit(functools.partial(aae.critic_step, settings=settings))
    state = jax.jit(settings.critic_tx.init)(params)
    moved, _, found = step(params, state, codes, prior)
    assert float(found) == pytest.approx(distance(exact), rel=1e-4)
    # Adam's first step is the learning rate times the gradient's sign; uphill in the distance.
    for layer, name, place in (("lind1", "kernel", (0, 4)), ("lind2", "kernel", (7, 0))):
        slope = []
        for sign in (1, -1):
            nudged = jax.tree.map(np.copy, exact)
            nudged[layer][name][place] += sign * 1e-6
            slope.append(distance(nudged))
        change = float(moved[layer][name][place] - params[layer][name][place])
        assert change == pytest.approx(rate * np.sign(slope[0] - slope[1]), rel=1e-2)


def test_a_step_of_the_aae_is_reconstruction_then_the_critics_then_the_encoders():
    method, state, _, step, _ = compiled("aae")
    settings = method.train_step.keywords["settings"]
    moved, metrics = step(state, IMAGES, key(5))
    assert {"code_mean", "code_covariance", "prior_mean"} <= metrics.keys()
    plain, plain_state, _, plain_step, _ = compiled("cae")  # the same reconstruction phase
    alone = plain_state._replace(params=state.params["autoencoder"])
    alone = plain_step(alone, IMAGES, key(5))[0].params

    # The critic takes its steps on the codes behind the reconstruction.
    @jax.jit
    def five_steps(critic, alone, images):
        codes = plain.encode({"params": alone}, images)
        of_critic = settings.critic_tx.init(critic)
        for k in jax.random.split(key(5), 5):
            prior = jax.random.normal(k, codes.shape)
            critic, of_critic, distance = aae.critic_step(
                critic, of_critic, codes, prior, settings=settings
            )
        return critic, distance

    critic, distance = five_steps(state.params["critic"], alone, IMAGES)
    assert mean_of(metrics, "critic_distance") == pytest.approx(float(distance), rel=1e-4)
    # Codes differ by rounding, and a step of Adam by a small part of its rate.
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, moved.params["critic"], critic)
    before, after = (
        max(np.abs(p).max() for p in jax.tree.leaves(s.params["critic"])) for s in (state, moved)
    )
    assert before > CLIP and after == np.float32(CLIP)  # some stand at the wall of the box

    # The encoder follows the critic and the decoder does not: all that moves is regularisation's.
    ours = moved.params["autoencoder"]
    # Adam divides by the root of squared gradients that are almost nothing: a difference of
    # rounding shows in single weights.
    leaves = [jax.tree.leaves(p["decoder"]) for p in (ours, alone)]
    same = [np.isclose(a, b, rtol=1e-4, atol=1e-6).mean() for a, b in zip(*leaves, strict=True)]
    assert min(same) > 0.9
    biases = [np.asarray(p["encoder"]["lin2"]["bias"]) for p in (ours, alone)]
    step = RATE * config_of("aae").aae.encoder_rate  # of Adam
    assert np.median(np.abs(biases[0] - biases[1])) == pytest.approx(step, rel=0.1)

    @jax.jit
    def found_by_critic(autoencoder, images):
        codes = plain.encode({"params": autoencoder}, images)
        return settings.critic.apply({"params": moved.params["critic"]}, codes).mean()

    assert found_by_critic(ours, IMAGES) > found_by_critic(alone, IMAGES)


@pytest.mark.slow
def test_the_regularisation_brings_the_codes_moments_near_the_priors():
    fields = {"optim.learning_rate": 2e-3, "method.n_z": 4, "data.patch_size": 16}
    images = np.random.default_rng(0).random((32, 16, 16, 1), np.float32)

    def variance_after(name):
        method = build_method(config_of(name, **fields, **{"inference.stride": 16}), channels=1)
        state, step = jax.jit(method.init)(key(1), images), jax.jit(method.train_step)
        for i in range(400):
            state, _ = step(state, images, key(i))
        codes = jax.jit(method.encode)(method.finish({}, state, ()), images)
        return float(jax.jit(aae.moments)(codes)["covariance"])

    assert variance_after("aae") < 0.1 * variance_after("cae")


def test_moments_are_those_of_numpy():
    codes = np.random.default_rng(0).normal(2, 3, (50, 4)).astype(np.float32)
    found = jax.jit(aae.moments)(codes)
    assert float(found["mean"]) == pytest.approx(np.sqrt((codes.mean(0) ** 2).mean()), rel=1e-5)
    gap = np.cov(codes, rowvar=False, bias=True) - np.eye(4)
    assert float(found["covariance"]) == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-4)


def test_two_thresholds_are_one_map():
    _, shown, found = seen("ssim_l1")
    l1 = np.abs(IMAGES - shown).mean(axis=-1)
    half = functools.partial(residuals.structural, window=11, kind="gaussian")
    one_minus_s = 2 * np.asarray(jax.jit(half)(IMAGES, shown))
    defective = (one_minus_s > 0.3) | (l1 > 0.08)
    assert defective.mean() > 0 and np.mean(defective == (found > 1)) > 0.9999  # rounding
    np.testing.assert_allclose(found, np.maximum(one_minus_s / 0.3, l1 / 0.08), rtol=1e-4)


def test_thresholds_that_are_not_given_are_percentiles_of_heldout_pixels():
    fields = {"calibration.pixel_percentile": 90.0}
    method = build_method(config_of("ssim_l1", **fields), channels=2)
    _, state, _, _, look = compiled("ssim_l1")
    variables = method.finish({}, state, [IMAGES[:2], IMAGES[2:]])
    _, shown, found = jax.device_get(look(state, variables, IMAGES, ALL))
    l1 = np.abs(IMAGES - shown).mean(axis=-1)
    assert float(variables["thresholds"]["l1"]) == pytest.approx(np.percentile(l1, 90), rel=1e-4)
    assert 0.1 <= (found > 1).mean() <= 0.2  # either map's tenth


def test_the_map_of_ssim_ae_is_the_residual_of_its_loss():
    _, shown, found = seen("ssim_ae")
    half = functools.partial(residuals.structural, window=11, kind="gaussian")
    np.testing.assert_allclose(found, jax.jit(half)(IMAGES, shown), rtol=1e-4, atol=1e-6)


def test_the_dae_learns_the_clean_image_from_a_noisy_one_and_scores_without_noise():
    method, state, variables, step, look = compiled("dae")
    quiet = build_method(config_of("dae", **{"dae.noise": 0.0}), channels=2)
    # Twice the parameters, or little of the image reaches the end of so many layers.
    state = state._replace(params=jax.tree.map(lambda p: 2 * p, state.params))
    variables = method.finish({}, state, ())
    noise = np.asarray(jax.jit(lambda k: jax.random.normal(k, IMAGES.shape))(key(7)))
    _, shown, _ = jax.device_get(look(state, variables, IMAGES + 0.5 * noise, ALL))
    measured = mean_of(step(state, IMAGES, key(7))[1])
    assert measured == pytest.approx(squared_error(shown), rel=1e-5)
    found = [f(state, variables, IMAGES, ALL) for f in (look, looking(quiet))]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_the_residual_network_takes_any_shape():
    model = ResidualAE(1, (4, 4, 4, 4), 2)
    shapes = jax.eval_shape(model.init, key(1), np.zeros((1, 16, 16, 1), np.float32))
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda p: random.normal(0, 0.5, p.shape).astype(np.float32), shapes)
    images = [np.ones((2, *s, 1), np.float32) for s in ((16, 16), (33, 64), (100, 50))]
    for image in images:
        out = jax.eval_shape(model.apply, variables, image)
        assert out["reconstruction"].shape == image.shape
    # The odd ones are computed, too.
    images = [random.random((2, *s, 1), np.float32) for s in ((5, 7), (1, 1))]
    found = jax.jit(lambda v, many: [model.apply(v, x)["reconstruction"] for x in many])
    for image, out in zip(images, found(variables, images), strict=True):
        assert out.shape == image.shape and np.isfinite(out).all()


@pytest.mark.parametrize("name", ON_PIXELS)
def test_gradients_are_finite_on_constant_images(name):
    _, state, _, step, _ = compiled(name)
    for value in (0.0, 1.0):
        moved, _ = step(state, np.full_like(IMAGES, value), key(0))
        assert all(np.isfinite(p).all() for p in jax.tree.leaves(moved.params))


@pytest.mark.parametrize(
    ("method", "field", "value", "says"),
    [
        ("vae", "vae.kl_weight", -1.0, "kl_weight"),
        ("vae", "method.variant", "bergman", "synthetic, industrial, bergmann"),
        ("aae", "aae.critic_steps", 0, "critic_steps"),
        ("aae", "aae.critic_clip", 0.0, "critic_clip"),
        ("ssim_ae", "ssim.window", 10, "odd"),
        ("ssim_ae", "ssim.window", 33, "patch size"),
        ("ssim_ae", "ssim.kind", "box", "uniform"),
        ("l2_ae", "data.patch_size", 24, "multiple of 16"),
        ("l2_ae", "method.n_z", 0, "n_z"),
        ("ssim_l1", "ssim_l1.l1_threshold", 0.0, "l1_threshold"),
        ("dae", "dae.noise", -0.1, "noise"),
        ("dae", "dae.bottleneck", 0, "bottleneck"),
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
