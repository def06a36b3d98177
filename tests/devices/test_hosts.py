"""Several devices and hosts, stopping and resuming, launchers.

Hosts are processes on this machine whose devices (CPUs) communicate by Gloo. They are started
by `launch/local.sh`, as by a user.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.commands import run_command
from helpers.paths import LOCAL_LAUNCHER, ROOT
from helpers.small_runs import losses, small_config, without_timings

from recon_ad.errors import UserError
from recon_ad.evaluation import run as evaluation
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime import stopping
from recon_ad.runtime.checkpoints import Checkpoints
from recon_ad.training import run as trainer
from recon_ad.training.same_run import same_run

# ---- Stopping and resuming --------------------------------------------------------------------


def ask_after(step, monkeypatch):
    """Send the training process a stop request when it starts that step, counted from 0."""
    put_batch, calls = meshes.put_batch, iter(range(10**6))

    def asking(mesh, batch):
        if "index" in batch and next(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return put_batch(mesh, batch)

    monkeypatch.setattr(meshes, "put_batch", asking)


def same_files(workdir, other):
    for name in ("detector/variables.safetensors", "log.jsonl"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes()


def described(workdir):
    return json.loads((workdir / "detector" / "detector.json").read_text())


@pytest.fixture(scope="module")
def not_stopped(tmp_path_factory):
    """Return a config, and the workdir of its uninterrupted run."""
    config = small_config(
        "configs/folder.py:method=cae,smoke",
        **{"train.steps": 10, "train.log_every": 4, "train.eval_every": 5, "train.select": "best"},
    )
    workdir = tmp_path_factory.mktemp("not_stopped")
    trainer.train(config, workdir)
    return config, workdir


# The next batch tells all hosts, which notice it one step later, or at once if they log. So the
# first stops at an evaluation, the second between two log lines, and the third at the end.
@pytest.mark.parametrize(("step", "stops"), [(3, 5), (4, 7), (9, 10)])
def test_a_run_asked_to_stop_goes_on_as_if_nothing_had_been(
    not_stopped, tmp_path, monkeypatch, step, stops
):
    config, whole = not_stopped
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        ask_after(step, patched)
        with pytest.raises(SystemExit) as ended:
            trainer.train(config, tmp_path)
    assert ended.value.code == stopping.REQUEUE == 75
    assert not (tmp_path / "detector").exists()
    assert signal.getsignal(signal.SIGTERM) == before
    assert max(int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")) == stops

    trainer.train(config, tmp_path)
    ours, theirs = (described(workdir) for workdir in (tmp_path, whole))
    assert without_timings(ours) == without_timings(theirs)
    same_files(tmp_path, whole)


def test_a_checkpoint_that_was_not_evaluated_is_not_the_best(tmp_path):
    state = jax.device_put({"w": np.zeros(3)})
    checkpoints = Checkpoints(tmp_path)
    for step, loss in ((1, 0.5), (2, math.inf), (3, math.inf), (4, math.inf)):
        checkpoints.save(step, state, {"window": []}, loss=loss)
    assert (checkpoints.best(), checkpoints.latest(state)[0]) == (1, 4)
    checkpoints.close()


def test_what_is_asked_in_a_block_or_between_two_is_heard_in_the_next():
    def asked():
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        meshes.on_first_host(asked)
    assert ended.value.code == stopping.REQUEUE
    with stopping.deferred() as outer:
        with stopping.deferred() as inner:
            assert inner is outer
        asked()
        with stopping.deferred() as last:
            assert last.asked
        with pytest.raises(SystemExit):
            meshes.on_first_host(lambda: pytest.fail("it was to end before"))


def test_another_run_in_the_workdir_is_found_by_all_hosts(not_stopped, monkeypatch):
    config, workdir = not_stopped
    data = json.loads((workdir / "data.json").read_text())
    same_run(workdir, config, data)
    monkeypatch.setattr(meshes, "on_first_host", lambda _: pytest.fail("waits for an ended host"))
    with pytest.raises(UserError, match="another config"):
        same_run(workdir, small_config(), data)


# ---- Hosts -------------------------------------------------------------------------------------

STEPS = 50
EVERY = 5  # steps between checkpoints
# Wide enough to learn in so few steps. There are many tiles, so that judging the images takes
# longer than noticing a signal.
FIELDS = {
    "train.steps": STEPS, "train.eval_every": EVERY, "method.width": 0.5, "inference.stride": 8,
}  # fmt: skip


def flags(workdir, *more, **fields):
    yield from ("--config", "configs/demo.py:smoke", "--workdir", str(workdir), *more)
    yield from (f"--config.{name}={value}" for name, value in (fields or FIELDS).items())


def start(workdir, *more, hosts=2, devices=1, **fields):
    """Start a run with the launcher."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.Popen(
        ["bash", str(LOCAL_LAUNCHER), str(hosts), *flags(workdir, *more, **fields)],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process, *, status=0):
    """Wait for the end with this exit status, and return the output."""
    _, printed = process.communicate(timeout=600)
    assert process.returncode == status, printed
    return printed


