"""The model card of a detector: what it says, and that no name can break it."""

import json

import numpy as np
from helpers.detectors import make_detector

from recon_ad.detector.certificate import CARD
from recon_ad.detector.directory import load
from recon_ad.detector.model_card import NOT_EVALUATED


def row(card, name):
    """Return the cell beside a name."""
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
    return line.split(" | ", 1)[1].removesuffix(" |")


def test_evaluation_writes_the_figures_into_the_card(finished_run):
    run = finished_run("cae")
    card = (run / "detector" / CARD).read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    detector = load(run / "detector")
    assert row(card, "method") == "cae"
    assert row(card, "test images") == str(metrics["protocol"]["test_images"])
    assert row(card, "image AUROC").startswith(f"{metrics['image_auroc']:.3f}")
    assert np.isclose(float(row(card, "image threshold")), detector.thresholds.image, rtol=1e-5)
    assert metrics["decisions"]["sentence"] in card
    assert detector.record["calibration"]["message"] in card
    assert NOT_EVALUATED not in card


def test_a_detector_that_was_not_evaluated_has_a_card_too(tmp_path):
    make_detector().save(tmp_path / "detector")
    card = (tmp_path / "detector" / CARD).read_text()
    assert NOT_EVALUATED in card and "Not calibrated." in card


def test_names_cannot_break_the_card(tmp_path):
    detector = make_detector(**{"data.path": "/parts/a|b\n# forged\x1b[31m"})
    card = detector.model_card()
    assert row(card, "folder") == r"a\|b\\n# forged\\x1b[31m"
    assert "\x1b" not in card and "\n# forged" not in card
