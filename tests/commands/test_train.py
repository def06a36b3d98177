"""`python -m recon_ad.train`: mistakes that it rejects, and a run that resumes."""

import json

import pytest
from helpers.commands import refusal, run_command

DEMO = ["--config", "configs/demo.py"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--config", "configs/folder.py:method=cae"], "config.data.path is empty"),
        (["--config", "configs/folder.py:path=/no/such/folder"], "/no/such/folder"),
        (["--config", "configs/demo.py:method=gan"], "gan"),
        (["--config", "configs/folder.py:method=knnn"], "did you mean knn?"),
        (["--config", "configs/demo.py:smoke", "--workdir", "README.md"], "README.md"),
        ([*DEMO, "extra"], "'extra' is not a flag"),
        ([*DEMO, "--config.train.steps=abc"], "abc"),
        ([*DEMO, "--config.train.step=3"], "no field step. Did you mean steps"),
        ([*DEMO, "--config.tran.steps=3"], "no field tran. Did you mean train"),
        ([*DEMO, "--config.method.noise=1"], "config.method.noise is config.dae.noise"),
        ([*DEMO, "--config.nofield=3"], "no field nofield. See configs/default.py"),
        (["--config.train.steps=3", *DEMO], "--config.train.steps changes a field of the config"),
        (["--config.train.steps=3"], "give --config FILE before it."),
        ([], "--config is missing: see python -m recon_ad.train --help"),
    ],
)
def test_mistakes_end_in_one_sentence(tmp_path, given, says):
    sentence = refusal("train", "--workdir", tmp_path / "w", *given)
    assert says in sentence and "argv" not in sentence and "None" not in sentence


@pytest.mark.slow
def test_the_command_profiles_evaluates_what_is_trained_and_says_that_it_is_complete(tmp_path):
    given = ["--config=configs/folder.py:smoke", f"--workdir={tmp_path}", "--config.train.steps=16"]
    profiled = (*given, "--stop_after=train", "--profile")
    for arguments, evaluated in ((profiled, False), (given, True)):
        done = run_command("train", *arguments)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "metrics.json").exists() == evaluated
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    third = run_command("train", *given)
    assert third.returncode == 0 and "the run in" in third.stderr and "complete" in third.stderr
    assert "test images are others" not in third.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    metrics["protocol"]["test_images_sha256"] = "of a set with one image more"
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    assert "the test images differ" in run_command("train", *given).stderr
