"""Sweeps: lists and their product, the training's arguments, and runs that end, fail or stop."""

import json
import shutil
import signal
import sys
import threading
import time

import pytest
from absl import flags
from helpers.commands import refusal, run_command, run_process
from helpers.made_runs import make_run
from helpers.small_runs import small_config
from ml_collections import config_flags

from recon_ad import sweep as sweeping
from recon_ad.config import config_flag
from recon_ad.errors import UserError
from recon_ad.runtime.stopping import Stop
from recon_ad.sweep import arguments, combinations, config_of, folder_name


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,1,2", ["0", "1", "2"]), ("cae", ["cae"]), ("1e-3, 5e-4", ["1e-3", "5e-4"]),
        ("(128,128),(0, 0)", ["(128,128)", "(0, 0)"]), ("('a',[1,2]),b", ["('a',[1,2])", "b"]),
    ],
)  # fmt: skip
def test_commas_separate_values_outside_of_brackets(text, values):
    assert combinations([f"x={text}"]) == [{"x": value} for value in values]


@pytest.mark.parametrize(
    ("says", "lists"),
    [
        ("a value is empty", ["seed=0,,1"]), ("a value is empty", ["seed="]),
        ("brackets do not match", ["size=(1,2"]), ("brackets do not match", ["size=1,2)"]),
        ("brackets do not match", ["size=(1,2],3"]), ("is not a list", ["seed"]),
        ("is not a list", ["=1"]), ("seed= was given twice", ["seed=0", "seed=1"]),
    ],
)  # fmt: skip
def test_wrong_lists_are_refused(says, lists):
    with pytest.raises(UserError, match=says):
        combinations(lists)


def test_combinations_are_the_product_and_folders_are_named_by_what_differs():
    product = [dict(method=m, seed=s) for m in ("cae", "vae") for s in "01"]  # the last is fastest
    assert combinations(["method=cae,vae", "seed=0,1"]) == product
    assert folder_name(product[0]) == "method=cae,seed=0"
    swept = {"config.optim.learning_rate": "1e-3", "config.data.resize": "(128, 64)"}
    assert folder_name(swept) == "optim.learning_rate=1e-3,data.resize=128_64"
    assert "/" not in folder_name({"path": "../a/b"})


def overrides_of(*given):
    """Return the overrides as the command reads them."""
    values = flags.FlagValues()
    argv = ["sweep", "--config=configs/demo.py:smoke", *given]
    config_flag(flag_values=values, argv=argv)
    values(argv)
    return config_flags.get_override_values(values["config"])


def test_training_is_given_what_is_shared_and_what_is_swept():
    shared = {
        "train.steps": 2, "optim.learning_rate": 1e-5, "data.resize": (32, 64),
        "data.augment": ("flip_lr", "flip_ud"), "holdout.group": "a, (b) 'c'=d",
        "vae.kl_weight": 0.5, "calibration.thresholds.pixel": 1.0,
    }  # fmt: skip
    overrides = overrides_of(*(f"--config.{name}={value}" for name, value in shared.items()))
    swept = {"seed": "3", "config.data.resize": "(16,16)", "method": "vae"}
    config = config_of(arguments("configs/demo.py:smoke,seed=7", overrides, swept))
    wanted = small_config("configs/demo.py:smoke,seed=3,method=vae", **shared)
    wanted.data.resize = (16, 16)
    assert config.to_json() == wanted.to_json()
    assert arguments("configs/demo.py", {}, {"seed": "1"}) == ["--config=configs/demo.py:seed=1"]
    assert arguments("c.py", {}, {"config.a.b": "1"}) == ["--config=c.py", "--config.a.b=1"]


@pytest.mark.parametrize(
    ("swept", "says"),
    [
        ({"sed": "1"}, "the config has no argument 'sed'"),
        ({"seed": "one"}, "seed takes a value of type int"),
        ({"method": "caee"}, "unknown method 'caee'"),
        ({"config.train.stepz": "1"}, "the config has no field stepz"),
        ({"config.train.steps": "x"}, "train.steps"),
        ({"config.train.steps": "-1"}, "config.train.steps is -1"),
    ],
)
def test_what_training_would_refuse_is_refused_before_it(swept, says):
    with pytest.raises(UserError, match=says):
        config_of(arguments("configs/demo.py:smoke", {}, swept))


def script(text):
    return [sys.executable, "-c", text]


@pytest.fixture
def three(tmp_path, monkeypatch):
    """Prepare a sweep of a finished run, one that fails, and one that can run."""
    made = make_run(tmp_path / "made", seed=2)
    runs = {tmp_path / "sweep" / f"seed={seed}": [str(seed)] for seed in range(3)}
    make_run(tmp_path / "sweep" / "seed=0", seed=0)
    begun = []

    def command(folder, given):
        begun.append(folder.name)
        if given == ["1"]:
            return script("import sys; sys.exit(7)")
        return script(f"import shutil; shutil.copytree({str(made)!r}, {str(folder)!r})")

    monkeypatch.setattr(sweeping, "_command", command)
    # The signals belong to the test runner.
    monkeypatch.setattr(sweeping, "on_signals", Stop)
    return runs, tmp_path / "sweep", begun


