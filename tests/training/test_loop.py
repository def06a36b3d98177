"""The trainer: learning, exact resumption, failures, and messages to users."""

import json
import logging
import random
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from helpers.commands import command_line
from helpers.paths import ROOT
from helpers.small_runs import losses, small_config, without_timings

from recon_ad.data import memory_source
from recon_ad.detector.directory import load
from recon_ad.errors import UserError
from recon_ad.methods import METHODS, WITH_ENCODER
from recon_ad.runtime import checkpoints
from recon_ad.runtime.checkpoints import Checkpoints
from recon_ad.runtime.waiting import RUN_LOCK, exclusive_lock
from recon_ad.training import diagnosis
from recon_ad.training import run as trainer
from recon_ad.training.loop import memory_size
from recon_ad.training.same_run import same_run

SPEC = "configs/folder.py:method=cae,smoke"  # that of `finished_run`, whose programs all fit


def config_of(**fields):
    return small_config(SPEC, **fields)


def log_of(workdir):
    return [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]


def ends_alike(workdir, other):
    """Compare two runs: parameters, thresholds and record, log."""
    for name in ("detector/variables.safetensors", "log.jsonl"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes()
    told = (json.loads((w / "detector" / "detector.json").read_text()) for w in (workdir, other))
    assert without_timings(next(told)) == without_timings(next(told))


def steps_kept(workdir):
    return {int(p.name) for p in workdir.glob("checkpoints/*") if p.name.isdigit()}


@pytest.fixture(scope="module")
def finished(finished_run):
    """Return a finished, evaluated smoke run, which is read-only."""
    return finished_run("cae")


def test_a_run_writes_its_files_and_logs_each_step_and_each_heldout_loss_once(finished):
    for name in (
        "config.json", "data.json", "log.jsonl", "checkpoints", "detector/detector.json",
        "detector/variables.safetensors", "metrics.json", "report.html", "scores.csv",
    ):  # fmt: skip
        assert (finished / name).exists(), name
    assert "no reason was recorded" not in (finished / "report.html").read_text()
    assert list(finished.glob("events.out.tfevents.*"))
    samples = sorted(p.name for p in (finished / "samples").iterdir())
    assert samples == [f"step_{step:07d}.png" for step in (2, 4, 6)]
    lines = log_of(finished)
    assert [e["step"] for e in lines if "train_loss" in e] == [1, 2, 3, 4, 5, 6]
    assert [e["step"] for e in lines if "heldout_loss" in e] == [2, 4, 6]
    assert {4, 6} <= steps_kept(finished)
    story = load(finished / "detector").record["training"]
    assert story["explained_variance"] == 1 - lines[-1]["heldout_unexplained_variance"]


def stop_before(step, monkeypatch):
    """Make a process stop after that many steps."""
    put_batch, done = trainer.meshes.put_batch, iter(range(99))

    def stopping(mesh, batch):
        if "index" in batch and next(done) == step:
            raise InterruptedError
        return put_batch(mesh, batch)

    monkeypatch.setattr(trainer.meshes, "put_batch", stopping)


def test_a_run_stopped_at_any_checkpoint_ends_as_the_uninterrupted_one(
    finished, tmp_path, monkeypatch
):
    # Stops after 5 steps, then 1 step after the checkpoint at step 4, then runs through.
    for steps in (5, 1):
        with monkeypatch.context() as patched, pytest.raises(InterruptedError):
            stop_before(steps, patched)
            trainer.train(config_of(), tmp_path)
    (book,) = (tmp_path / "checkpoints/4/book").glob("metadata")
    kept = json.loads(book.read_text())
    assert kept["train_seconds"] > 0
    monkeypatch.setattr(checkpoints, "digest_of", lambda state, book: kept["sha256"])
    book.write_text(json.dumps(kept | {"train_seconds": 1000.0}))
    story = trainer.train(config_of(), tmp_path).record["training"]
    assert story["train_seconds"] > 1000
    ends_alike(tmp_path, finished)


def test_the_seed_decides(finished, tmp_path, monkeypatch):
    stop_before(2, monkeypatch)
    with pytest.raises(InterruptedError):
        trainer.train(config_of(seed=1), tmp_path)
    assert len(losses(tmp_path)) == 2
    assert (losses(tmp_path) != losses(finished)[:2]).all()


def test_a_complete_run_is_not_trained_again_and_another_config_is_refused(
    finished, caplog, monkeypatch
):
    monkeypatch.setattr(trainer, "fit_state", None)
    with caplog.at_level(logging.INFO, "recon_ad"):
        trainer.train(config_of(), finished)
    assert "complete" in caplog.text
    with pytest.raises(UserError, match=r"optim\.learning_rate: 0\.0005 → 0\.002"):
        trainer.train(config_of(**{"optim.learning_rate": 0.002}), finished)


def test_images_without_any_variance_are_trained_on_and_other_ones_refused(tmp_path, monkeypatch):
    images = list(np.full((4, 128, 96), 7, np.uint8))
    config = config_of(**{"train.steps": 2})
    detector = trainer.train(config, tmp_path, source=memory_source(images))
    assert detector.record["training"]["explained_variance"] is None
    json.loads((tmp_path / "detector" / "detector.json").read_text())
    monkeypatch.setattr(trainer, "fit_state", None)
    trainer.train(config, tmp_path, source=memory_source(images))
    with pytest.raises(UserError, match="another data"):
        trainer.train(config, tmp_path, source=memory_source([*images[:3], images[3] // 2]))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"data.patch_size": 40}, "patch_size"),
        ({"inference.score": "median"}, "choose one of: max, mean"),
        ({"method.variant": "x"}, "variant"),
        ({"method.n_z": 0}, "n_z"),
        ({"data.resize": (64, 64)}, r"config\.data\.resize"),  # one image, which is to be cut
    ],
)
def test_a_mistake_that_was_put_right_is_no_other_config(tmp_path, fields, says):
    one = memory_source([np.zeros((256, 256), np.uint8)])
    with pytest.raises(UserError, match=says):
        trainer.train(config_of(**fields), tmp_path / "w", source=one)
    assert not (tmp_path / "w").exists()


def test_a_nan_stops_the_run_and_names_the_step(tmp_path):
    config = config_of(**{"optim.learning_rate": 1e38})
    with pytest.raises(FloatingPointError, match=r"loss is (nan|inf) at step \d+"):
        trainer.train(config, tmp_path)


def test_the_best_checkpoint_is_kept_and_used_when_asked_for(tmp_path, monkeypatch):
    save, states = Checkpoints.save, {}

    def ranked(self, step, state, book, *, loss):
        states[step] = jax.device_get(state.params)
        save(self, step, state, book, loss=0.1 if step == 2 else 0.2)

    monkeypatch.setattr(Checkpoints, "save", ranked)
    config = config_of(**{"train.select": "best", "train.steps": 8})
    detector = trainer.train(config, tmp_path)
    assert detector.record["training"]["selected_step"] == 2
    jax.tree.map(np.testing.assert_array_equal, detector.variables["params"], states[2])
    assert steps_kept(tmp_path) == {2, 6, 8}


def test_a_model_that_learned_only_the_mean_is_told_so(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(diagnosis, "ENOUGH", 64)  # for these small patches
    rng = np.random.default_rng(0)
    noise = memory_source(list(rng.integers(0, 256, (12, 32, 32), np.uint8)))
    config = config_of(**{"train.steps": 16, "train.eval_every": 4})
    detector = trainer.train(config, tmp_path, source=noise)
    assert detector.record["training"]["explained_variance"] < 0.05
    assert "learned only the mean" in caplog.text


def cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def other_time(book):
    book.write_text(json.dumps(json.loads(book.read_text()) | {"train_seconds": 1.0}))


def largest(folder):
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda step: cut(largest(step / "state")),
        lambda step: flip_a_bit(largest(step / "state")),
        lambda step: shutil.rmtree(step / "state"),
        lambda step: other_time(step / "book" / "metadata"),
        lambda step: (step / "book" / "metadata").write_text("[1]"),
        lambda step: (step / "book" / "metadata").write_text('{"train'),
        lambda step: (step / "metrics" / "metrics").write_text('{"loss'),
    ],
    ids=["cut", "a bit", "gone", "other book", "no book", "half a book", "no loss"],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(
    damage, finished, tmp_path, caplog
):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "detector")
    damage(run / "checkpoints" / "6")
    (run / "log.jsonl").write_text('{"step": 1, "tr\n' + (run / "log.jsonl").read_text())
    trainer.train(config_of(), run)
    ends_alike(run, finished)
    assert "the checkpoint of step 6 is damaged" in caplog.text
    assert [p.name[:2] for p in (run / "checkpoints.damaged").iterdir()] == ["6-"]


def test_a_damaged_checkpoint_is_told_without_the_logs_of_other_tasks(
    finished, tmp_path, caplog, monkeypatch
):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "detector")
    restore = ocp.CheckpointManager.restore

    def restored(self, step, **given):
        if step == 6:  # as Orbax does where one of several tasks fails
            logging.getLogger("asyncio").error("unhandled exception during asyncio.run() shutdown")
            raise ValueError("a chunk does not decode")
        return restore(self, step, **given)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", restored)
    trainer.train(config_of(), run)
    assert "the checkpoint of step 6 is damaged" in caplog.text
    assert "asyncio" not in {record.name for record in caplog.records}
    assert not logging.getLogger("asyncio").disabled


