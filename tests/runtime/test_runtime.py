"""Atomic files, the log across restarts, cached programs."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from recon_ad.runtime import files, writer
from recon_ad.runtime.writer import Writer, read_log


def test_a_failed_write_or_rename_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="directory"):
        files.write_text(tmp_path / "b", "text")
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b"]
    # A written file has ordinary permissions.
    (tmp_path / "theirs").write_text("")
    assert path.stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_a_directory_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "d"
    with files.fresh_directory(path) as scratch:
        (scratch / "old").write_text("1")
    with pytest.raises(RuntimeError), files.fresh_directory(path) as scratch:
        (scratch / "half").write_text("2")
        raise RuntimeError
    assert os.listdir(path) == ["old"]
    with files.fresh_directory(path) as scratch:
        (scratch / "new").write_text("3")
    assert os.listdir(path) == ["new"] and os.listdir(tmp_path) == ["d"]


@pytest.mark.parametrize("at_once", [True, False])
def test_what_killed_processes_left_of_a_directory_is_tidied(tmp_path, monkeypatch, at_once):
    if not at_once:  # as on a file system that cannot exchange two folders
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    path = tmp_path / "d"
    (tmp_path / ".d.killed").mkdir()
    (tmp_path / ".d.x.old").mkdir()
    (tmp_path / ".d.x.old" / "only").write_text("1")
    (tmp_path / ".d.a-file").write_text("of another program")
    with files.fresh_directory(path) as mine:
        # The old one stays in place until the new one is complete.
        assert os.listdir(path) == ["only"]
        with files.fresh_directory(path) as theirs:  # that of a running process is left alone
            (theirs / "first").write_text("2")
        assert os.listdir(path) == ["first"] and mine.is_dir()
        (mine / "second").write_text("3")
    assert os.listdir(path) == ["second"]
    assert sorted(os.listdir(tmp_path)) == [".d.a-file", "d"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux'")
def test_a_directory_is_there_at_every_moment(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    if not files._exchanged(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange two directories")
    path, stop, missing = tmp_path / "d", threading.Event(), []

    def look():
        while not stop.is_set():
            if not path.is_dir():
                missing.append(time.monotonic())

    with files.fresh_directory(path):
        pass
    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(300):
        with files.fresh_directory(path):
            pass
    stop.set()
    looker.join()
    assert not missing


def test_a_resumed_log_holds_each_step_once(tmp_path):
    first = Writer(tmp_path, start=0, total=9)
    for step in (1, 2, 3):
        first.scalars(step, {"train_loss": float(step)})
    first.close()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "train_')  # killed in the middle of a line
    second = Writer(tmp_path, start=2, total=9)
    second.scalars(3, {"train_loss": 30.0})
    second.close()
    expected = [{"step": s, "train_loss": loss} for s, loss in ((1, 1.0), (2, 2.0), (3, 30.0))]
    assert read_log(tmp_path / "log.jsonl") == expected


def test_a_log_file_says_how_far_training_is_and_how_long_it_takes(tmp_path, monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    caplog.set_level(logging.INFO, "recon_ad")
    log = Writer(tmp_path, start=0, total=800)
    for step in range(1, 801):
        now[0] += 30.0 if step == 1 else 61.0 if step == 400 else 0.1  # the first one compiles
        log.step_done()
        if step in (1, 351, 800):
            log.scalars(step, {"train_loss": 0.0151})
            log.scalars(step, {"heldout_loss": 0.02})
    log.close()
    assert caplog.messages == [
        "step 1 of 800: train_loss 0.0151",
        "step 1 of 800: heldout_loss 0.02",
        "step 351 of 800: train_loss 0.0151, 10 steps/s, 45 s left",
        "step 351 of 800: heldout_loss 0.02",
        "step 400 of 800: 3.96 steps/s, 2 min left",
        "step 800 of 800: train_loss 0.0151",
        "step 800 of 800: heldout_loss 0.02",
    ]


# Twice, as by two commands: with the user's cache, then with a given folder.
COMPILES = """
import os, sys, jax
from recon_ad.runtime.compilation import keep_compiled
for given in (None, sys.argv[1]):
    if given:
        jax.clear_caches()
        jax._src.compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", given)
    keep_compiled()
    jax.jit(lambda x: x @ x.T + 1)(jax.numpy.eye(7))
    print(jax.config.jax_compilation_cache_dir)
"""


HOMELESS = """
import pathlib, jax
from recon_ad.runtime.compilation import keep_compiled
def home(): raise RuntimeError("Could not determine home directory.")
pathlib.Path.home = home
keep_compiled()
print(jax.config.jax_compilation_cache_dir)
"""


def test_a_user_without_a_home_has_no_cache():
    left_out = ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "None\n"


def test_compiled_programs_are_kept_in_the_users_cache_or_a_folder_that_is_set(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    folders = [tmp_path / "recon_ad" / "jax", tmp_path / "own"]
    done = subprocess.run(
        [sys.executable, "-c", COMPILES, str(folders[1])],
        env=env | {"XDG_CACHE_HOME": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(folder) for folder in folders]
    assert all(any(folder.iterdir()) for folder in folders)
