"""`recon_ad.evaluate`: metrics that match scores and maps, and the files that it writes."""

import json
import logging
import shutil

import numpy as np
import pytest
from helpers.commands import refusal, run_command
from helpers.small_runs import small_config, table
from PIL import Image
from sklearn.metrics import roc_auc_score

import recon_ad
from recon_ad.data import synthetic_source
from recon_ad.data.source import digest
from recon_ad.detector import onnx_export
from recon_ad.detector.directory import load
from recon_ad.errors import UserError
from recon_ad.evaluation import run as evaluation
from recon_ad.metrics.figures import FIGURES
from recon_ad.training import run as trainer

# Metrics that the run's few images of 128 px cannot have.
TOO_FEW = {"aupimo", *(f"{kind}_{n}_oracle" for kind in ("pg", "pb") for n in (1, 2, 5))}
NO_INTERVALS = {f"intervals.{of}" for of in ("image_auroc", "images", "pixels")}


@pytest.fixture(scope="module")
def run(finished_run):
    return finished_run()


@pytest.fixture(scope="module")
def metrics(run):
    return json.loads((run / "metrics.json").read_text())


@pytest.fixture
def copy(run, tmp_path):
    """Return a copy of the run that may be evaluated again."""
    return shutil.copytree(run, tmp_path / "run")


def on_folder(path, **fields):
    """Return the smoke config, which is made for chess, with a folder as its data."""
    fields = {"data.source": "folder", "data.path": str(path)} | fields
    return small_config("configs/folder.py:smoke", **fields)


def write_region(file, rows, columns=128):
    """Write a region of interest: the first rows and columns of an image."""
    region = np.zeros((128, 128), np.uint8)
    region[:rows, :columns] = 255
    Image.fromarray(region).save(file)


def test_figures_are_those_of_the_scores_and_maps(run, metrics):
    assert list(metrics)[: len(FIGURES)] == list(FIGURES)
    assert set(metrics["missing"]) == TOO_FEW | NO_INTERVALS
    assert all(isinstance(metrics[key], float) for key in FIGURES if key not in TOO_FEW)
    source, detector = synthetic_source("chess", side=128), load(run / "detector")
    maps = [detector.predict(record.load()).anomaly_map for record in source.test]
    # Barely trained, it would mark nothing.
    thresholds = detector.thresholds._replace(pixel=float(np.quantile(maps, 0.1)))
    detector = detector.with_thresholds(thresholds, detector.record)
    predictions = [detector.predict(record.load()) for record in source.test]
    metrics = evaluation.evaluate(detector, source, name="chess")[0]
    truth = np.array([record.anomalous for record in source.test])
    masks = [r.load_mask() if r.anomalous else np.zeros((128, 128), bool) for r in source.test]
    image_auroc = roc_auc_score(truth, [float(p.score) for p in predictions])
    assert metrics["image_auroc"] == pytest.approx(image_auroc, abs=1e-9)
    pixel_auroc = roc_auc_score(np.ravel(masks), np.ravel(maps))
    assert abs(metrics["pixel_auroc"] - pixel_auroc) <= metrics["bounds"]["pixel_auroc"] + 1e-9
    marked = np.array([p.mask for p in predictions])
    both, either = (marked & masks).sum(axis=(1, 2)), (marked | masks).sum(axis=(1, 2))
    assert metrics["iou_calibrated"] == pytest.approx(both.sum() / either.sum()) != 0
    assert metrics["iou_mean_calibrated"] == pytest.approx(np.mean((both / either)[truth]))
    labels = np.array([p.label for p in predictions])
    assert metrics["image_fpr_calibrated"] == labels[~truth].mean()
    assert metrics["image_tpr_calibrated"] == labels[truth].mean()


def test_metrics_hold_intervals_truths_defects_baselines_and_protocol(run, metrics):
    # With four good images only rates have intervals.
    assert set(metrics["intervals"]) == {"image_fpr_calibrated", "image_tpr_calibrated"}
    told = metrics["decisions"]
    assert told["promised"] == metrics["image_fpr_promised"] == 0.5
    assert told["stopped"] == 4 * metrics["image_fpr_calibrated"] and told["good"] == 4
    assert metrics["truths"]["A"]["pixel_auroc"] != metrics["pixel_auroc"]
    assert metrics["per_defect"]["elastic"]["n"] == 4
    assert 0.5 <= metrics["no_model"]["mean_brightness"]["image_auroc"] <= 1
    protocol = metrics["protocol"]
    assert protocol["crop"] == [32, 32] and protocol["versions"]["jax"]
    assert protocol["calibration"]["images"] == 4
    page = (run / "report.html").read_text()
    assert f"{metrics['pixel_auroc']:.3f}" in page and "Worst misses" in page
    assert f"{told['found']} of {told['defective']}</b> defective images found" in page
    rows = table(run / "scores.csv")
    assert len(rows) == 8  # one for each test image
    rate = np.mean([row["anomalous"] == "1" for row in rows if row["defect"] == "good"])
    assert rate == metrics["image_fpr_calibrated"]
    assert all((float(r["score"]) > float(r["threshold"])) == (r["anomalous"] == "1") for r in rows)


@pytest.mark.parametrize("used_for", ["training", "calibration"])
def test_test_images_that_the_detector_has_used_are_named_first(run, used_for):
    source, detector = synthetic_source("chess", side=128), load(run / "detector")
    again = source.test[1]
    metrics, report = evaluation.evaluate(detector, source, name="chess")
    assert metrics["protocol"]["test_images_already_used"] == ""
    calibration = detector.record["calibration"]
    more = {
        "training": {"learnt_from": [digest(again.load())]},
        "calibration": {
            "calibration": calibration
            | {"digests": [digest(again.load()), *calibration["digests"][1:]]}
        },
    }[used_for]
    detector = detector.with_record(more)
    metrics, report = evaluation.evaluate(detector, source, name="chess")
    assert metrics["protocol"]["test_images_already_used"] == report.messages[0]
    assert report.messages[0].startswith("1 of 8 test images were used")
    assert again.name in report.messages[0]


