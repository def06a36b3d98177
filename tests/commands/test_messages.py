"""Behaviour that all commands share: missing flags, their own process, full disks."""

import errno
import logging
import re
import sqlite3

import numpy as np
import pytest
from helpers.commands import refusal, run_process

from recon_ad import cli, usage
from recon_ad.data import Record
from recon_ad.data.pipeline import Images, check_fits
from recon_ad.errors import UserError
from recon_ad.runtime.waiting import disk_is_full

OTHERS = sorted({*usage.COMMANDS} - {"train", "predict", "inspect", "weights"})


@pytest.mark.parametrize(
    ("command", "given", "says"),
    [
        ("classify", [], "--detector, --images and --labels are missing"),
        ("predict", ["--input", "a", "--onnx", "b"], "--output is missing: see python -m recon_ad"),
    ],
)
def test_flags_that_are_missing_are_named(command, given, says):
    sentence = refusal(command, *given)
    assert says in sentence and "None" not in sentence


@pytest.mark.parametrize(
    "command", ["train", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_each_command_is_a_process_that_refuses_a_mistake_in_one_sentence(command):
    done = run_process(command)
    assert (done.returncode, done.stdout) == (2, "")
    (sentence,) = done.stderr.splitlines()
    wanted = r"--.* missing: see python -m recon_ad\.\w+ --help\."
    assert re.fullmatch(rf"error: ({wanted}|no (folder|run) was given: .*)", sentence)


def test_a_file_to_watch_is_no_folder(tmp_path):
    (tmp_path / "a.png").touch()
    given = ("--onnx", "m.onnx", "--watch", tmp_path / "a.png", "--output", tmp_path / "o")
    assert "a.png is a file: give the folder in which images arrive" in refusal("inspect", *given)


def test_patches_far_larger_than_all_images_are_refused():
    small, large = (
        Record(f"{w}.png", lambda w=w: np.zeros((20, w, 1), np.uint8)) for w in (30, 40)
    )
    check_fits([small, large], size=None, patch_size=160)
    wrong = r"config\.data\.patch_size is 161, and the largest good image, 40\.png, has 40 px"
    with pytest.raises(UserError, match=wrong):
        check_fits([small, large, small], size=None, patch_size=161)
    check_fits([small], size=(50, 20), patch_size=200)
    with pytest.raises(UserError, match="has 50 px on its longer side: choose"):
        Images([small], size=(50, 20), patch_size=201, memory_mib=1, disk_mib=1)


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x", "a.png"), True),
        (OSError(errno.EACCES, "x", "a.png"), False),
        (ValueError('RESOURCE_EXHAUSTED: Error writing "a": No space left on device'), True),
        (chained(RuntimeError("the report"), OSError(errno.ENOSPC, "x")), True),
        (sqlite3.OperationalError("database or disk is full"), True),
        (sqlite3.OperationalError("database is locked"), False),
        (ValueError("RESOURCE_EXHAUSTED: out of memory"), False),
    ],
)
def test_a_full_disk_is_known_by_whatever_a_library_makes_of_it(error, full):
    assert disk_is_full(error) is full
    record = logging.LogRecord("a", logging.ERROR, "", 1, "", None, (type(error), error, None))
    assert cli._not_of_a_full_disk(record) is not full
