"""A report's picture of an image, which follows from its verdict."""

import numpy as np
import pytest
from helpers.detectors import make_detector, pictures
from helpers.report_pages import panel as made_up

from recon_ad.data import Record, Source
from recon_ad.data.source import digest
from recon_ad.detector.heldout import Judged, kept
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import Detector
from recon_ad.evaluation import panels
from recon_ad.evaluation.panels import choose_panels, odd_training, panel
from recon_ad.metrics import empty_histogram, image_histogram, merge
from recon_ad.metrics.summary import ImageResult
from recon_ad.report import pixel_scale, shrink_panel


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
    assert detector.predict(image).mask.any()  # pixel metrics use this mask
    assert shown.mask.any() == bool(shown.marked) == bool(shown.regions) == rejected
    assert (shown.marks is not None) == rejected


@pytest.mark.parametrize(
    "case", ["cross", "scores of another detector", "split", "other images of the same names"]
)
def test_odd_training_images_are_those_that_calibration_scored_highest(case, monkeypatch):
    images = pictures()
    detector = make_detector("knn")
    names = [f"{i}.png" for i in range(len(images))]
    crossed = case in ("cross", "scores of another detector")
    scores = [float(detector.predict(image).score) for image in images]
    held_out = [float(detector.without([i]).predict(x).score) for i, x in enumerate(images)]
    kept_scores = held_out if case == "cross" else [2.0, 4.0, 1.0, 3.0] if crossed else scores
    digests = [digest(image if crossed else image[::-1]) for image in images]
    values = images[0][..., 0] / 255.0
    pixels = merge(empty_histogram(), image_histogram(values, values < 0))
    judged = Judged(names, digests, [""] * 4, kept_scores, [0, 1, 2, 3], {"": pixels})
    rule = "split" if case == "split" else "cross"
    record = {"calibration": {"rule": rule, "grouped": False, **kept(judged, percentile=99.0)}}
    detector = detector.with_thresholds(detector.thresholds, record)
    train = tuple(Record(n, lambda x=x: x) for n, x in zip(names, images, strict=True))
    inspect, inspected = Detector.predict_aligned, []

    def watched(judge, image, **options):
        inspected.append(image)
        return inspect(judge, image, **options)

    monkeypatch.setattr(Detector, "predict_aligned", watched)
    found, note = odd_training(detector, Source(train, ()), count=2, scale=None)
    highest = np.argsort(kept_scores)[:-3:-1]
    assert [shown.name for shown in found] == [names[i] for i in highest]
    assert note == (", held out" if case == "cross" else "")
    # The pictures are by the detector that the heading says.
    expected = [(held_out if case == "cross" else scores)[i] for i in highest]
    assert [shown.score for shown in found] == pytest.approx(expected)
    assert held_out != scores
    # Two pictures; those of the wrong detector before them, or the scores of all images.
    extra = {"cross": 0, "scores of another detector": 2}.get(case, len(images))
    assert len(inspected) == 2 + extra


def chosen(rows, monkeypatch, *, limit=6):
    """Return the names in each group of a report on (name, defect, score) with the threshold 5."""

    def shown(detector, record, *, scale):
        return shrink_panel(made_up(record.name))

    monkeypatch.setattr(panels, "panel", shown)
    monkeypatch.setattr(panels, "odd_training", lambda *_, count, scale: ([], ""))
    test = tuple(Record(n, lambda: None, defect=d) for n, d, _ in rows)
    judged = [ImageResult(n, d, d != "good", s, s > 5, None, 0, 0) for n, d, s in rows]
    groups = choose_panels(make_detector(), Source((), test), judged, limit=limit, scale=None)
    groups.pop("Most anomalous training images")
    return {k: g if isinstance(g, str) else [p.name for p in g] for k, g in groups.items()}


def test_the_report_shows_the_worst_mistakes_the_clearest_hits_and_typical_good_ones(monkeypatch):
    rows = [(f"g{i}", "good", float(i)) for i in range(8)]
    rows += [("a1", "dent", 1.0), ("a2", "dent", 2.0), ("a7", "dent", 7.0), ("a9", "dent", 9.0)]
    rows += [("a8", "dent", 8.0), ("b6", "crack", 6.0)]
    assert chosen(rows, monkeypatch, limit=3) == {
        "Worst misses": ["a1", "a2"],
        "Worst false alarms": ["g7", "g6"],
        "Clearest hits": ["a9", "b6", "a8"],  # one of each type before a second of any
        "Typical good images": ["g2"],
    }
    assert chosen(rows, monkeypatch)["Typical good images"] == ["g2", "g4", "g0"]
    good = chosen([("g", "good", 1.0)], monkeypatch)
    assert list(good) == ["Worst false alarms", "Typical good images"]
    assert good["Worst false alarms"].startswith("No false alarms")
    assert list(chosen([("d", "dent", 9.0)], monkeypatch)) == ["Worst misses", "Clearest hits"]
