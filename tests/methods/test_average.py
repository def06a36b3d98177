"""The average of the weights against its recursion in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.small_runs import losses, small_config

from recon_ad.config import check_config
from recon_ad.detector.directory import load
from recon_ad.errors import UserError
from recon_ad.methods import base, build_method
from recon_ad.methods.average import averaged
from recon_ad.ops.tiles import Geometry
from recon_ad.training.run import train

SPEC = "configs/folder.py:method=cae,smoke"  # that of `finished_run`, whose programs all fit
DECAY, KEY = 0.3, jax.random.key(0)
STEPS = np.array([3.0, -2.0, 5.0, 0.5, 1.0, -4.0, 2.0, 6.0, -1.0, 0.25, 8.0, 3.0])


def walking():
    """Return a method whose only weight and running statistic move by the batch."""

    def train_step(state, batch, key, *, image):
        w, seen = state.params["w"] + batch, state.batch_stats["seen"] + batch
        new = base.TrainState({"w": w}, {"seen": seen}, state.opt_state + 1, state.step + 1)
        return new, {"image": (image, image)}

    def finish(frozen, state, batches):
        return {**state.params, **state.batch_stats, "state": state.opt_state}

    one = jnp.float32(1)
    return base.Method(
        pretrained=lambda: ({}, {}),
        prepare=lambda frozen, images: images,
        init=lambda key, batch: base.TrainState({"w": one}, {"seen": one}, 7, jnp.int32(0)),
        train_step=train_step,
        eval_step=lambda state, batch, mask: {"loss": (state.params["w"] + batch, mask)},
        finish=finish,
        anomaly_map=lambda variables, images: images,
        reconstruct=None,
        geometry=Geometry((8, 8), (8, 8), "uniform", None),
        encode=None,
        protocol={},
    )


def recursion(steps):
    """Return the average of the weight in float64; its factor is DECAY from the fourth step on."""
    weight = average = 1.0
    for count, step in enumerate(steps):
        weight += step
        decay = min(DECAY, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * weight
    return weight, average


@pytest.mark.parametrize("count", [1, 5, len(STEPS)])
def test_evaluation_and_result_are_at_the_average_and_training_is_not(count):
    method = averaged(walking(), decay=DECAY)
    state = method.init(KEY, None)
    for i, step in enumerate(STEPS[:count]):
        state, metrics = method.train_step(state, jnp.float32(step), KEY, image=jnp.int32(i))
        assert metrics["image"] == (i, i)
    weight, average = recursion(STEPS[:count])
    # float32 keeps 24 bits of weights below 32.
    assert float(state.params["w"]) == pytest.approx(weight, abs=1e-5)
    finished = method.finish({}, state, ())
    assert float(finished["w"]) == pytest.approx(average, abs=1e-5)
    assert float(finished["seen"]) == float(finished["w"])
    assert finished["state"] == 7 + count  # the method sees its own optimiser only
    loss, mask = method.eval_step(state, 10.0, jnp.ones(1, bool))["loss"]
    assert float(loss) == pytest.approx(average + 10, abs=1e-5) and mask.all()
    assert abs(weight - average) > 0.1


def test_a_run_learns_as_without_it_and_saves_the_average(finished_run, tmp_path):
    plain = finished_run("cae")
    found = train(small_config(SPEC, **{"optim.average": 0.2}), tmp_path)
    assert losses(tmp_path).tolist() == losses(plain).tolist()
    assert losses(tmp_path, "heldout_loss").tolist() != losses(plain, "heldout_loss").tolist()
    last = load(plain / "detector").variables
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), found.variables, last)
    assert 0 < max(jax.tree.leaves(apart)) < 0.1


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_that_is_none_gets_a_sentence(decay):
    with pytest.raises(UserError, match=r"optim.average is .*0 or more and below 1"):
        check_config(small_config(SPEC, **{"optim.average": decay}))


def test_a_method_without_learning_has_nothing_to_average():
    spec = "configs/folder.py:method=knn,weights=random,smoke"
    with pytest.raises(UserError, match="knn has no weights to average: set it to 0"):
        build_method(small_config(spec, **{"optim.average": 0.5}), channels=1)