def test_one_that_fails_is_named_and_the_rest_goes_on(three, capfd, caplog):
    runs, workdir, begun = three
    caplog.set_level("INFO", "recon_ad")
    # Without a finished run there is no table.
    assert sweeping.sweep({workdir / "seed=1": ["1"]}, workdir) == 1
    assert not (workdir / "compare.md").exists()
    begun.clear()
    assert sweeping.sweep(runs, workdir) == 1
    assert begun == ["seed=1", "seed=2"]  # seed 0 was finished
    for told in ("failed: seed=1, with exit status 7; see its error", "1 of 3, seed=0: finished"):
        assert told in caplog.text
    table = (workdir / "compare.md").read_text()
    assert "2, seeds 0, 2" in table and capfd.readouterr().out == table
    assert (workdir / "compare.html").is_file()
    # The second time only the failed run starts, and it succeeds.
    begun.clear()
    shutil.copytree(workdir / "seed=0", workdir / "seed=1")
    assert sweeping.sweep(runs, workdir) == 0
    assert begun == []


@pytest.mark.parametrize("handler", ["", "signal.signal(15, lambda *_: sys.exit(75)); "])
def test_a_run_is_stopped_with_the_sweep_and_no_other_is_begun(three, monkeypatch, handler):
    (runs, workdir, begun), stop = three, Stop()
    text = (
        f"import pathlib, signal, sys, time; {handler}pathlib.Path('here').touch(); time.sleep(60)"
    )

    def ask_when_there():
        while not (workdir / "here").exists():
            time.sleep(0.02)
        stop.ask()

    monkeypatch.chdir(workdir)
    monkeypatch.setattr(sweeping, "on_signals", lambda: stop)
    monkeypatch.setattr(sweeping, "_command", lambda f, _: begun.append(f.name) or script(text))
    threading.Thread(target=ask_when_there, daemon=True).start()
    # The run's own status is kept if it has one, so that the job is requeued.
    assert sweeping.sweep(runs, workdir) == (75 if handler else 128 + signal.SIGTERM)
    assert begun == ["seed=1"]
    assert not (workdir / "compare.md").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--sweep=seed=0,0"], "2 combinations would share 1 folders"),
        (["--sweep=seed=0,1", "--index=2"], "--index 2: the sweep has 2 combinations; give"),
        (["--sweep=seed=0,1", "--sweep=method=cae,caee"], "unknown method 'caee'"),
    ],
)
def test_mistakes_end_in_one_sentence_before_anything_is_run(given, says, tmp_path):
    workdir = tmp_path / "runs"
    common = ("--config=configs/demo.py:smoke", f"--workdir={workdir}")
    assert says in refusal("sweep", *common, *given)
    assert not workdir.exists()


@pytest.mark.slow
def test_a_sweep_trains_compares_and_goes_on(tmp_path):
    given = [
        f"--workdir={tmp_path}", "--config=configs/folder.py:smoke", "--sweep=seed=0,1",
        "--sweep=config.optim.learning_rate=1e-3", "--config.train.steps=2",
    ]  # fmt: skip
    first, last = (f"seed={seed},optim.learning_rate=1e-3" for seed in (0, 1))
    # The last run alone, as a job of an array, is trained in the same process.
    done = run_process("sweep", *given, "--index=1")
    assert done.returncode == 0, done.stderr
    assert [folder.name for folder in tmp_path.iterdir()] == [last]
    # A run whose folder is unusable.
    (tmp_path / first).mkdir()
    (tmp_path / first / "checkpoints").write_text("in the way")
    done = run_command("sweep", *given)
    assert done.returncode == 1 and f"failed: {first}, with exit status" in done.stderr
    assert f"{first} is unfinished and left out" in done.stdout and "1, seed 1" in done.stdout
    shutil.rmtree(tmp_path / first)
    done = run_command("sweep", *given)
    assert done.returncode == 0 and f"2 of 2, {last}: finished" in done.stderr, done.stderr
    assert "2, seeds 0, 1" in done.stdout
    for seed, name in enumerate((first, last)):
        config = json.loads((tmp_path / name / "config.json").read_text())
        found = config["seed"], config["optim"]["learning_rate"], config["train"]["steps"]
        assert found == (seed, 1e-3, 2)
    # Other settings do not count as the same runs.
    assert "train.steps: 2 → 4" in refusal("sweep", *given[:-1], "--config.train.steps=4")
