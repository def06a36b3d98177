"""A file's result: marks only if the image is rejected, and the verdict itself."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.layouts import saved
from PIL import Image

from recon_ad.data.truth import Regions
from recon_ad.detector import image_files
from recon_ad.detector.image_files import GOOD, REJECT, WHITE, judge_and_draw
from recon_ad.detector.inference import Inference, Prediction, Thresholds
from recon_ad.report.pictures import MASK_COLOUR


class Spotted(Inference):
    """A detector that marks a square in every image, with a given score and classifier."""

    plan = SimpleNamespace(channels=1, input_range=(0.0, 0.0))
    thresholds = Thresholds(0.5, 0.1)
    calibrated_on_regions = False
    run_core = run_tail = None  # it has no graphs

    def __init__(self, score, probability, normalised=None):
        self.said = np.float32(score), probability
        self.normalised_score = None if normalised is None else np.float64(normalised)

    def predict(self, image, *, roi=None, reconstruct=True):
        mask = np.zeros(image.shape[:2], bool)
        mask[20:40, 20:40] = True
        score, probability = self.said
        label = score > 0.5 and probability != 0.25
        return Prediction(
            score, np.bool_(label), mask * score, mask, None, probability, self.normalised_score
        )


@pytest.mark.parametrize(
    ("said", "outcome", "words"),
    [
        ((0.25, None), GOOD, ["good", "score 0.250", "threshold 0.500"]),
        ((0.75, None), REJECT, ["reject", "score 0.750", "threshold 0.500"]),
        ((0.50001, None), REJECT, ["reject", "score 0.50001", "threshold 0.50000"]),
        ((0.75, 0.25), GOOD, ["good", "score 0.750", "threshold 0.500",
                              "defect probability 0.250"]),
        ((0.25, None, -1.5), GOOD, ["good", "score 0.250", "threshold 0.500",
                                    "normalised score -1.50"]),
        ((0.75, 0.75, 0.5001), REJECT, ["reject", "score 0.750", "threshold 0.500",
                                        "normalised score 0.5001", "defect probability 0.750"]),
    ],
)  # fmt: skip
def test_only_what_is_rejected_has_marks_and_the_overlay_says_why(
    said, outcome, words, tmp_path, monkeypatch
):
    shown, draw = [], image_files.with_caption

    def with_caption(pixels, words, **options):
        shown.extend(words)
        return draw(pixels, words, **options)

    monkeypatch.setattr(image_files, "with_caption", with_caption)
    file = saved(tmp_path / "a.png", np.full((200, 300), 90, np.uint8))
    judged = judge_and_draw(
        Spotted(*said), "a.png", file, regions=Regions(tmp_path), overlays=tmp_path
    )
    assert (judged.outcome, shown) == (outcome, words)
    assert judged.row["normalised_score"] == (said[2] if len(said) > 2 else None)
    assert judged.row["regions"] == (outcome == REJECT)
    drawn = np.asarray(Image.open(tmp_path / "a.png.png"))
    strip, image = drawn[:-200], drawn[-200:]
    assert (image == MASK_COLOUR).all(axis=2).any() == (outcome == REJECT)
    assert (strip == (MASK_COLOUR if outcome == REJECT else WHITE)).all(axis=2).any()