def test_a_run_ends_in_a_model_that_decides_as_its_detector(run):
    assert json.loads((run / "model.parity.json").read_text())["passed"]
    image = synthetic_source("chess", side=128).test[0].load()
    ours, theirs = (recon_ad.load(run / name)(image) for name in ("detector", "model.onnx"))
    np.testing.assert_allclose(theirs.anomaly_map, ours.anomaly_map, rtol=1e-4, atol=1e-6)


def test_evaluating_on_a_folder_gives_what_the_source_gave(copy, metrics, chess_folder, caplog):
    caplog.set_level(logging.INFO, "recon_ad")
    again = evaluation.evaluate_workdir(copy, data=str(chess_folder), export=False)
    for key in ("pixel_auroc", "image_auroc"):
        assert again[key] == metrics[key]
    told = caplog.messages[-1]
    assert told.startswith("written to") and told.endswith(
        ": report.html, metrics.json, scores.csv"
    )
    before = (copy / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="has no test images"):
        evaluation.evaluate_workdir(copy, data=str(chess_folder / "test/good"))
    assert (copy / "metrics.json").read_bytes() == before


def test_evaluation_names_what_it_wrote_and_why_there_is_no_model(copy, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "recon_ad")
    monkeypatch.setattr(evaluation, "export_run", lambda *_: "")  # as if it had written these
    evaluation.evaluate_workdir(copy)
    models = "model.onnx, model.parity.json, model.tail.onnx"
    assert caplog.messages[-1].endswith(f": report.html, metrics.json, scores.csv, {models}")
    monkeypatch.undo()
    monkeypatch.setattr(onnx_export, "missing", lambda: ["jax2onnx"])
    missing = evaluation.evaluate_workdir(copy)["missing"]["model.onnx"]
    assert "jax2onnx" in missing and "pip install" in missing


@pytest.fixture(scope="module")
def on_regions(chess_folder, tmp_path_factory):
    """Return images with a region of interest and a broken test image, and a run on them."""
    folder = tmp_path_factory.mktemp("regions")
    data = shutil.copytree(chess_folder, folder / "data")
    write_region(data / "roi.png", 64)
    (data / "test/good/broken.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.png"):
        trainer.train(on_folder(data), folder / "raise")
    trainer.train(on_folder(data, **{"data.on_error": "skip"}), folder / "run")
    evaluation.evaluate_workdir(folder / "run", export=False)
    return data, folder / "run"


def test_regions_of_interest_hold_from_training_to_prediction(on_regions, tmp_path):
    """Ensure that pixels outside the region do not affect thresholds, metrics or predictions."""
    data, run = shutil.copytree(on_regions[0], tmp_path / "data"), on_regions[1]
    assert load(run / "detector").record["calibration"]["regions_of_interest"]
    inside = json.loads((run / "metrics.json").read_text())
    assert inside["protocol"]["test_images"] == 8
    assert any("broken.png" in note for note in inside["protocol"]["notes"])
    scores = {row["path"].split("/")[-1]: row for row in table(run / "scores.csv")[:4]}
    for file in data.glob("test/*/0*.png"):
        pixels = np.asarray(Image.open(file)).copy()
        pixels[96:] = 255 - pixels[96:]  # beyond the reach of a tile that touches the region
        Image.fromarray(pixels).save(file)
    shutil.copytree(run / "detector", tmp_path / "run/detector")
    again = evaluation.evaluate_workdir(tmp_path / "run", data=str(data), export=False)
    for key in ("image_auroc", "pixel_auroc", "aupro_30", "iou_calibrated", "patch_auroc"):
        assert again[key] == inside[key]
    given = ["--detector", run / "detector", "--input", data / "test/elastic", "--output"]
    given += [tmp_path / "out", "--roi"]
    done = run_command("predict", *given, data / "roi.png")
    assert done.returncode == 0, done.stderr
    rows = table(tmp_path / "out/predictions.csv")
    assert len(rows) == 4
    for row in rows:
        before = scores[row["path"]]
        assert before["defect"] == "elastic"
        assert float(row["score"]) == pytest.approx(float(before["score"]), rel=1e-6)
    assert "region of interest not found" in refusal("predict", *given, data / "gone.png")


def test_good_images_alone_give_nulls_with_reasons_after_a_mistake_in_the_regions(
    chess_folder, tmp_path
):
    data, run = shutil.copytree(chess_folder / "train/good", tmp_path / "data"), tmp_path / "run"
    write_region(data / "roi.png", 40, 40)
    with pytest.raises(UserError, match=r"smaller config\.data\.patch_size"):
        trainer.train(on_folder(data, **{"holdout.few": 1, "data.patch_size": 64}), run)
    assert trainer.train(on_folder(data, **{"holdout.few": 1}), run).thresholds.image > 0
    metrics = evaluation.evaluate_workdir(run, export=False)
    for key in (key for key, figure in FIGURES.items() if figure.group != "speed"):
        assert metrics[key] is None and "no test images" in metrics["missing"][key]
    assert metrics["train_seconds"] > 0
    assert (run / "report.html").stat().st_size > 10_000


def test_a_workdir_without_a_detector_has_to_be_trained_first(tmp_path):
    assert "train one first" in refusal("evaluate", "--workdir", tmp_path)