def test_a_checkpoint_that_a_killed_run_left_unfinished_stops_nothing(finished, tmp_path, caplog):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "detector")
    left = run / "checkpoints" / "7.orbax-checkpoint-tmp" / "metrics"
    left.mkdir(parents=True)
    (left / "metrics").write_text('{"loss')
    trainer.train(config_of(), run)
    ends_alike(run, finished)
    assert "damaged" not in caplog.text


def test_where_all_checkpoints_are_damaged_training_begins_anew(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "detector")
    for step in steps_kept(run):
        flip_a_bit(largest(run / "checkpoints" / str(step) / "state"))
    trainer.train(config_of(), run)
    ends_alike(run, finished)


def test_a_damaged_best_checkpoint_is_no_result(finished, tmp_path, monkeypatch):
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "detector")
    best = Checkpoints(run / "checkpoints")
    step = best.best()
    best.close()
    flip_a_bit(largest(run / "checkpoints" / str(step) / "state"))
    monkeypatch.setattr(Checkpoints, "latest", lambda self, like: (6, like, {}))
    config = config_of(**{"train.select": "best"})
    (run / "config.json").write_text(config.to_json())
    with pytest.raises(UserError, match=f"step {step} .* is damaged"):
        trainer.train(config, run)


def test_a_run_goes_on_where_its_images_are_at_another_path(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    data, config = json.loads((run / "data.json").read_text()), config_of()
    config.data.path = "/scratch/of/another/node"
    same_run(run, config, data)
    with pytest.raises(UserError, match="another data"):
        same_run(run, config, data | {"fingerprint": "of other images"})
    config.data.channels = 3
    with pytest.raises(UserError, match=r"data\.channels"):
        same_run(run, config, data)


def test_a_run_of_before_a_field_goes_on_with_the_value_that_was_in_force(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    before = json.loads((run / "config.json").read_text())
    assert before["optim"].pop("average") == 0
    (run / "config.json").write_text(json.dumps(before))
    same_run(run, config_of(), data := json.loads((run / "data.json").read_text()))
    with pytest.raises(UserError, match=r"optim\.average: 0.* → 0\.5"):
        same_run(run, config_of(**{"optim.average": 0.5}), data)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each_method_killed_behind_a_checkpoint_ends_as_the_uninterrupted_one(
    method, small_encoder, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "recon_ad")
    fields = small_encoder if method in WITH_ENCODER else {}
    config = small_config(f"configs/folder.py:method={method},smoke", **fields)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    trainer.train(config, whole)
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "detector")
    shutil.rmtree(killed / "checkpoints" / "6")
    (killed / "samples" / "step_0000006.png").unlink(missing_ok=True)
    watched = []
    trainer.train(config, killed, watch=lambda step, *_: watched.append(step))
    assert watched == [6]  # it resumed at step 4
    ends_alike(killed, whole)
    learns_nothing = method in ("knn", "subspace")
    figure = "train_feature_norm" if learns_nothing else "train_loss"
    assert len(losses(killed, figure)) == 6
    # Once for each of the two trainings: what was collected is no number of parameters.
    told = [m for m in caplog.messages if m.endswith(" parameters") or "memory of" in m]
    assert len(told) == 2 and all(("memory of" in m) == learns_nothing for m in told)


def test_what_a_method_collects_is_told_as_features_and_their_length():
    shapes = {"fine": (60, 8), "coarse": (60, 8), "image": (60,)}
    memory = {name: jax.numpy.zeros(shape) for name, shape in shapes.items()}
    assert memory_size(memory) == "memory of features: fine 60 × 8, coarse 60 × 8"


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_the_uninterrupted_one(tmp_path):
    whole, killed, times = tmp_path / "whole", tmp_path / "killed", []
    config = config_of(**{"train.steps": 60})
    trainer.train(config, whole, watch=lambda *_: times.append(time.monotonic()))
    seconds = times[-1] - times[0]  # from the first checkpoint to the last one
    flags = ["--config", SPEC, "--config.train.steps=60", "--stop_after=train"]
    kills, newest, rng = 0, 0, random.Random(0)
    while kills < 4 and not (killed / "detector").exists():
        command = command_line("train", *flags, "--workdir", killed)
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        before = newest
        while process.poll() is None and newest <= before:
            time.sleep(0.02)
            newest = max(steps_kept(killed), default=0)
        time.sleep(rng.uniform(0, seconds / 8))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2
    trainer.train(config, killed)
    ends_alike(killed, whole)
    assert [e["step"] for e in log_of(killed) if "train_loss" in e] == list(range(1, 61))


def test_a_second_training_in_the_same_workdir_is_refused(tmp_path):
    with (
        exclusive_lock(tmp_path / RUN_LOCK),
        pytest.raises(UserError, match="another process works there"),
    ):
        trainer.train(config_of(), tmp_path)
