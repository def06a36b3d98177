"""Normalised scores: 0 for the usual good image, 0.5 at the threshold, equal in all runtimes."""

import functools

import numpy as np
import onnx
import pytest
from helpers.detectors import make_detector, pictures, plain_detector

import recon_ad
from recon_ad.data import Record
from recon_ad.data.holdout import hold_out_all
from recon_ad.detector import onnx_detector, onnx_export, runtimes
from recon_ad.detector.inference import UNCALIBRATED, Thresholds
from recon_ad.detector.normalised import medians_of, normalised
from recon_ad.detector.thresholds import calibrate


def normals(n, categories=""):
    images = np.random.default_rng(0).integers(0, 256, (n, 40, 40, 1), np.uint8)
    named = categories or " "
    return [
        # The categories have different contrasts, so that their scores differ.
        Record(
            str(i),
            functools.partial(np.copy, image // (1 + i % len(named))),
            category=named[i % len(named)].strip(),
        )
        for i, image in enumerate(images)
    ]


def test_the_median_is_at_0_and_the_threshold_at_a_half_without_ends():
    found = normalised(np.float32([2, 4, 0, 10]), median=2.0, threshold=4.0)
    np.testing.assert_array_equal(found, [0, 0.5, -0.5, 2])
    assert normalised(np.float32(3), median=2.0, threshold=4.0) == 0.25
    assert normalised(np.float32(-1), median=-2.0, threshold=-1.0) == 0.5


def test_it_rises_with_the_score_and_is_above_a_half_where_the_score_is_above_the_threshold():
    random = np.random.default_rng(0)
    for _ in range(200):
        median, gap = random.lognormal(0, 3), random.lognormal(-2, 3)
        threshold = np.float32(median + gap)
        near = [np.nextafter(threshold, np.float32(end)) for end in (-np.inf, np.inf)]
        scores = np.sort(np.float32([*near, threshold, *random.lognormal(0, 3, 20)]))
        found = normalised(scores, median=median, threshold=float(threshold))
        if found is None:
            assert np.float32(median) == threshold
            continue
        np.testing.assert_array_equal(found > 0.5, scores > threshold)
        assert (np.diff(found)[np.diff(scores) > 0] > 0).all()
        assert found[scores == threshold][0] == 0.5


def test_the_largest_scores_have_finite_ones():
    assert np.isfinite(normalised(np.float32(3.4e38), median=0.0, threshold=1e-45))


@pytest.mark.parametrize(
    ("median", "threshold"), [(None, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, np.inf), (1.0, 1 + 1e-9)]
)
def test_without_a_median_below_the_threshold_there_is_none(median, threshold):
    assert normalised(np.float32(3), median=median, threshold=threshold) is None


def test_the_median_is_that_of_the_images_that_the_thresholds_rest_on():
    detector = calibrate(plain_detector(), hold_out_all(normals(8), how="eight"), fpr=0.3)
    scores = [detector.predict(record.load()).score for record in normals(8)]
    assert detector.median == np.median(scores)
    found = detector.predict(normals(1)[0].load())
    gap = np.float64(np.float32(detector.thresholds.image)) - np.float32(detector.median)
    expected = 0.5 * (np.float64(found.score) - np.float32(detector.median)) / gap
    assert found.normalised_score == expected and found.normalised_score.dtype == np.float64
    several = detector(np.stack([record.load() for record in normals(3)]))
    np.testing.assert_array_equal(several.normalised_score, detector.normalised(several.score))
    # Without kept scores, as in older detectors, and with nothing at all.
    assert plain_detector().predict(pictures()[0]).normalised_score is None
    assert plain_detector()(pictures()[:1] * 2).normalised_score is None
    uncalibrated = detector.with_thresholds(UNCALIBRATED, {})
    assert uncalibrated.predict(pictures()[0]).normalised_score is None


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a detector of three categories, and its exported model."""
    detector = make_detector(thresholds=Thresholds(1.0, 1.0))
    held = hold_out_all(normals(18, "aé;"), how="eighteen")  # medians between two scores
    detector = calibrate(detector, held, fpr=0.3)
    path = tmp_path_factory.mktemp("normalised") / "m.onnx"
    assert onnx_export.export(detector, path, pictures())["passed"]
    return detector, path


def test_each_category_has_its_own_and_all_runtimes_the_same(exported, tmp_path):
    detector, path = exported
    entry = detector.record["calibration"]
    detector.save(tmp_path / "d")
    opened = [recon_ad.load(tmp_path / "d")]
    opened += [recon_ad.load(path, runtime=runtime) for runtime in runtimes.RUNTIMES]
    scores = np.float32([0, *entry["scores"], 1e-3, 1e9])
    medians = set()
    for category in ("", "a", "é", ";"):
        judged = zip(entry["scores"], entry["shown"], strict=True)
        mine = [score for score, shown in judged if category in ("", shown)]
        ours = detector.of_known(category)
        assert ours.median == np.median(mine)
        medians.add(ours.median)
        expected = ours.normalised(scores)
        assert expected is not None and expected[0] < 0 < 0.5 < expected[-1]
        for other in opened:
            theirs = other.of_known(category)
            np.testing.assert_array_equal(theirs.normalised(scores), expected)
            said, own = theirs.predict(pictures()[0]), ours.predict(pictures()[0])
            assert said.normalised_score == theirs.normalised(said.score)
            assert said.normalised_score == pytest.approx(float(own.normalised_score), abs=1e-3)
    assert len(medians) == 4


def with_facts(path, to, **facts):
    """Copy a model with other metadata. None removes an entry."""
    for source, target in ((path, to), *[tuple(map(onnx_detector.tail_path, (path, to)))]):
        model = onnx.load(source)
        kept = {p.key: p.value for p in model.metadata_props}
        kept |= {f"{runtimes.PREFIX}{name}": value for name, value in facts.items()}
        onnx.helper.set_model_props(model, {k: v for k, v in kept.items() if v is not None})
        onnx.save(model, target)
    return to


def test_models_of_before_open_and_have_none(exported, tmp_path):
    _, path = exported
    older = with_facts(path, tmp_path / "m.onnx", median_score=None, category_medians=None)
    for runtime in runtimes.RUNTIMES:
        model = recon_ad.load(older, runtime=runtime)
        for chosen in (model, model.of_category("a")):
            assert chosen.predict(pictures()[0]).normalised_score is None


def test_a_detector_without_a_median_is_exported_without(exported, tmp_path):
    detector, _ = exported
    bare = detector.with_thresholds(detector.thresholds, {}, categories=detector.categories)
    assert onnx_export.export(bare, tmp_path / "m.onnx", pictures())["passed"]
    model = onnx_detector.load(tmp_path / "m.onnx")
    assert model.facts["median_score"] == "none" and model.facts["category_medians"] == ""
    assert model.medians == {} and model.median is None


def test_where_images_are_of_one_category_there_is_one_median():
    record = {"calibration": {"scores": [3.0, 1.0, 2.0], "shown": ["a"] * 3}}
    assert medians_of(record) == {"": 2.0}
    assert medians_of({}) == medians_of({"calibration": {"images": 3}}) == {}
