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
from small_runs import losses, only_devices, outcome, small_config

from recon_ad import diagnosis, evaluate
from recon_ad import train as trainer
from recon_ad.data import memory_source
from recon_ad.detector import core, load
from recon_ad.errors import UserError
from recon_ad.methods import build_method
from recon_ad.runtime.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished smoke run, evaluated."""
    workdir = tmp_path_factory.mktemp("run")
    trainer.train(small_config(), workdir)
    evaluate.evaluate_workdir(workdir, export=False)
    return workdir


def test_writes_all_that_the_contract_names(finished):
    for name in (
        "config.json", "data.json", "log.jsonl", "checkpoints", "detector/detector.json",
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
    evaluate.evaluate_workdir(tmp_path, export=False)
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


def test_other_images_in_the_same_workdir_are_refused(tmp_path):
    images = list(np.random.default_rng(0).integers(0, 256, (3, 128, 96), np.uint8))
    config = small_config(**{"train.steps": 2})
    trainer.train(config, tmp_path, source=memory_source(images))
    trainer.train(config, tmp_path, source=memory_source(images))
    with pytest.raises(UserError, match="another data"):
        trainer.train(config, tmp_path, source=memory_source([*images[:2], images[2] // 2]))


def test_train_seconds_add_up_over_a_resumption(tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stopping(mesh, batch):
        stopping.calls += "index" in batch
        if stopping.calls == 4:
            raise Stopped
        return put_batch(mesh, batch)

    put_batch, stopping.calls = trainer.meshes.put_batch, 0
    monkeypatch.setattr(trainer.meshes, "put_batch", stopping)
    with pytest.raises(Stopped):
        trainer.train(small_config(), tmp_path)
    (book,) = [
        json.loads(p.read_text()) for p in (tmp_path / "checkpoints/2/book").glob("metadata")
    ]
    monkeypatch.setattr(trainer.meshes, "put_batch", put_batch)
    story = trainer.train(small_config(), tmp_path).record["training"]
    assert story["train_seconds"] > book["train_seconds"] > 0


def test_images_without_any_variance_are_trained_and_evaluated(tmp_path):
    flat = memory_source(list(np.full((4, 128, 96), 7, np.uint8)))
    detector = trainer.train(small_config(), tmp_path, source=flat)
    assert detector.record["training"]["explained_variance"] is None
    json.loads((tmp_path / "detector" / "detector.json").read_text())


@pytest.mark.parametrize(
    "fields",
    [{"data.patch_size": 40}, {"train.batch_size": 12}, {"method.variant": "x"}, {"method.n_z": 0}],
)
def test_a_mistake_that_was_put_right_is_no_other_config(tmp_path, fields):
    with pytest.raises(UserError):
        trainer.train(small_config(**fields), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_one_image_cannot_be_resized_and_cut(tmp_path):
    one = memory_source([np.zeros((256, 256), np.uint8)])
    with pytest.raises(UserError, match=r"config\.data\.resize"):
        trainer.train(small_config(**{"data.resize": (64, 64)}), tmp_path / "w", source=one)
    assert not (tmp_path / "w").exists()


def test_a_nan_stops_the_run_and_names_the_step(tmp_path):
    config = small_config(**{"optim.learning_rate": float("1e38")})
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) at step \d+"):
        trainer.train(config, tmp_path)


def test_the_best_checkpoint_is_kept_and_used_when_asked_for(tmp_path, monkeypatch):
    save, states = Checkpoints.save, {}

    def ranked(self, step, state, book, *, loss):
        states[step] = jax.device_get(state.params)
        save(self, step, state, book, loss=0.1 if step == 4 else 0.2)

    monkeypatch.setattr(Checkpoints, "save", ranked)
    config = small_config(**{"train.select": "best", "train.steps": 12})
    detector = trainer.train(config, tmp_path)
    assert detector.record["training"]["selected_step"] == 4
    jax.tree.map(np.testing.assert_array_equal, detector.variables["params"], states[4])
    kept = {int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()}
    assert kept == {4, 10, 12}


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


def test_a_model_that_learned_only_the_mean_is_told_so(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(diagnosis, "ENOUGH", 300)  # of these small patches
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
    # As long as this machine takes from the first checkpoint to the detector.
    first, last = whole / "samples" / "step_0000002.png", whole / "detector" / "detector.json"
    seconds = last.stat().st_mtime - first.stat().st_mtime
    rng = random.Random(0)
    killed_while_training = 0
    for i in range(10):
        workdir = tmp_path / f"killed{i}"
        process = subprocess.Popen(command(workdir), env=ONE_DEVICE, stderr=subprocess.DEVNULL)
        while not any(p.name.isdigit() for p in workdir.glob("checkpoints/*")):
            time.sleep(0.02)
            assert process.poll() is None
        time.sleep(rng.uniform(0, seconds))
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
        (["--config", "configs/demo.py", "--config.train.stepz=3"], "stepz"),
        (["--config", "configs/demo.py", "--config.train.steps=abc"], "abc"),
        (["--config", "configs/nothing.py"], "nothing.py"),
        ([], "--config"),
        (["--config", "configs/demo.py:smoke", "--workdir", "README.md"], "README.md"),
    ],
)
def test_mistakes_end_in_one_sentence_without_a_traceback(tmp_path, arguments, says):
    result = subprocess.run(
        [sys.executable, "-m", "recon_ad.train", "--workdir", str(tmp_path / "w"), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
