"""The classifier of heatmaps: learning, its report, its file, the path, the exported tail."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score
from small_runs import by_command, small_config, table
from test_export import make_detector, pictures

from recon_ad import classify, deployed, evaluate, export, exporting
from recon_ad import train as trainer
from recon_ad.config import load_config
from recon_ad.data import synthetic_source
from recon_ad.data.synthetic import write_folder
from recon_ad.detector import Detector, load
from recon_ad.errors import UserError
from recon_ad.inference import Thresholds
from recon_ad.inspection import classifier_training as training
from recon_ad.inspection.classifier import FILE, Labelled, extract, save

SIDE = 32  # of tiles


def settings(features="hu", **fields):
    config = load_config(f"configs/classifier.py:features={features},weights=random")
    fields = {"encoder.side": SIDE, "repeats": 3, "steps": 100} | fields
    config.update_from_flattened_dict(fields)
    return config


def examples(count=24, d=5, apart=3.0, seed=0):
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3 == 0
    features = random.normal(size=(count, d)).astype(np.float32)
    features[:, 0] += apart * labels
    return features, labels


def with_classifier(detector, features="hu", **fields):
    """The detector with a classifier that tells noise with a bright bar from noise without."""
    config = settings(features, **fields)
    network, _ = classify.untrained(detector, config)
    random, take = np.random.default_rng(0), jax.jit(extract)
    images, scores, found = [], [], []
    for i in range(12):
        image = random.random((50, 60, 1), np.float32)
        if i % 2:
            image[10:20, 10:50] = 1
        prediction = detector.predict(image)
        valid = np.ones((1, 50, 60), bool)
        found.append(np.asarray(take(network, prediction.anomaly_map[None], valid))[0])
        scores.append(float(prediction.score))
        images.append(Labelled(f"{i}.png", str(i), "defect" if i % 2 else "harmless"))
    given = classify.Examples(tuple(images), np.array(scores), np.array(found, np.float32))
    threshold = detector.thresholds.image
    classifier, _ = classify.train(network, given, config, image_threshold=threshold)
    return Detector(
        detector.config, channels=detector.channels, variables=detector.variables,
        thresholds=detector.thresholds, record=detector.record, classifier=classifier,
    )  # fmt: skip


@pytest.fixture(scope="module")
def classified():
    return with_classifier(make_detector())


def test_folds_have_their_share_of_both_classes():
    labels = np.arange(23) < 7
    fold = training.stratified(labels, folds=5, random=np.random.default_rng(0))
    for chosen in (labels, ~labels):
        counts = np.bincount(fold[chosen], minlength=5)
        assert np.ptp(counts) <= 1
    assert np.ptp(np.bincount(fold, minlength=5)) <= 1


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
    # Where they rank the wrong way round, how frequent defects are is all that is left.
    factor, offset = training.platt(-logits, labels)
    assert factor == 0 and 1 / (1 + np.exp(-offset)) == pytest.approx(targets.mean())


@pytest.mark.parametrize("level", [0.0, 1e-9, 1e9])
def test_platts_numbers_are_finite_for_any_logits(level):
    labels = np.arange(10) < 5
    assert np.isfinite(training.platt(level * labels, labels)).all()


def test_the_threshold_is_the_best_and_half_way():
    labels = np.array([False, False, False, True, True])
    found = training.best_threshold(np.array([0.1, 0.2, 0.3, 0.7, 0.9]), labels)
    assert found == pytest.approx(0.5)
    # Where nothing is told apart, every anomaly stays a defect.
    assert training.best_threshold(np.full(5, 0.4), labels) == 0.0


def test_too_few_labels_are_refused():
    labels = np.arange(9) < 4
    training.check_labels(labels, folds=4)
    with pytest.raises(UserError, match=r"4 images are labelled defect, and 5 are needed.* 1 more"):
        training.check_labels(labels, folds=5)
    with pytest.raises(UserError, match="3 images are labelled harmless"):
        training.check_labels(np.arange(9) < 6, folds=5)


def test_one_seed_makes_one_classifier():
    features, labels = examples()
    everything = [np.ones(len(labels), bool)]
    a, b, c = (
        training.learn(features, labels, everything, settings(seed=seed))[0] for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert a.decision == b.decision
    assert a.decision != c.decision


def test_what_is_learnt_does_not_depend_on_labels_outside_its_set():
    features, labels = examples()
    chosen = np.arange(len(labels)) < 15
    other = np.where(chosen, labels, ~labels)
    a, b = (training.learn(features, given, [chosen], settings())[0] for given in (labels, other))
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
    assert a.decision == b.decision
    moved = features.copy()
    moved[~chosen] += 100
    c = training.learn(moved, labels, [chosen], settings())[0]
    jax.tree.map(np.testing.assert_array_equal, a.params, c.params)


def test_classes_count_alike_however_many_there_are():
    random = np.random.default_rng(0)
    labels = np.arange(100) < 10
    features = random.normal(size=(100, 2)).astype(np.float32) + labels[:, None]
    config = settings()
    _, logits = training.train_all(features, labels, np.ones((1, 100), bool), config)
    decided = logits[0] > 0
    # Without weights nearly none of a tenth would be found.
    assert decided[labels].mean() > 0.6


def test_the_report_is_of_labels_that_were_not_learnt_from():
    # Labels that have nothing to do with the features: seen ones could be told apart all the same.
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(60, 40)).astype(np.float32), np.arange(60) % 2 == 0
    above = np.ones(60, bool)
    report = training.cross_validate(features, labels, above, settings())
    assert abs(report["auroc"]["mean"] - 0.5) < 0.15
    assert abs(report["balanced_accuracy"]["mean"] - 0.5) < 0.15
    assert report["brier"]["mean"] > 0.2
    _, logits = training.train_all(features, labels, np.ones((1, 60), bool), settings())
    assert roc_auc_score(labels, logits[0]) > 0.95


def test_the_report_has_the_figures_of_its_decisions():
    features, labels = examples(count=60, apart=2.5)
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
    network = classified.classifier.network
    for image in pictures():
        prediction = classified.predict(image)
        assert 0 < prediction.defect_probability < 1
        above = prediction.score > np.float32(classified.thresholds.image)
        is_defect = prediction.defect_probability > network.variables["threshold"]
        assert prediction.label == (above and is_defect)
    everything = classified.with_thresholds(Thresholds(-np.inf, classified.thresholds.pixel), {})
    nothing = classified.with_thresholds(Thresholds(np.inf, classified.thresholds.pixel), {})
    labels = [everything.predict(image).label for image in pictures()]
    p = [everything.predict(i).defect_probability for i in pictures()]
    assert labels == [q > network.variables["threshold"] for q in p]
    assert not any(nothing.predict(image).label for image in pictures())
    assert make_detector().predict(pictures()[0]).defect_probability is None


def test_several_images_give_several_probabilities(classified):
    batch = np.stack([pictures()[1]] * 2)
    found = classified(batch).defect_probability
    assert found.shape == (2,) and found[0] == found[1]


def test_only_the_region_of_interest_is_classified(classified):
    image = pictures()[0]
    roi = np.zeros(image.shape[:2], bool)
    roi[:32, :40] = True
    changed = image.copy()
    changed[40:, 60:] = 255 - changed[40:, 60:]  # beyond a tile that touches the region
    a, b = (classified.predict(i, roi=roi).defect_probability for i in (image, changed))
    assert a == pytest.approx(b, abs=1e-6)
    assert a != classified.predict(image).defect_probability


@pytest.mark.parametrize("features", ["hu", "encoder"])
def test_a_saved_detector_has_its_classifier(features, tmp_path):
    detector = with_classifier(make_detector(), features)
    detector.save(tmp_path / "detector")
    again = load(tmp_path / "detector")
    for image in pictures():
        assert again.predict(image).defect_probability == (
            detector.predict(image).defect_probability
        )
    assert again.classifier.labelled == detector.classifier.labelled
    assert again.classifier.record == json.loads(json.dumps(detector.classifier.record))
    again.with_thresholds(Thresholds(1.0, 1.0), {}).save(tmp_path / "detector")
    assert load(tmp_path / "detector").classifier is not None
    (tmp_path / "detector" / FILE).unlink()
    assert load(tmp_path / "detector").predict(pictures()[0]).defect_probability is None


def test_a_damaged_file_is_told(classified, tmp_path):
    directory = tmp_path / "detector"
    classified.save(directory)
    whole = (directory / FILE).read_bytes()
    tensors = safetensors.numpy.load(whole)
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["__metadata__"]
    (name,) = header
    described = json.loads(header[name])

    def written(given=tensors, **changed):
        text = {name: json.dumps(described | changed)}
        (directory / FILE).write_bytes(safetensors.numpy.save(given, metadata=text))

    written()
    load(directory)
    shorter = {**tensors, "mean": tensors["mean"][:-1]}
    shapes = {k: list(v.shape) for k, v in shorter.items()}
    for spoil in (
        lambda: (directory / FILE).write_bytes(whole[:-9]),
        lambda: (directory / FILE).write_bytes(b"nothing"),
        lambda: (directory / FILE).write_bytes(safetensors.numpy.save(tensors)),
        lambda: written(spec={"features": "hu"}),
        lambda: written(shorter),
        lambda: written(shorter, tensors=shapes),
    ):
        spoil()
        with pytest.raises(UserError, match=r"classifier\.safetensors is damaged"):
            load(directory)
    written(format=2)
    with pytest.raises(UserError, match="not in format 1"):
        load(directory)


@pytest.mark.parametrize("features", ["hu", "encoder"])
def test_the_exported_tail_gives_the_same_probabilities(features, tmp_path):
    detector = with_classifier(make_detector(), features)
    result = export.export(detector, tmp_path / "M.onnx", pictures())
    assert result["passed"], export.worst(result)
    assert result["groups"]["images"]["defect_probability"]["max"] < 1e-4
    assert result["metadata"]["classifier"] == features
    roi = np.zeros((50, 70), bool)
    roi[10:40, 5:60] = True
    for runtime in deployed.RUNTIMES:
        model = deployed.load(tmp_path / "M.onnx", runtime=runtime)
        for image, region in [*((i, None) for i in pictures()), (pictures()[0], roi)]:
            ours, theirs = (d.predict(image, roi=region) for d in (detector, model))
            # Rounding of float32 in another order.
            np.testing.assert_allclose(
                theirs.defect_probability, ours.defect_probability, atol=1e-4
            )
            assert theirs.label == ours.label


@pytest.mark.parametrize("features", ["hu", pytest.param("encoder", marks=pytest.mark.slow)])
def test_a_graph_for_one_tile_classifies_too(features, tmp_path):
    detector = with_classifier(make_detector("ssim_l1", **{"data.resize": (SIDE, SIDE)}), features)
    images = pictures(dtype=np.float32)
    result = export.export(detector, tmp_path / "M.onnx", images)
    assert result["passed"], export.worst(result)
    assert "defect_probability" in result["groups"]["images of the tile's size"]
    model = deployed.load(tmp_path / "M.onnx")
    (theirs,) = model.whole(np.stack(pictures(dtype=np.float32, sizes=[(SIDE, SIDE)])))
    ours = detector.predict(pictures(dtype=np.float32, sizes=[(SIDE, SIDE)])[0])
    np.testing.assert_allclose(theirs.defect_probability, ours.defect_probability, atol=1e-4)
    assert theirs.label == ours.label


def test_a_model_that_classifies_otherwise_is_refused(classified, monkeypatch, tmp_path):
    right = exporting.tail

    def spoiled(*args, **kwargs):
        *rest, probability = right(*args, **kwargs)
        return *rest, probability * 0.99

    monkeypatch.setattr(exporting, "tail", spoiled)
    result = export.export(classified, tmp_path / "M.onnx", pictures())
    assert not result["passed"] and "defect_probability" in export.worst(result)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has to be path,label"),
        ("file,label\na.png,defect\n", "first line is 'file,label' and has to be path,label"),
        ("a.png,defect\n", "first line is 'a.png,defect' and has to be path,label"),
        ("path,label\n", "has no row below its first line: give one for each"),
        ("path,label\na.png,scratch\n", "row 2 has the label 'scratch': write defect or harmless"),
        ("path,label\na.png\n", "row 2 has the label None"),
        ("path,label\na.png,defect\na.png,harmless\n", "row 3 names a.png a second time"),
        ("path,label\nb.png,defect\n", "row 2 names 'b.png', which is not in"),
        ("path,label\n,defect\n", "row 2 names '', which is not in"),
        (b"path,label\n\xff.png,defect\n", "is no CSV file in UTF-8"),
    ],
)
def test_labels_that_cannot_be_used_are_told(text, says, tmp_path):
    (tmp_path / "a.png").touch()
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=says):
        classify.read_labels(path, tmp_path)
    with pytest.raises(UserError, match="there is no file"):
        classify.read_labels(tmp_path / "gone.csv", tmp_path)


def test_maps_without_a_unit_are_refused():
    for pixel in (np.inf, 0.0, -1.0):
        detector = make_detector().with_thresholds(Thresholds(1.0, pixel), {})
        with pytest.raises(UserError, match="pixel threshold is"):
            classify.untrained(detector, settings())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on the chess set, and the set as a folder."""
    workdir = tmp_path_factory.mktemp("classify")
    write_folder(synthetic_source("chess"), workdir / "data")
    trainer.train(small_config(**{"train.steps": 20}), workdir / "run")
    return workdir


