"""The trainer: learning, resuming exactly, devices, failures, what a user is told."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import losses, only_devices, outcome, small_config

from recon_ad import evaluate
from recon_ad import train as trainer
from recon_ad.data import memory_source
from recon_ad.detector import core, load
from recon_ad.errors import UserError
from recon_ad.methods import build_method


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished smoke run, evaluated."""
    workdir = tmp_path_factory.mktemp("run")
    trainer.train(small_config(), workdir)
    evaluate.evaluate_workdir(workdir)
    return workdir


def test_writes_all_that_the_contract_names(finished):
    for name in (
        "config.json", "log.jsonl", "checkpoints", "detector/detector.json",
        "detector/variables.safetensors", "metrics.json", "report.html", "scores.csv",
    ):  # fmt: skip
        assert (finished / name).exists(), name
    assert list(finished.glob("events.out.tfevents.*"))
    assert sorted(p.name for p in (finished / "samples").iterdir()) == [
        f"step_{s:07d}.png" for s in (2, 4, 6)
    ]


def test_logs_every_step_and_every_heldout_loss_once(finished):
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [e["step"] for e in lines if "train_loss" in e] == [1, 2, 3, 4, 5, 6]
    assert [e["step"] for e in lines if "heldout_loss" in e] == [2, 4, 6]


def test_keeps_the_latest_and_the_best_checkpoints(finished):
    steps = {int(p.name) for p in (finished / "checkpoints").iterdir() if p.name.isdigit()}
    assert {4, 6} <= steps


def test_a_run_stopped_at_any_checkpoint_ends_as_the_uninterrupted_one(
    finished, tmp_path, monkeypatch
):
    class Stopped(Exception):
        pass

    def stop_at(step):
        def put_batch(mesh, batch):
            if put_batch.calls == step:
                raise Stopped
            put_batch.calls += "index" in batch
            return original(mesh, batch)

        put_batch.calls = 0
        return put_batch

    original = trainer.meshes.put_batch
    # Stops after 5 steps, then 1 step after the checkpoint at step 4, then runs through.
    for calls in (5, 1, 99):
        monkeypatch.setattr(trainer.meshes, "put_batch", stop_at(calls))
        if calls == 99:
            trainer.train(small_config(), tmp_path)
        else:
            with pytest.raises(Stopped):
                trainer.train(small_config(), tmp_path)
    evaluate.evaluate_workdir(tmp_path)
    assert outcome(tmp_path) == outcome(finished)
    assert (tmp_path / "log.jsonl").read_text() == (finished / "log.jsonl").read_text()


def test_the_seed_decides(finished, tmp_path):
    trainer.train(small_config(seed=1), tmp_path)
    assert (losses(tmp_path) != losses(finished)).any()


def test_a_complete_run_is_not_trained_again(finished, caplog, monkeypatch):
    monkeypatch.setattr(trainer, "fit_state", None)
    with caplog.at_level(logging.INFO, "recon_ad"):
        trainer.train(small_config(), finished)
    assert "complete" in caplog.text


def test_another_config_in_the_same_workdir_is_refused_with_the_difference(finished):
    with pytest.raises(UserError, match=r"optim\.learning_rate: 0\.0005 → 0\.002"):
        trainer.train(small_config(**{"optim.learning_rate": 0.002}), finished)


def test_a_nan_stops_the_run_and_names_the_step(tmp_path):
    config = small_config(**{"optim.learning_rate": float("1e38")})
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) at step \d+"):
        trainer.train(config, tmp_path)


