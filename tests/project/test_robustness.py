"""The robustness benchmark counts verdicts correctly."""

import random

import pytest
from helpers.paths import ROOT

from benchmarks.robustness import trials
from benchmarks.robustness.damage import damaged, damaged_json, with_checksums
from benchmarks.robustness.images import whole_files
from benchmarks.robustness.kills import Command, size_of, undisturbed


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests'}:{ROOT}")
    monkeypatch.chdir(ROOT)


def test_trials_that_crash_hang_or_raise_are_counted_and_the_others_run(monkeypatch):
    monkeypatch.setattr(trials, "PATIENCE", 2.0)
    found = trials.run_trials("helpers.corpora:of_all_kinds", 8, seed=0)
    kinds = {"accepted": 3, "refused": 1, "crash": 1, "hang": 1, "traceback": 1, "wrong": 1}
    assert {kind: found[kind] for kind in kinds} == kinds and found["tried"] == 8
    assert "ValueError: odd" in found["examples"]["traceback"][0]
    assert found["examples"]["crash"] == ["trial 2: exit status -9"]
    with pytest.raises(RuntimeError, match="could not be prepared"):
        trials.run_trials("helpers.corpora:unprepared", 3, seed=0)


@pytest.mark.parametrize("corpus", ["images:images", "tables:tables", "tables:archives"])
def test_a_corpus_finds_no_fault(corpus):
    found = trials.run_trials(f"benchmarks.robustness.{corpus}", 12, seed=1)
    assert found["tried"] == 12 and not any(found[kind] for kind in trials.FAULTS), found


def test_damage_is_reproducible_and_changes_something():
    png = whole_files()["gray.png"]
    made = [damaged(png, random.Random(i)) for i in range(20)]
    assert made == [damaged(png, random.Random(i)) for i in range(20)]
    assert sum(content != png for content in made) >= 18
    assert with_checksums(png) == png
    content = {"a": [1, {"b": 2}], "c": "x"}
    changed = [damaged_json(content, random.Random(i)) for i in range(20)]
    assert sum(repr(other) != repr(content) for other in changed) >= 12
    assert content == {"a": [1, {"b": 2}], "c": "x"}


def test_a_command_that_fails_or_changes_nothing_is_not_disturbed(tmp_path):
    def command(module, *arguments):
        def names(folder):
            return sorted(file.name for file in folder.iterdir())

        return Command(module, lambda f: [a.format(f) for a in arguments], [], names, module=module)

    made = command("zipfile", "--create", "{}/a.zip", __file__)
    left, written = undisturbed(made, tmp_path, tmp_path / "made")
    assert left == ["a.zip"] and written == size_of(tmp_path / "made") > 0
    for words in (["zipfile", "--list", __file__], ["this"]):  # one fails, one writes nothing
        with pytest.raises(RuntimeError, match="has no output of its own"):
            undisturbed(command(*words), tmp_path, tmp_path / "none")

    # A command whose output cannot be read afterwards: what is disturbed would seem the same.
    damaging = made._replace(left=lambda f: None if list(f.iterdir()) else "whole")
    with pytest.raises(RuntimeError, match="has no output of its own"):
        undisturbed(damaging, tmp_path, tmp_path / "damaged")