def write_labels(path, data):
    """Defects of the test images, harmless ones among those of training."""
    defects, harmless = (sorted((data / f).iterdir())[:3] for f in ("test/elastic", "train/good"))
    rows = [(f, "defect") for f in defects] + [(f, "harmless") for f in harmless]
    lines = [f"{file.relative_to(data).as_posix()},{label}\n" for file, label in rows]
    path.write_text("path,label\n" + "".join(lines))
    return [file.relative_to(data).as_posix() for file in defects]


def test_from_labels_to_a_verdict(run, tmp_path):
    """classify, then evaluate without the labelled images, predict and calibrate."""
    data, detector = run / "data", tmp_path / "run/detector"
    shutil.copytree(run / "run", tmp_path / "run")
    labelled = write_labels(tmp_path / "labels.csv", data)
    flags = ["--detector", detector, "--images", data, "--labels", tmp_path / "labels.csv"]
    refused = by_command("classify", *flags)
    assert refused.returncode == 2 and "3 images are labelled defect, and 5" in refused.stderr
    before = {f.name: f.read_bytes() for f in detector.iterdir()}
    done = by_command("classify", *flags, "--config.folds=3", "--config.repeats=2")
    assert done.returncode == 0, done.stderr
    assert "AUROC" in done.stderr
    assert {f.name for f in detector.iterdir()} == before.keys() | {FILE}
    assert all((detector / name).read_bytes() == content for name, content in before.items())
    report = json.loads((tmp_path / "run/classifier.json").read_text())
    assert report["labels"] == {"defect": 3, "harmless": 3} and len(report["images"]) == 6

    metrics = evaluate.evaluate_workdir(tmp_path / "run", data=str(data), export=False)
    assert metrics["protocol"]["test_images"] == 5
    (note,) = [n for n in metrics["protocol"]["notes"] if "classifier" in n]
    assert note.startswith("Left out of the test: 3 images") and labelled[0] in note
    judged = [r["path"] for r in table(tmp_path / "run/scores.csv")]
    assert not set(judged) & set(labelled) and len(judged) == 5
    assert metrics["protocol"]["classifier"]["labels"] == report["labels"]

    done = by_command(
        "predict", "--detector", detector, "--input", data / "test/elastic",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "out/predictions.csv")
    assert list(rows[0])[-1] == "defect_probability"
    threshold = load(detector).classifier.threshold
    for row in rows:
        above = float(row["score"]) > np.float32(row["threshold"])
        expected = above and float(row["defect_probability"]) > threshold
        assert row["anomalous"] == json.dumps(bool(expected))
    done = by_command("calibrate", "--detector", detector, "--normals", data / "train/good")
    assert done.returncode == 0, done.stderr
    assert load(detector).classifier.threshold == threshold


