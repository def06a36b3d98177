"""Log lines while a command processes many images."""

import logging
import shutil

import numpy as np
import pytest
from helpers.small_runs import small_config

from recon_ad.data import synthetic_source
from recon_ad.data.holdout import hold_out_all
from recon_ad.detector import thresholds
from recon_ad.evaluation import run as evaluation
from recon_ad.metrics import image_intervals
from recon_ad.runtime import progress
from recon_ad.training import run as trainer


@pytest.mark.parametrize(
    ("done_at", "messages"),
    [
        ([0.1, 9.9, 10.1, 19.9, 25], ["3 of 5, 3.37 s each, 7 s left", "all 5"]),
        ([0.1, 11, 12, 13, 14], ["2 of 5, 5.5 s each, 17 s left", "all 5"]),
        ([1, 2, 3, 4, 9], []),
    ],
)
def test_a_line_every_some_seconds_and_none_where_it_is_soon_over(
    done_at, messages, monkeypatch, caplog
):
    now = [0.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    caplog.set_level(logging.INFO, "recon_ad")
    seen = []
    for item, seconds in zip(
        progress.progress(iter("abcde"), "evaluation", total=5), [*done_at, 99], strict=False
    ):
        seen.append(item)
        now[0] = float(seconds)
    assert "".join(seen) == "abcde"
    assert caplog.messages == [f"evaluation: {message}" for message in messages]


@pytest.mark.parametrize(
    ("done", "left", "seconds", "words"),
    [
        (350, 450, 28.5, "12.3 steps/s, 37 s left"), (1, 30, 2.5, "2.5 s/step, 75 s left"),
        (4000, 10, 1.0, "4000 steps/s, 1 s left"), (10, 4000, 10.0, "1 steps/s, 67 min left"),
        (10, 4000, 99.0, "9.9 s/step, 11.0 h left"),
        (0, 5, 1.0, ""), (5, 0, 1.0, ""), (5, 5, 0.0, ""),
    ],
)  # fmt: skip
def test_a_pace_is_a_rate_and_the_time_that_is_left(done, left, seconds, words):
    assert progress.pace(done, left, seconds, what="step") == words


def test_training_calibration_and_evaluation_say_how_far_they_are(
    finished_run, monkeypatch, caplog, tmp_path
):
    monkeypatch.setattr(progress, "EVERY", 0.0)  # a line for each image
    caplog.set_level(logging.INFO, "recon_ad")
    run = shutil.copytree(finished_run(), tmp_path / "run")
    shutil.rmtree(run / "detector")  # as after the last step, so that it is built again
    detector = trainer.train(small_config("configs/folder.py:method=cae,smoke"), run)
    said = {message.partition(", ")[0] for message in caplog.messages}
    assert {"keeping images: 3 of 4", "calibration: 3 of 4"} <= said
    assert f"detector: {run / 'detector'}" in caplog.messages
    source = synthetic_source("chess", side=128)
    thresholds.calibrate(detector, hold_out_all(source.train[:2], how=""), fpr=0.1)
    assert caplog.messages.count("calibration: all 2") == 1
    evaluation.evaluate(detector, source, name="chess")
    said = set(caplog.messages)
    assert {f"report, training images: all {len(source.train)}", "report, pictures: all 1"} <= said
    assert any(message.startswith("evaluation: 7 of 8, ") for message in said)
    scores = np.arange(40.0)  # of more images than the run has, because fewer have no interval
    image_intervals(scores, scores % 3 == 0, seed=0, resamples=20)
    assert any(m.startswith("intervals, resamples: 19 of 20, ") for m in caplog.messages)
