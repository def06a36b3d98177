"""A line's log of the images that it judges."""

import logging
import os
import signal
import threading
import time
from importlib.util import find_spec

import pytest
from helpers.commands import run_command
from helpers.lines import rows_of

from recon_ad.line import tally


def row(outcome, score=0.8123):
    return {"outcome": outcome, "score": score, "threshold": 0.81}


@pytest.fixture
def clock(caplog):
    caplog.set_level(logging.INFO, "recon_ad")
    return [0.0]


def test_rejects_are_named_and_all_are_counted_once_a_minute(clock, caplog):
    count = tally.Tally(lambda: clock[0])
    for i in range(124):
        clock[0] = i / 2
        outcome = "reject" if i in (3, 50, 121) else "good" if i != 7 else "broken"
        count.add(f"{i}.png", row(outcome))
        count.tell()
    assert caplog.messages == [
        "3.png: rejected, score 0.812, threshold 0.810",
        "50.png: rejected, score 0.812, threshold 0.810",
        "judged so far: 121 images, 2 rejected, 1 not judged",
        "121.png: rejected, score 0.812, threshold 0.810",
    ]
    assert (count.judged, str(count)) == (124, "124 images, 3 rejected, 1 not judged")


def test_an_idle_line_says_nothing(clock, caplog):
    count = tally.Tally(lambda: clock[0])
    for clock[0] in (61.0, 200.0):
        count.tell()
    count.add("a.png", row("good"))
    count.tell()
    for clock[0] in (300.0, 400.0):
        count.tell()
    assert caplog.messages == ["judged so far: 1 image, 0 rejected"]


def test_many_rejects_do_not_flood_the_log(clock, caplog):
    count = tally.Tally(lambda: clock[0])
    for i in range(1000):  # in a hundred seconds
        clock[0] = i / 10
        count.add(f"{i}.png", row("reject"))
        count.tell()
    assert len(caplog.messages) == 2 * (tally.NAMED + 1) + 1
    assert caplog.messages[tally.NAMED].startswith("many rejects")
    assert caplog.messages[tally.NAMED + 1] == "judged so far: 601 images, 601 rejected"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_command_says_what_it_watches_and_counts(finished_run, chess_folder, tmp_path, runtime):
    if find_spec(runtime) is None:
        pytest.skip("an extra")
    run, output = finished_run(), tmp_path / "line"
    images = len(list((chess_folder / "test").rglob("*.png")))

    def overlays():
        return [*output.rglob("*.png")]

    def stop():
        end = time.monotonic() + 60
        try:
            while len(overlays()) < images and time.monotonic() < end:
                time.sleep(0.1)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # lets the current image finish

    stopper = threading.Thread(target=stop)
    stopper.start()
    given = [f"--onnx={run / 'model.onnx'}", f"--runtime={runtime}"]
    done = run_command("inspect", *given, f"--watch={chess_folder / 'test'}", f"--output={output}")
    stopper.join()
    assert done.returncode == 0, done.stderr
    rejected = [r for r in rows_of(output) if r["outcome"] == "reject"]
    lines = done.stderr.splitlines()
    assert lines[0] == f"watching {chess_folder / 'test'}"
    said = f"stopped after {images} images, {len(rejected)} rejected; see {output}"
    assert lines[-1] == said
    assert sum(": rejected, score " in line for line in lines) == len(rejected)
