"""Every method on pixels against its formulas in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.convolutions import drawn_params, parameter_count
from helpers.detectors import random_state
from helpers.small_runs import small_config
from helpers.ssim_reference import definition

from recon_ad.config import load_config
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
    """Return the method with FIELDS, a first state, finished variables, its step, and `look`."""
    method = build_method(config_of(name, **FIELDS.get(name, {})), channels=2)
    state = random_state(method, IMAGES)
    variables = method.finish({}, state, [IMAGES])
    return method, state, variables, jax.jit(method.train_step), looking(method)


def seen(name, images=IMAGES, mask=ALL):
    """Return held-out metrics, reconstructions and anomaly maps of the first state."""
    _, state, variables, _, look = compiled(name)
    return jax.device_get(look(state, variables, images, mask))


def mean_of(metrics, name="loss"):
    total, number = metrics[name]
    return float(total) / float(number)


def squared_error(shown):
    return ((EXACT - shown) ** 2).mean()


key = jax.random.key


def test_has_the_papers_numbers_of_parameters():
    assert parameter_count(Critic(), (1, 100)) == 1_021
    for variant, cae in (("synthetic", 2_444_021), ("industrial", 2_517_877)):
        model = VAE(variant, (128, 128), 1, 100)
        assert parameter_count(model, (1, 128, 128, 1), (1, 100)) == cae + 1024 * 100 + 100


@pytest.mark.parametrize("name", ON_PIXELS)
def test_the_heldout_loss_is_its_formula_and_leaves_padding_out(name):
    metrics, shown, _ = seen(name)
    if name != "vae":  # tested separately below
        expected = squared_error(shown)
        if "ssim" in name:
            expected = 1 - definition(IMAGES, shown).mean()
        assert mean_of(metrics) == pytest.approx(expected, rel=1e-5)
    mask = np.array([True, True, True, False])
    other = IMAGES.copy()
    other[3] = 0.5
    padded = seen(name, other, mask)[0]
    for figure, value in seen(name, mask=mask)[0].items():
        np.testing.assert_allclose(padded[figure], value, rtol=1e-6, err_msg=figure)


def test_the_divergence_is_the_closed_form():
    mean, log_variance = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    closed = 0.5 * (np.exp(np.float64(log_variance)) + mean**2 - 1 - log_variance).sum(axis=1)
    np.testing.assert_allclose(jax.jit(vae.divergence)(mean, log_variance), closed, rtol=1e-5)


def test_the_vaes_loss_is_the_error_and_the_weighted_divergence():
    weights = {None: 1 / (32 * 32 * 2), 1.0: 1.0, 0.0: 0.0}
    methods = [
        build_method(config_of("vae", **{"vae.kl_weight": given}), channels=2) for given in weights
    ]
    # One program computes only once what all of them share.
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
    fields = {"method.n_z": 3, "aae.critic_clip": 1e6, "optim.learning_rate": rate}
    method = build_method(config_of("aae", **fields), channels=1)
    settings = method.train_step.keywords["settings"]
    codes, prior = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    params = drawn_params(settings.critic, codes, spread=0.5)

    def distance(params):
        def layer(x, name):
            x = x @ params[name]["kernel"] + params[name]["bias"][None]
            return jnp.where(x >= 0, x, 0.01 * x)

        of_prior, of_codes = (layer(layer(z, "lind1"), "lind2").mean() for z in (prior, codes))
        return of_prior - of_codes

    expected, slopes = jax.jit(jax.value_and_grad(distance))(params)
    step = jax.jit(functools.partial(aae.critic_step, settings=settings))
    moved, _, found = step(params, jax.jit(settings.critic_tx.init)(params), codes, prior)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    # Adam's first step is the rate times the gradient's sign; the distance is maximised.
    change = jax.tree.map(lambda a, b: (a - b) / rate, moved, params)
    uphill = jax.tree.map(np.sign, slopes)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=0.01), change, uphill)


def test_a_step_of_the_aae_is_reconstruction_then_the_critics_then_the_encoders():
    method, state, _, step, _ = compiled("aae")
    settings = method.train_step.keywords["settings"]
    moved, metrics = step(state, IMAGES, key(5))
    assert {"code_mean", "code_covariance", "prior_mean"} <= metrics.keys()
    plain, plain_state, _, plain_step, _ = compiled("cae")  # the same reconstruction phase
    alone = plain_state._replace(params=state.params["autoencoder"])
    alone = plain_step(alone, IMAGES, key(5))[0].params

    @jax.jit
    def replayed(critic, alone, images):
        """Replay the critic's steps on codes after the reconstruction and the encoder's slopes."""
        codes, of_critic = plain.encode({"params": alone}, images), settings.critic_tx.init(critic)
        for k in jax.random.split(key(5), 5):
            prior = jax.random.normal(k, codes.shape)
            critic, of_critic, distance = aae.critic_step(
                critic, of_critic, codes, prior, settings=settings
            )

        def criticised(encoder):
            codes = plain.encode({"params": alone | {"encoder": encoder}}, images)
            return settings.critic.apply({"params": critic}, codes).mean()

        return critic, distance, jax.grad(criticised)(alone["encoder"])

    critic, distance, slopes = replayed(state.params["critic"], alone, IMAGES)
    assert mean_of(metrics, "critic_distance") == pytest.approx(float(distance), rel=1e-4)
    # Codes differ by rounding, and a step of Adam by a small fraction of its rate.
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    jax.tree.map(close, moved.params["critic"], critic)
    before, after = (
        max(np.abs(p).max() for p in jax.tree.leaves(s.params["critic"])) for s in (state, moved)
    )
    assert before > CLIP and after == np.float32(CLIP)  # some are at the wall of the box

    # The encoder follows the critic, by its rate along the slopes' signs; the decoder does not.
    rate = RATE * config_of("aae").aae.encoder_rate
    encoder = jax.tree.map(lambda p, slope: p + rate * np.sign(slope), alone["encoder"], slopes)
    # Adam divides by the root of almost vanishing squared gradients, so rounding differences
    # show in single weights.
    pairs = (moved.params["autoencoder"], alone | {"encoder": encoder})
    same = jax.tree.map(lambda a, b: np.isclose(a, b, rtol=1e-4, atol=1e-6).mean(), *pairs)
    assert min(jax.tree.leaves(same)) > 0.9


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


def one_minus_s(shown):
    half = functools.partial(residuals.structural, window=11, kind="gaussian")
    return 2 * np.asarray(jax.jit(half)(IMAGES, shown))


def test_two_thresholds_are_one_map():
    _, shown, found = seen("ssim_l1")
    l1 = np.abs(IMAGES - shown).mean(axis=-1)
    expected = np.maximum(one_minus_s(shown) / 0.3, l1 / 0.08)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_thresholds_that_are_not_given_are_percentiles_of_heldout_pixels():
    method = build_method(
        config_of("ssim_l1", **{"calibration.pixel_percentile": 90.0}), channels=2
    )
    _, state, _, _, look = compiled("ssim_l1")
    variables = method.finish({}, state, [IMAGES[:2], IMAGES[2:]])
    _, shown, found = jax.device_get(look(state, variables, IMAGES, ALL))
    l1 = np.abs(IMAGES - shown).mean(axis=-1)
    assert float(variables["thresholds"]["l1"]) == pytest.approx(np.percentile(l1, 90), rel=1e-4)
    assert 0.1 <= (found > 1).mean() <= 0.2  # a tenth of each map


def test_the_map_of_ssim_ae_is_the_residual_of_its_loss():
    _, shown, found = seen("ssim_ae")
    np.testing.assert_allclose(found, one_minus_s(shown) / 2, rtol=1e-4, atol=1e-6)


def test_the_dae_learns_the_clean_image_from_a_noisy_one_and_scores_without_noise():
    method, state, variables, step, look = compiled("dae")
    quiet = build_method(config_of("dae", **{"dae.noise": 0.0}), channels=2)
    # Twice the parameters, or little of the image would pass so many layers.
    state = state._replace(params=jax.tree.map(lambda p: 2 * p, state.params))
    variables = method.finish({}, state, ())
    noise = np.asarray(jax.jit(lambda k: jax.random.normal(k, IMAGES.shape))(key(7)))
    _, shown, _ = jax.device_get(look(state, variables, IMAGES + 0.5 * noise, ALL))
    measured = mean_of(step(state, IMAGES, key(7))[1])
    assert measured == pytest.approx(squared_error(shown), rel=1e-5)
    found = [f(state, variables, IMAGES, ALL) for f in (look, looking(quiet))]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_the_residual_network_takes_any_shape():
    model, random = ResidualAE(1, (4, 4, 4, 4), 2), np.random.default_rng(0)
    images = [random.random((2, *s, 1), np.float32) for s in ((16, 16), (33, 50), (5, 7), (1, 1))]
    params = drawn_params(model, images[0], spread=0.5)
    paint = jax.jit(lambda many: [model.apply({"params": params}, x) for x in many])
    for image, out in zip(images, paint(images), strict=True):
        assert out["reconstruction"].shape == image.shape
        assert np.isfinite(out["reconstruction"]).all()


@pytest.mark.parametrize("name", ON_PIXELS)
def test_gradients_are_finite_on_constant_images(name):
    _, state, _, step, _ = compiled(name)
    for value in (0.0, 1.0):
        moved, _ = step(state, np.full_like(IMAGES, value), key(0))
        assert all(np.isfinite(p).all() for p in jax.tree.leaves(moved.params))


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
