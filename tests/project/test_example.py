"""The worked example of a method: it learns what PCA finds, and commands accept it."""

import importlib
import json
import re

import jax
import numpy as np
import pytest
from helpers.commands import run_command
from helpers.detectors import make_detector
from helpers.paths import ROOT
from helpers.small_runs import small_config, table

from recon_ad.detector.directory import load
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, build_method
from recon_ad.training.run import train

LINEAR = "examples.linear_ae"


@pytest.fixture
def linear_ae(monkeypatch):
    """Yield the module, whose method other tests do not see."""
    monkeypatch.syspath_prepend(str(ROOT))
    module = importlib.import_module(LINEAR)
    monkeypatch.setitem(METHODS, LINEAR, module.build)
    return module


def test_it_is_as_short_as_the_text_says():
    lines = (ROOT / "examples/linear_ae.py").read_text().splitlines()
    assert len(lines) < 60
    given = re.findall(r"linear_ae\.py\), (\d+) lines", (ROOT / "docs/extending.md").read_text())
    assert given == [str(len(lines))]


def test_a_detector_brings_no_code_along(linear_ae, tmp_path, monkeypatch):
    make_detector(LINEAR).save(tmp_path / "d")
    monkeypatch.delitem(METHODS, LINEAR)
    with pytest.raises(UserError, match=f"add --methods={LINEAR}"):
        load(tmp_path / "d")


@pytest.mark.parametrize(
    ("path", "words"),
    [("no.such.module", "no module no.such.module"), ("json.decoder", "no function build")],
)
def test_what_is_no_method_is_refused(path, words, tmp_path):
    config = small_config("configs/folder.py:smoke", **{"method.name": path})
    with pytest.raises(UserError, match=words):
        train(config, tmp_path)


def test_it_learns_what_pca_finds(linear_ae):
    config = small_config(
        **{"method.name": LINEAR, "method.n_z": 3, "data.patch_size": 32,
           "optim.learning_rate": 0.01, "optim.schedule": "cosine", "train.steps": 3000},
    )  # fmt: skip
    random = np.random.default_rng(0)
    # Blocks of three patterns and a little noise.
    patterns = np.linalg.qr(random.normal(size=(64, 3)))[0].T
    blocks = random.normal(size=(16 * 16, 3)) @ patterns + 0.02 * random.normal(size=(256, 64))
    images = blocks.reshape(16, 4, 4, 8, 8).swapaxes(2, 3).reshape(16, 32, 32, 1)
    images = jax.device_put(images.astype(np.float32))
    method = build_method(config, channels=1)
    state = jax.jit(method.init)(jax.random.key(0), images)

    @jax.jit
    def trained(state, images):
        def step(_, state):
            return method.train_step(state, images, jax.random.key(0))[0]

        return jax.lax.fori_loop(0, config.train.steps, step, state)

    variables = method.finish({}, trained(state, images), [])
    learnt = np.asarray(method.anomaly_map(variables, images)).mean()
    centred = blocks - blocks.mean(axis=0)
    spread = np.linalg.svd(centred, compute_uv=False) ** 2
    best = spread[3:].sum() / blocks.size
    assert best < learnt < 1.05 * best < 0.05 * spread.sum() / blocks.size
    shown = linear_ae.LinearAE(3).apply(variables, images)
    np.testing.assert_array_equal(shown, method.reconstruct(variables, images))


def test_commands_take_it(linear_ae, chess_folder, tmp_path):
    run = tmp_path / "run"
    done = run_command(
        "train", "--config", f"configs/folder.py:path={chess_folder},smoke",
        f"--config.method.name={LINEAR}", "--config.method.n_z=8", "--workdir", run, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0 and "model.parity.json" in done.stderr, done.stderr
    assert json.loads((run / "model.parity.json").read_text())["passed"]
    assert json.loads((run / "metrics.json").read_text())["pixel_auroc"] is not None
    given = ["--input", chess_folder / "test", "--output"]
    for name, detector in (("a", "--detector=detector"), ("b", "--onnx=model.onnx")):
        named = f"--methods={LINEAR}"
        done = run_command("predict", detector, named, *given, tmp_path / name, cwd=run)
        assert done.returncode == 0, done.stderr
    a, b = (table(tmp_path / name / "predictions.csv") for name in "ab")
    assert [row["anomalous"] for row in a] == [row["anomalous"] for row in b] != []
