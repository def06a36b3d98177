"""Lines of the log while a command goes through many images."""

import logging
import shutil
from types import SimpleNamespace

from helpers.small_runs import small_config

from recon_ad.data import synthetic_source
from recon_ad.detector import thresholds as calibrate
from recon_ad.evaluation import run as evaluate
from recon_ad.runtime import progress
from recon_ad.training import run as trainer


def test_a_line_every_some_seconds_and_none_where_it_is_soon_over(monkeypatch, caplog):
    seconds = iter([0, 0.1, 9.9, 10, 19.9, 25])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with caplog.at_level(logging.INFO, "recon_ad"):
        assert list(progress.told("abcde", "evaluation")) == list("abcde")
        assert caplog.messages == ["evaluation: 2 of 5", "evaluation: 4 of 5", "evaluation: all 5"]
        caplog.clear()
        seconds = iter([0, 0, 9])
        assert list(progress.told(iter("ab"), "evaluation", total=2)) == list("ab")
        assert not caplog.messages


def test_training_calibration_and_evaluation_say_how_far_they_are(
    finished_run, monkeypatch, caplog, tmp_path
):
    monkeypatch.setattr(progress, "EVERY", 0.0)  # a line for each image
    caplog.set_level(logging.INFO, "recon_ad")
    run = shutil.copytree(finished_run(), tmp_path / "run")
    shutil.rmtree(run / "detector")  # as after the last step, so that it is made again
    detector = trainer.train(small_config("configs/folder.py:method=cae,smoke"), run)
    assert {"keeping images: 3 of 4", "calibration: 3 of 4"} <= set(caplog.messages)
    assert f"detector: {run / 'detector'}" in caplog.messages
    source = synthetic_source("chess", side=128)
    calibrate.calibrate(detector, source.train[:2], fpr=0.1, how="")
    assert caplog.messages.count("calibration: all 2") == 1
    evaluate.evaluate(detector, source, name="chess")
    assert {
        "evaluation: 7 of 8", f"report, training images: all {len(source.train)}",
        "report, pictures: all 1", "intervals, resamples: 19 of 20",
    } <= set(caplog.messages)  # fmt: skip