def test_copies_are_left_out_and_other_images_of_the_name_are_not(run, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(run / "data", data)
    detector = load(run / "run/detector")
    labelled = write_labels(tmp_path / "labels.csv", data)
    config = settings(**{"folds": 3})
    network, _ = classify.untrained(detector, config)
    labels = classify.read_labels(tmp_path / "labels.csv", data)
    found = classify.examples(detector, network, labels, data, classify.Regions(data))
    classifier, _ = classify.train(network, found, config, image_threshold=1.0)
    shutil.copytree(run / "run", tmp_path / "run")
    save(classifier, tmp_path / "run/detector")
    # The first goes to another name, and its name to an image that is not labelled.
    (data / labelled[0]).rename(data / "test/elastic/copied.png")
    shutil.copy(sorted((data / "test/good").iterdir())[0], data / labelled[0])
    evaluate.evaluate_workdir(tmp_path / "run", data=str(data), export=False)
    judged = [r["path"] for r in table(tmp_path / "run/scores.csv")]
    assert labelled[0] in judged and "test/elastic/copied.png" not in judged
    with pytest.raises(UserError, match="are the same image"):
        first = sorted((data / "test/good").iterdir())[0].relative_to(data).as_posix()
        twice = {first: "harmless", labelled[0]: "defect"}
        classify.examples(detector, network, twice, data, classify.Regions(data))
