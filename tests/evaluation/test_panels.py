"""What a report shows of an image follows from its verdict."""

import numpy as np
import pytest
from helpers.detectors import make_detector, pictures

from recon_ad.data import Record, Source
from recon_ad.data.source import digest
from recon_ad.detector.heldout import Judged, kept
from recon_ad.detector.inference import Thresholds
from recon_ad.evaluation.panels import odd_training, panel
from recon_ad.metrics import empty_histogram, image_histogram, merge
from recon_ad.report import pixel_scale


@pytest.mark.parametrize("rejected", [False, True])
def test_an_accepted_image_is_shown_without_marks_at_any_pixel_threshold(rejected):
    detector, image = make_detector(), pictures()[0]
    found = detector.predict(image)
    score, pixel = float(found.score), float(np.median(found.anomaly_map))
    limit = score - 1e-3 if rejected else score + 1e-3
    detector = detector.with_thresholds(Thresholds(limit, pixel), {})
    values = found.anomaly_map
    scale = pixel_scale(pixel, lambda share: float(np.quantile(values, share)))
    shown = panel(detector, Record("a.png", lambda: image), scale=scale)
    assert detector.predict(image).mask.any()  # of which pixel figures are
    assert shown.mask.any() == bool(shown.marked) == bool(shown.regions) == rejected
    assert (shown.marks is not None) == rejected


@pytest.mark.parametrize("case", ["cross", "split", "other images of the same names"])
def test_odd_training_images_are_those_that_calibration_scored_highest(case, monkeypatch):
    images = pictures()
    detector = make_detector()
    names = [f"{i}.png" for i in range(len(images))]
    scores = [float(detector.predict(image).score) for image in images]
    held_out = case == "cross"
    told = [2.0, 4.0, 1.0, 3.0] if held_out else scores
    digests = [digest(image if held_out else image[::-1]) for image in images]
    values = images[0][..., 0] / 255.0
    pixels = merge(empty_histogram(), image_histogram(values, values < 0))
    judged = Judged(names, digests, [""] * 4, told, [0, 1, 2, 3], {"": pixels})
    rule = "split" if case == "split" else "cross"
    record = {"calibration": {"rule": rule, "grouped": False, **kept(judged, percentile=99.0)}}
    detector = detector.with_thresholds(detector.thresholds, record)
    if held_out:  # nothing is judged again
        monkeypatch.setattr(type(detector), "predict", None)
    train = tuple(Record(n, lambda x=x: x) for n, x in zip(names, images, strict=True))
    found, of = odd_training(detector, Source(train, ()), count=2)
    assert [r.name for r in found] == [names[i] for i in np.argsort(told)[:-3:-1]]
    assert of == (", held out" if held_out else "")