def test_the_best_checkpoint_is_used_when_asked_for(tmp_path):
    # So high a rate makes the loss jump about; the lowest held-out loss is the one to find.
    config = small_config(**{"train.select": "best", "optim.learning_rate": 0.01})
    detector = trainer.train(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    held = {e["step"]: e["heldout_loss"] for e in lines if "heldout_loss" in e}
    assert detector.record["training"]["selected_step"] == min(held, key=held.get)


def test_eight_devices_learn_as_one_does(tmp_path, monkeypatch):
    config = small_config(**{"train.steps": 50, "train.eval_every": 50, "data.augment": ("rot90",)})
    trainer.train(config, tmp_path / "eight")
    only_devices(monkeypatch, 1)
    trainer.train(config, tmp_path / "one")
    one, eight = losses(tmp_path / "one"), losses(tmp_path / "eight")
    assert len(one) == 50
    assert one[-1] < one[0]
    np.testing.assert_allclose(eight, one, rtol=1e-5)


def test_pmap_of_the_core_agrees_with_jit(finished):
    detector = load(finished / "detector")
    method = build_method(detector.config, channels=1)
    tiles = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 1), np.uint8)
    residual, reconstruction = detector.core(detector.variables, tiles)
    mapped = jax.pmap(lambda images: core(detector.variables, images, method=method))
    by_device = mapped(jnp.asarray(tiles).reshape(8, 2, 32, 32, 1))
    # Convolutions over batches of 2 and 16 may add in another order.
    np.testing.assert_allclose(by_device[0].reshape(16, 32, 32), residual, atol=1e-6)
    np.testing.assert_allclose(by_device[1].reshape(16, 32, 32, 1), reconstruction, atol=1e-6)


def test_a_model_that_learned_only_the_mean_is_told_so(tmp_path, caplog):
    rng = np.random.default_rng(0)
    noise = memory_source(list(rng.integers(0, 256, (12, 32, 32), np.uint8)))
    config = small_config(**{"train.steps": 40, "train.eval_every": 2, "optim.learning_rate": 1e-4})
    detector = trainer.train(config, tmp_path, source=noise)
    assert detector.record["training"]["explained_variance"] < 0.05
    assert "learned only the mean" in caplog.text


def test_an_explained_variance_is_that_of_the_heldout_patches(finished):
    story = load(finished / "detector").record["training"]
    lines = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert story["explained_variance"] == 1 - lines[-1]["heldout_unexplained_variance"]


def command(workdir, *more):
    return [
        sys.executable, "-m", "recon_ad.train", "--config", "configs/demo.py:smoke",
        f"--workdir={workdir}", "--config.train.steps=30", *more,
    ]  # fmt: skip


ONE_DEVICE = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}


def run(workdir, *more):
    return subprocess.run(
        command(workdir, *more), env=ONE_DEVICE, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_ten_runs_killed_at_random_moments_end_as_the_uninterrupted_one(tmp_path):
    whole = tmp_path / "whole"
    result = run(whole)
    assert result.returncode == 0, result.stderr
    expected = outcome(whole)
    rng = random.Random(0)
    killed_while_training = 0
    for i in range(10):
        workdir = tmp_path / f"killed{i}"
        process = subprocess.Popen(command(workdir), env=ONE_DEVICE, stderr=subprocess.DEVNULL)
        while not any(p.name.isdigit() for p in workdir.glob("checkpoints/*")):
            time.sleep(0.02)
            assert process.poll() is None
        time.sleep(rng.uniform(0, 3))
        killed_while_training += not (workdir / "detector").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        result = run(workdir)
        assert result.returncode == 0, result.stderr
        assert outcome(workdir) == expected
        lines = [json.loads(x) for x in (workdir / "log.jsonl").read_text().splitlines()]
        assert [e["step"] for e in lines if "train_loss" in e] == list(range(1, 31))
    assert killed_while_training >= 3


@pytest.mark.slow
def test_the_command_profiles_resumes_and_says_that_it_is_complete(tmp_path):
    first = run(tmp_path, "--stop_after=train", "--profile")
    assert first.returncode == 0, first.stderr
    assert not (tmp_path / "metrics.json").exists()
    assert list(Path(tmp_path, "profile").rglob("*.xplane.pb"))
    second = run(tmp_path)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "metrics.json").exists()
    third = run(tmp_path)
    assert "complete" in third.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config", "configs/folder.py"], "config.data.path is empty"),
        (["--config", "configs/folder.py:path=/no/such/folder"], "/no/such/folder"),
        (["--config", "configs/demo.py:method=gan"], "gan"),
        (["--config", "configs/demo.py:colour=red"], "no argument 'colour'"),
        (["--config", "configs/demo.py", "extra"], "'extra' is not a flag"),
    ],
)
def test_mistakes_end_in_one_sentence_without_a_traceback(tmp_path, arguments, says):
    result = subprocess.run(
        [sys.executable, "-m", "recon_ad.train", *arguments, "--workdir", str(tmp_path / "w")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
