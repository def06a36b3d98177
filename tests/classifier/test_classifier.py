"""The heatmap classifier: learning, its report, its file, the commands, the exported tail."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from helpers.classifiers import examples, settings, with_classifier
from helpers.commands import run_command
from helpers.detectors import SIDE, pictures, plain_detector
from helpers.small_runs import table
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from recon_ad.classifier import labels as classifier_labels
from recon_ad.classifier import training
from recon_ad.data import folder_source
from recon_ad.detector import onnx_detector, onnx_export, onnx_graphs, runtimes
from recon_ad.detector.classifier import FILE, Classifier, without_labelled
from recon_ad.detector.directory import load
from recon_ad.detector.inference import Thresholds
from recon_ad.errors import UserError
from recon_ad.evaluation import run as evaluation
from recon_ad.pretrained import presets


@pytest.fixture(scope="module", autouse=True)
def _encoder_of_one_block():
    """Cut the encoder to one block: compile time depends on its depth, these tests do not."""
    name = settings("encoder").encoder.name
    whole = presets.PRESETS[name]
    with pytest.MonkeyPatch.context() as patch:
        short = whole._replace(spec=whole.spec._replace(depth=1))
        patch.setitem(presets.PRESETS, name, short)
        yield


@pytest.fixture(scope="module", params=["hu", "encoder"])
def with_features(request):
    """Return a detector with a classifier of either kind, and the kind."""
    return with_classifier(plain_detector(), request.param), request.param


@pytest.fixture(scope="module")
def classified():
    return with_classifier(plain_detector())


def test_folds_have_their_share_of_both_classes():
    labels = np.arange(23) < 7
    fold = training.stratified(labels, folds=5, random=np.random.default_rng(0))
    for chosen in (labels, ~labels, labels | True):
        assert np.ptp(np.bincount(fold[chosen], minlength=5)) <= 1


def test_platts_numbers_are_those_of_greatest_likelihood():
    random = np.random.default_rng(0)
    labels = random.random(60) < 0.3
    logits = 3 * labels + random.normal(size=60) * 2
    targets = np.where(labels, (labels.sum() + 1) / (labels.sum() + 2), 1 / ((~labels).sum() + 2))

    def loss(at):
        z = at[0] * logits + at[1]
        return np.sum(np.logaddexp(0, z) - targets * z)

    expected = minimize(loss, [0.0, 0.0], tol=1e-12).x
    np.testing.assert_allclose(training.platt(logits, labels), expected, rtol=1e-3)
    # If the scores rank in the wrong order, only the frequency of defects is left.
    factor, offset = training.platt(-logits, labels)
    assert factor == 0 and 1 / (1 + np.exp(-offset)) == pytest.approx(targets.mean())
    for level in (0.0, 1e-9, 1e9):
        assert np.isfinite(training.platt(level * labels, labels)).all()


def test_the_threshold_is_the_best_and_half_way():
    labels = np.array([False, False, False, True, True])
    found = training.best_threshold(np.array([0.1, 0.2, 0.3, 0.7, 0.9]), labels)
    assert found == pytest.approx(0.5)
    # If nothing can be separated, every anomaly stays a defect.
    assert training.best_threshold(np.full(5, 0.4), labels) == 0.0


def test_too_few_labels_are_refused():
    labels = np.arange(9) < 4
    training.check_labels(labels, folds=4)
    with pytest.raises(UserError, match=r"4 images are labelled defect, but 5 are needed.* 1 more"):
        training.check_labels(labels, folds=5)
    with pytest.raises(UserError, match="3 images are labelled harmless"):
        training.check_labels(np.arange(9) < 6, folds=5)


def test_a_classifier_depends_on_its_seed_and_its_set_of_labels_only():
    features, labels = examples()
    chosen = np.arange(len(labels)) < 40
    elsewhere = np.where(chosen[:, None], features, features + 100)
    learnt, again, of_others, moved, seeded = (
        training.learn(x, y, [chosen], settings(seed=seed))[0]
        for x, y, seed in (
            (features, labels, 0), (features, labels, 0),
            (features, np.where(chosen, labels, ~labels), 0),
            (elsewhere, labels, 0), (features, labels, 1),
        )
    )  # fmt: skip
    for other in (again, of_others, moved):
        jax.tree.map(np.testing.assert_array_equal, learnt.params, other.params)
        assert learnt.decision == other.decision
    assert seeded.decision != learnt.decision


def of_all(features, labels):
    """Return logits of an MLP trained on all labels, with the shapes of a cross-validation."""
    used = np.ones((training.AT_ONCE, len(labels)), bool)
    return training.train_all(features, labels, used, settings())[1][0]


def test_classes_count_alike_however_many_there_are():
    random = np.random.default_rng(0)
    labels = np.arange(60) < 6
    features = random.normal(size=(60, 5)).astype(np.float32)
    features[:, :2] += labels[:, None]
    # Without weights almost none of a tenth would be found.
    assert (of_all(features, labels) > 0)[labels].mean() > 0.6


def test_the_report_is_of_labels_that_were_not_learnt_from():
    # Labels that are independent of the features could still be separated on training images.
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(60, 40)).astype(np.float32), np.arange(60) % 2 == 0
    above = np.ones(60, bool)
    report = training.cross_validate(features, labels, above, settings())
    assert abs(report["auroc"]["mean"] - 0.5) < 0.15
    assert abs(report["balanced_accuracy"]["mean"] - 0.5) < 0.15
    assert report["brier"]["mean"] > 0.2
    assert roc_auc_score(labels, of_all(features, labels)) > 0.95


def test_the_report_has_the_figures_of_its_decisions():
    features, labels = examples(apart=2.5)
    above = np.arange(60) % 2 == 0
    report = training.cross_validate(features, labels, above, settings())
    assert 0.8 < report["auroc"]["min"] <= report["auroc"]["mean"] <= report["auroc"]["max"] <= 1
    for part in (report, report["with_the_image_threshold"]):
        counts = part["confusion"]
        found = counts["defects_found"] / labels.sum()
        passed = counts["harmless_passed"] / (~labels).sum()
        assert part["balanced_accuracy"]["mean"] == pytest.approx((found + passed) / 2)
        assert sum(counts.values()) == pytest.approx(60)
    assert report["with_the_image_threshold"]["confusion"]["defects_found"] <= 10
    bins = report["reliability"]["bins"]
    assert sum(row["share_of_images"] for row in bins) == pytest.approx(1)
    assert report["reliability"]["expected_calibration_error"] < 0.2
    mean = sum(row["share_of_images"] * row["mean_probability"] for row in bins)
    assert mean == pytest.approx(np.mean(report["probabilities"]))


def test_probabilities_of_labels_not_seen_are_calibrated():
    features, labels = examples(count=300, apart=1.5)
    report = training.cross_validate(features, labels, np.ones(300, bool), settings())
    assert report["reliability"]["expected_calibration_error"] < 0.06


def test_an_image_is_rejected_by_both_thresholds(classified):
    for threshold in (-np.inf, classified.thresholds.image, np.inf):
        given = Thresholds(threshold, classified.thresholds.pixel)
        detector = classified.with_thresholds(given, {})
        for image in pictures():
            prediction = detector.predict(image)
            assert 0 < prediction.defect_probability < 1
            is_defect = prediction.defect_probability > classified.classifier.threshold
            assert prediction.label == (prediction.score > np.float32(threshold) and is_defect)
    assert plain_detector().predict(pictures()[0]).defect_probability is None
    several = classified(np.stack([pictures()[1]] * 2)).defect_probability
    assert several.shape == (2,) and several[0] == several[1]


def test_only_the_region_of_interest_is_classified(classified):
    image = pictures()[0]
    roi = np.zeros(image.shape[:2], bool)
    roi[:16, :30] = True
    changed = image.copy()
    changed[32:, 50:] = 255 - changed[32:, 50:]  # beyond any tile that touches the region
    a, b = (classified.predict(i, roi=roi).defect_probability for i in (image, changed))
    assert a == pytest.approx(b, abs=1e-6)
    assert a != classified.predict(image).defect_probability


def test_a_saved_detector_has_its_classifier(with_features, tmp_path):
    detector, _ = with_features
    detector.save(tmp_path)
    again = load(tmp_path)
    for image in pictures():
        expected = detector.predict(image).defect_probability
        assert again.predict(image).defect_probability == expected
    assert again.classifier.labelled == detector.classifier.labelled
    assert again.classifier.record == json.loads(json.dumps(detector.classifier.record))
    again.with_thresholds(Thresholds(1.0, 1.0), {}).save(tmp_path)
    assert load(tmp_path).classifier is not None
    (tmp_path / FILE).unlink()
    assert load(tmp_path).predict(pictures()[0]).defect_probability is None


def test_a_damaged_file_is_named(classified, tmp_path):
    classified.save(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    tensors = safetensors.numpy.load(whole)
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
    ((name, described),) = header.items()

    def packed(given=tensors, **changed):
        described_so = json.loads(described) | changed
        return safetensors.numpy.save(given, metadata={name: json.dumps(described_so)})

    shorter = {**tensors, "mean": tensors["mean"][:-1]}
    shapes = {k: list(v.shape) for k, v in shorter.items()}
    damaged = r"classifier\.safetensors is damaged"
    for content, words in (
        (whole[:-9], damaged),
        (b"nothing", damaged),
        (safetensors.numpy.save(tensors), damaged),
        (packed(spec={"features": "hu"}), damaged),
        (packed(shorter), damaged),
        (packed(shorter, tensors=shapes), damaged),
        (packed(format=2), "not in format 1"),
    ):
        (tmp_path / FILE).write_bytes(content)
        with pytest.raises(UserError, match=words):
            load(tmp_path)
    (tmp_path / FILE).write_bytes(packed())
    load(tmp_path)


def test_the_exported_tail_gives_the_same_probabilities(with_features, tmp_path):
    detector, features = with_features
    result = onnx_export.export(detector, tmp_path / "M.onnx", pictures())
    assert result["passed"], onnx_export.worst(result)
    assert result["groups"]["images"]["defect_probability"]["max"] < 1e-4
    assert result["metadata"]["classifier"] == features
    roi = np.zeros((50, 70), bool)
    roi[10:40, 5:60] = True
    for runtime in runtimes.RUNTIMES:
        model = onnx_detector.load(tmp_path / "M.onnx", runtime=runtime)
        for image, region in [*((i, None) for i in pictures()), (pictures()[0], roi)]:
            ours, theirs = (d.predict(image, roi=region) for d in (detector, model))
            # float32 rounding in another order.
            assert theirs.defect_probability == pytest.approx(ours.defect_probability, abs=1e-4)
            assert theirs.label == ours.label


@pytest.mark.parametrize(("features", "threshold"), [("hu", 0.05), ("hu", 1.0), ("encoder", 0.05)])
def test_a_graph_for_one_tile_classifies_by_both_thresholds(features, threshold, tmp_path):
    base = plain_detector(**{"data.resize": (SIDE, SIDE)})
    detector = with_classifier(base, features)
    detector = detector.with_thresholds(Thresholds(threshold, 0.04), base.record)
    result = onnx_export.export(detector, tmp_path / "M.onnx", pictures(dtype=np.float32))
    assert result["passed"], onnx_export.worst(result)
    assert "defect_probability" in result["groups"]["images of the tile's size"]
    image = np.random.default_rng(0).random((SIDE, SIDE, 1), np.float32)
    image[6:12, 4:28] = 1  # a bar, like those labelled as defects
    (theirs,), ours = (
        onnx_detector.load(tmp_path / "M.onnx").whole(image[None]),
        detector.predict(image),
    )
    np.testing.assert_allclose(theirs.defect_probability, ours.defect_probability, atol=1e-4)
    assert theirs.defect_probability > detector.classifier.threshold
    assert theirs.label == ours.label == (threshold < 1)


def test_a_model_that_classifies_otherwise_is_refused(classified, monkeypatch, tmp_path):
    right = onnx_graphs.tail

    def spoiled(*args, **kwargs):
        *rest, probability = right(*args, **kwargs)
        return *rest, probability * 0.99

    monkeypatch.setattr(onnx_graphs, "tail", spoiled)
    result = onnx_export.export(classified, tmp_path / "M.onnx", pictures())
    assert not result["passed"] and "defect_probability" in onnx_export.worst(result)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be path,label"),
        ("file,label\na.png,defect\n", "first line is 'file,label', but must be path,label"),
        ("path,label\n", "has no row below its first line: give one for each"),
        ("path,label\na.png,scratch\n", "row 2 has the label 'scratch': write defect or harmless"),
        ("path,label\na.png\n", "row 2 has the label None"),
        ("path,label\na.png,defect\na.png,harmless\n", "row 3 names a.png a second time"),
        ("path,label\nb.png,defect\n", "row 2 names 'b.png', which is not in"),
        ("path,label\n,defect\n", "row 2 names '', which is not in"),
        ("path,label\n\xff.png,defect\n", "not a CSV file in UTF-8"),
    ],
)
def test_labels_that_cannot_be_used_are_named(text, says, tmp_path):
    (tmp_path / "a.png").touch()
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=says):
        classifier_labels.read_labels(path, tmp_path)
    with pytest.raises(UserError, match="not found"):
        classifier_labels.read_labels(tmp_path / "gone.csv", tmp_path)


@pytest.mark.parametrize("pixel", [np.inf, 0.0, -1.0])
def test_maps_without_a_unit_are_refused(pixel):
    detector = plain_detector().with_thresholds(Thresholds(1.0, pixel), {})
    with pytest.raises(UserError, match="pixel threshold is"):
        classifier_labels.untrained(detector, settings())


@pytest.fixture
def labels(finished_run, chess_folder, tmp_path):
    """Return copies of a run and its data, a file of labels, and the labelled defects."""
    run, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(finished_run(), run)
    shutil.copytree(chess_folder, data)
    files = [sorted((data / f).iterdir())[:3] for f in ("test/elastic", "train/good")]
    defects, harmless = ([file.relative_to(data).as_posix() for file in half] for half in files)
    lines = [f"{name},defect\n" for name in defects] + [f"{name},harmless\n" for name in harmless]
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(lines))
    return run, data, tmp_path / "labels.csv", defects


def ran(name, *arguments):
    done = run_command(name, *arguments)
    assert done.returncode == 0, done.stderr
    return done


def test_from_labels_to_a_verdict(labels, tmp_path):
    """Run classify, evaluate without the labelled images, predict and calibrate."""
    run, data, file, labelled = labels
    detector = run / "detector"
    flags = ["--detector", detector, "--images", data, "--labels", file]
    before = {f.name: f.read_bytes() for f in detector.iterdir()}
    done = ran("classify", *flags, "--config.folds=3", "--config.repeats=2")
    assert "AUROC" in done.stderr
    assert {f.name for f in detector.iterdir()} == before.keys() | {FILE}
    assert all((detector / name).read_bytes() == content for name, content in before.items())
    report = json.loads((run / "classifier.json").read_text())
    assert report["labels"] == {"defect": 3, "harmless": 3} and len(report["images"]) == 6

    metrics = evaluation.evaluate_workdir(run, data=str(data), export=False)
    tested = len(list(data.glob("test/*/*.png"))) - len(labelled)
    assert metrics["protocol"]["test_images"] == tested
    (note,) = [n for n in metrics["protocol"]["notes"] if "classifier" in n]
    assert note.startswith("Left out of the test: 3 images") and labelled[0] in note
    judged = [r["path"] for r in table(run / "scores.csv")]
    assert not set(judged) & set(labelled) and len(judged) == tested
    assert metrics["protocol"]["classifier"]["labels"] == report["labels"]

    ran("predict", "--detector", detector, "--input", data / "test", "--output", tmp_path / "out")
    rows = table(tmp_path / "out/predictions.csv")
    assert list(rows[0])[-2] == "defect_probability"
    threshold = load(detector).classifier.threshold
    for row in rows:
        above = float(row["score"]) > np.float32(row["threshold"])
        is_defect = float(row["defect_probability"]) > threshold
        assert row["anomalous"] == ("true" if above and is_defect else "false")
    ran("calibrate", "--detector", detector, "--normals", data / "test/good")
    assert load(detector).classifier.threshold == threshold


def test_copies_are_left_out_and_other_images_of_the_name_are_not(labels):
    run, data, file, labelled = labels
    detector = load(run / "detector")
    network, _ = classifier_labels.untrained(detector, settings())
    regions = classifier_labels.Regions(data)
    found = classifier_labels.examples(
        detector, network, classifier_labels.read_labels(file, data), data, regions
    )
    # The first image is renamed, and its old name goes to an unlabelled image.
    (data / labelled[0]).rename(data / "test/elastic/copied.png")
    good = min((data / "test/good").iterdir())
    shutil.copy(good, data / labelled[0])
    kept = without_labelled(folder_source(data), Classifier(network, found.images, {})).test
    names = {record.name for record in kept}
    assert labelled[0] in names and "test/elastic/copied.png" not in names
    twice = {good.relative_to(data).as_posix(): "harmless", labelled[0]: "defect"}
    with pytest.raises(UserError, match="are the same image"):
        classifier_labels.examples(detector, network, twice, data, regions)
