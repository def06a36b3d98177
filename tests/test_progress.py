"""What the log says while a command goes through many images."""

import logging
from types import SimpleNamespace

import pytest
from small_runs import small_config

from recon_ad import calibrate, evaluate
from recon_ad import train as trainer
from recon_ad.data import synthetic_source
from recon_ad.runtime import progress


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


@pytest.fixture
def at_once(monkeypatch, caplog):
    """A line for each image."""
    monkeypatch.setattr(progress, "EVERY", 0.0)
    caplog.set_level(logging.INFO, "recon_ad")
    return caplog


def test_calibration_and_evaluation_say_how_far_they_are(at_once, tmp_path):
    detector = trainer.train(small_config(), tmp_path)
    assert "keeping images: 3 of 4" in at_once.messages
    assert "calibration: 3 of 4" in at_once.messages
    assert f"detector: {tmp_path / 'detector'}" in at_once.messages
    source = synthetic_source("chess")
    evaluate.look(detector, source)
    assert "evaluation: 7 of 8" in at_once.messages
    calibrate.calibrate(detector, source.train[:2], fpr=0.1, how="")
    assert at_once.messages.count("calibration: all 2") == 1
    evaluate.evaluate(detector, source, name="chess")
    assert f"report, training images: all {len(source.train)}" in at_once.messages
    assert "report, pictures: all 1" in at_once.messages
    assert "intervals, resamples: 19 of 20" in at_once.messages
