"""Each method's own settings, the values that it rejects, and whether it learns."""

import jax
import numpy as np
import pytest
from helpers.small_encoder import CORNER, DAMAGED, SIDE, started
from helpers.small_runs import small_config

from recon_ad.errors import UserError
from recon_ad.methods import METHODS, build_method


def traced(config):
    """Run everything that reads the config: building, the first state, a step."""
    method = build_method(config, channels=1)
    images = jax.ShapeDtypeStruct((4, SIDE, SIDE, 1), np.float32)
    frozen = method.pretrained()[0]
    batch = jax.eval_shape(method.prepare, frozen, images)
    key = jax.random.key(0)
    state = jax.eval_shape(method.init, key, batch)
    more = {"image": jax.ShapeDtypeStruct((4,), np.int32)} if method.without else {}
    jax.eval_shape(method.train_step, state, batch, key, **more)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_reads_no_settings_of_another(name, small_encoder):
    config = small_config(f"configs/folder.py:method={name},smoke", **small_encoder)
    sections = METHODS.keys() & config.keys()
    assert len(sections) == 9
    with config.unlocked():
        for section in sections - {name}:
            del config[section]
    traced(config)
    if name in sections:
        with config.unlocked():
            del config[name]
        with pytest.raises((AttributeError, KeyError), match=name):
            traced(config)


@pytest.mark.parametrize(
    ("name", "fields", "figure", "share", "factor"),
    [
        ("fm_ae", {"fm_ae.feature_weight": 100}, "feature_error", 0.8, 1),
        ("vit_flow", {"encoder.blocks": (0, 1)}, "loss", 0.65, 2),
        ("vit_recon", {"train.steps": 100, "vit_recon.recipe": "ours"}, "loss", 0.2, 2),
        ("vit_recon", {"train.steps": 100, "vit_recon.recipe": "published"}, "loss", 0.2, 2),
    ],
)
def test_what_was_learnt_is_known_and_what_was_not_stands_out(
    small_encoder, name, fields, figure, share, factor
):
    fields = {"optim.learning_rate": 5e-3} | fields
    method, frozen, batch, state = started(small_encoder, name, **fields)
    step, look = jax.jit(method.train_step), jax.jit(method.eval_step)
    before = look(state, batch, np.ones(4, bool))[figure][0]
    for i in range(80):
        state, _ = step(state, batch, jax.random.key(i))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    assert look(state, batch, np.ones(4, bool))[figure][0] < share * before
    maps = np.asarray(jax.jit(method.anomaly_map)(method.finish(frozen, state, ()), DAMAGED))
    assert maps.shape == (4, SIDE, SIDE)
    assert maps[CORNER].mean() > factor * maps[1:].max()


@pytest.mark.parametrize(
    ("name", "field", "value", "says"),
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
        ("fm_ae", "fm_ae.feature_weight", 0.0, "feature_weight is 0"),
        ("fm_ae", "encoder.name", "vit_small_patch14_dinov2", "choose a multiple of"),
        ("knn", "data.patch_size", 40, "multiple of 16, for example 32"),
        ("knn", "encoder.blocks", (2, 12), "from 0 to 11"),
        ("knn", "encoder.blocks", (), "give one or more"),
        ("knn", "encoder.name", "resnet", "unknown encoder"),
        ("knn", "knn.coreset", 0, "coreset is 0"),
        ("knn", "knn.coreset", 100_000, "no smaller"),
        ("knn", "data.channels", 2, "takes 1 or 3"),
        ("vit_flow", "vit_flow.coupling", "both", "convolution, attention"),
        ("vit_flow", "vit_flow.steps", 0, "1 step or more"),
        ("vit_flow", "vit_flow.ratio", 0.0, "1 step or more"),
        ("vit_recon", "encoder.blocks", (1,), "give two or more"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(name, field, value, says):
    config = small_config(f"configs/folder.py:method={name},smoke", **{field: value})
    with pytest.raises(UserError, match=says):
        build_method(config, channels=config.data.channels or 1)