def wait_for_step(workdir, step, process):
    path = workdir / "log.jsonl"
    while not path.is_file() or f'"step": {step},' not in path.read_text():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def processes_of(launcher):
    """Return the pids of a launcher's processes, the first host's first."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    named = {}
    for pid in children:
        for line in Path(f"/proc/{pid}/environ").read_text().split("\0"):
            if line.startswith("JAX_PROCESS_ID="):
                named[int(line.partition("=")[2])] = int(pid)
    return [named[i] for i in sorted(named)]


def losses_agree(workdir, other, *, heldout=True):
    # Sums over a batch are added in another order if the batch is divided differently, which fifty
    # steps amplify to 2.4e-5 as measured. Another batch differs by a hundred times the tolerance.
    np.testing.assert_allclose(losses(workdir), losses(other), rtol=1e-4)
    ours, theirs = (losses(w, "heldout_loss") for w in (workdir, other))
    assert bool(len(ours)) is heldout
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def figures_agree(workdir, other):
    names = [name for name in evaluation.FIGURES if "second" not in name]
    both = (json.loads((w / "metrics.json").read_text()) for w in (workdir, other))
    ours, theirs = ({n: m[n] for n in names if m[n] is not None} for m in both)
    assert ours == pytest.approx(theirs, abs=1e-3) and len(ours) > 8


def run_alone(workdir, *more, **fields):
    done = run_command("train", *flags(workdir, *more, **fields), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return a run by this process alone, with one device."""
    return run_alone(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the same run by two hosts without interruptions."""
    workdir = tmp_path_factory.mktemp("whole")
    printed = finish(start(workdir))
    assert printed.count(f"step {STEPS} of {STEPS}: heldout_loss") == 1
    return workdir


@pytest.mark.slow
def test_hosts_learn_the_same_as_one_and_only_one_writes_each_file(whole, alone):
    heldout = losses(alone, "heldout_loss")
    assert len(losses(alone)) == STEPS and len(heldout) == STEPS // EVERY
    assert heldout[-1] < 0.99 * heldout[0]  # it learns
    losses_agree(whole, alone)
    figures_agree(whole, alone)
    assert len(list(whole.glob("events.out.tfevents.*"))) == 1
    assert not [p for p in whole.rglob(".*") if p.name.startswith(".")]
    steps = [json.loads(x)["step"] for x in (whole / "log.jsonl").read_text().splitlines()]
    assert steps == sorted([*range(1, STEPS + 1), *range(EVERY, STEPS + 1, EVERY)])
    # The second start reports on both hosts that the run is complete.
    assert finish(start(whole)).count("is complete") == 2


@pytest.mark.slow
def test_a_run_goes_on_by_another_number_of_hosts_and_devices(alone, tmp_path):
    process = start(tmp_path, devices=2)
    wait_for_step(tmp_path, EVERY, process)
    process.send_signal(signal.SIGTERM)
    finish(process, status=stopping.REQUEUE)
    assert not (tmp_path / "detector").exists()
    assert "resumed at step" in finish(start(tmp_path, hosts=4))
    losses_agree(tmp_path, alone)
    figures_agree(tmp_path, alone)


@pytest.mark.slow
def test_hosts_that_die_or_are_asked_to_stop_end_all_and_a_restart_goes_on(tmp_path, whole):
    resumed, step = 0, 2 * EVERY + 2
    for how, dies, says in (
        (signal.SIGKILL, 1, "launch: process 1 of 2 was killed by signal 9 (KILL)"),
        (signal.SIGKILL, 0, "launch: process 0 of 2 was killed by signal 9 (KILL)"),
        # As for a machine that disappears: only its missing heartbeat is noticed.
        (signal.SIGSTOP, 1, "unhealthy (stopped sending heartbeats):\n1\n"),
    ):
        process = start(tmp_path)
        wait_for_step(tmp_path, step, process)
        pids = processes_of(process)
        began = time.monotonic()
        os.kill(pids[dies], how)
        other = Path(f"/proc/{pids[1 - dies]}/stat")
        while other.exists() and other.read_text().rpartition(")")[2].split()[0] != "Z":
            assert time.monotonic() - began < 120
            time.sleep(0.1)
        if how == signal.SIGSTOP:
            os.kill(pids[dies], signal.SIGKILL)
        _, printed = process.communicate(timeout=600)
        assert process.returncode not in (0, stopping.REQUEUE) and says in printed
        assert (f"resumed at step {resumed}" in printed) == (resumed > 0)
        saved = [path.name for path in (tmp_path / "checkpoints").iterdir()]
        resumed = max(int(name) for name in saved if name.isdigit())
        step = 3 + json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"]
    for asked in (0, 1):
        shutil.rmtree(tmp_path / "detector", ignore_errors=True)  # so that both build it again
        process = start(tmp_path)
        for line in process.stderr:
            if line.startswith("detector: "):
                break
        # Between two of the blocks in which a signal is noticed, and before the images are judged.
        os.kill(processes_of(process)[asked], signal.SIGTERM)
        printed = finish(process, status=stopping.REQUEUE)
        assert printed.count("stopped as requested; the same command resumes") == 2
        assert (tmp_path / "detector").is_dir() and not (tmp_path / "metrics.json").exists()
    finish(start(tmp_path))
    same_files(tmp_path, whole)
    ours, theirs = (json.loads((w / "metrics.json").read_text()) for w in (tmp_path, whole))
    assert without_timings(ours) == without_timings(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["aae", "ssim_l1", "knn"])
def test_methods_of_every_kind_train_by_two_hosts(tmp_path, method):
    one, two = tmp_path / "1", tmp_path / "2"
    crossed = method == "knn"  # holds out no image from training
    rule = {"calibration.rule": "cross"} if crossed else {}
    fields = {"train.steps": 4, "train.eval_every": 2, "method.name": method} | rule
    run_alone(one, "--stop_after=train", **fields)
    finish(start(two, "--stop_after=train", **fields))
    # The distances of knn are small differences of large squares.
    losses_agree(two, one, heldout=not crossed)
    ours, theirs = (described(workdir)["thresholds"] for workdir in (two, one))
    assert ours == pytest.approx(theirs, rel=1e-3)
