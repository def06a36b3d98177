"""evaluate, predict, calibrate, fit and load as a user calls them."""

import json
import logging
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score
from small_runs import by_command, small_config, table

import recon_ad
from recon_ad import evaluate, export
from recon_ad import train as trainer
from recon_ad.data import Record, synthetic_source
from recon_ad.data.decode import decode_image
from recon_ad.data.source import KNOWN, digest, known_again
from recon_ad.data.synthetic import write_folder
from recon_ad.detector import load
from recon_ad.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The chess set as a folder."""
    path = tmp_path_factory.mktemp("chess")
    write_folder(synthetic_source("chess"), path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on chess."""
    workdir = tmp_path_factory.mktemp("run")
    config = small_config(**{"train.steps": 20, "train.eval_every": 10})
    trainer.train(config, workdir)
    evaluate.evaluate_workdir(workdir)
    return workdir


def test_metrics_have_every_key_and_are_those_of_the_scores_and_maps(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert list(metrics)[: len(evaluate.FIGURES)] == list(evaluate.FIGURES)
    assert not metrics["missing"]
    assert all(isinstance(metrics[key], float) for key in evaluate.FIGURES)
    detector, source = load(run / "detector"), synthetic_source("chess")
    predictions = [detector.predict(r.load()) for r in source.test]
    truth = [r.anomalous for r in source.test]
    masks = [r.load_mask() if r.anomalous else np.zeros((512, 512), bool) for r in source.test]
    scores = [float(p.score) for p in predictions]
    assert metrics["image_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    everything = np.concatenate([p.anomaly_map.ravel() for p in predictions])
    expected = roc_auc_score(np.concatenate([m.ravel() for m in masks]), everything)
    assert abs(metrics["pixel_auroc"] - expected) <= metrics["bounds"]["pixel_auroc"] + 1e-9
    overlap = [
        ((p.mask & m).sum(), (p.mask | m).sum()) for p, m in zip(predictions, masks, strict=True)
    ]
    assert metrics["iou_calibrated"] == pytest.approx(
        sum(a for a, _ in overlap) / sum(b for _, b in overlap)
    )
    per_image = [a / b for (a, b), t in zip(overlap, truth, strict=True) if t]
    assert metrics["iou_mean_calibrated"] == pytest.approx(np.mean(per_image))
    labels = np.array([p.label for p in predictions])
    truth = np.array(truth)
    assert metrics["image_fpr_calibrated"] == labels[~truth].mean()
    assert metrics["image_tpr_calibrated"] == labels[truth].mean()


def test_metrics_tell_intervals_truths_defects_baselines_and_protocol(run):
    metrics = json.loads((run / "metrics.json").read_text())
    low, high = metrics["intervals"]["pixel_auroc"]
    assert low <= metrics["pixel_auroc"] <= high
    assert metrics["truths"]["A"]["pixel_auroc"] != metrics["pixel_auroc"]
    assert metrics["per_defect"]["elastic"]["n"] == 4
    assert 0.5 <= metrics["no_model"]["mean_brightness"]["image_auroc"] <= 1
    protocol = metrics["protocol"]
    assert protocol["crop"] == [32, 32]
    assert protocol["calibration"]["images"] == 4
    assert protocol["versions"]["jax"]


def test_a_run_ends_in_a_model_that_decides_as_its_detector(run, monkeypatch):
    assert json.loads((run / "model.parity.json").read_text())["passed"]
    image = synthetic_source("chess").test[0].load()
    ours, theirs = (recon_ad.load(run / name)(image) for name in ("detector", "model.onnx"))
    np.testing.assert_allclose(theirs.anomaly_map, ours.anomaly_map, rtol=1e-4, atol=1e-6)
    before = (run / "metrics.json").read_bytes()
    monkeypatch.setattr(export, "missing", lambda: ["jax2onnx"])
    metrics = evaluate.evaluate_workdir(run)
    (run / "metrics.json").write_bytes(before)
    assert "jax2onnx" in metrics["missing"]["model.onnx"]
    assert "pip install" in metrics["missing"]["model.onnx"]


def test_scores_csv_has_a_line_for_each_test_image(run):
    rows = table(run / "scores.csv")
    assert len(rows) == 8
    metrics = json.loads((run / "metrics.json").read_text())
    good = [r for r in rows if r["defect"] == "good"]
    rate = np.mean([r["anomalous"] == "1" for r in good])
    assert rate == metrics["image_fpr_calibrated"]
    assert all((float(r["score"]) > float(r["threshold"])) == (r["anomalous"] == "1") for r in rows)


def test_the_report_shows_the_same_figures(run):
    page = (run / "report.html").read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    assert f"{metrics['pixel_auroc']:.3f}" in page
    assert "Worst misses" in page


def test_evaluating_on_a_folder_gives_what_the_source_gave(run, folder):
    before = json.loads((run / "metrics.json").read_text())
    metrics = evaluate.evaluate_workdir(run, data=str(folder), export=False)
    assert metrics["pixel_auroc"] == before["pixel_auroc"]
    assert metrics["image_auroc"] == before["image_auroc"]
    evaluate.evaluate_workdir(run)


def test_only_good_images_give_a_report_and_nulls_with_reasons(folder, tmp_path):
    config = small_config("configs/folder.py:smoke", **{"data.source": "folder"})
    config.data.path = str(folder / "train" / "good")
    trainer.train(config, tmp_path)
    metrics = evaluate.evaluate_workdir(tmp_path, export=False)
    for key in evaluate.FIGURES[:12]:
        assert metrics[key] is None
        assert "no test images" in metrics["missing"][key]
    assert metrics["train_seconds"] > 0
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_broken_test_image_stops_by_name_or_is_left_out_with_a_note(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "data")
    (tmp_path / "data" / "test" / "good" / "broken.png").write_bytes(b"no image")
    config = small_config("configs/folder.py:smoke", **{"data.source": "folder"})
    config.data.path = str(tmp_path / "data")
    with pytest.raises(UserError, match=r"broken\.png"):
        trainer.train(config, tmp_path / "raise")
    config.data.on_error = "skip"
    trainer.train(config, tmp_path / "skip")
    metrics = evaluate.evaluate_workdir(tmp_path / "skip", export=False)
    assert metrics["protocol"]["test_images"] == 8
    assert any("broken.png" in note for note in metrics["protocol"]["notes"])


def test_a_workdir_without_a_detector_is_told_to_train(tmp_path):
    result = by_command("evaluate", "--workdir", tmp_path)
    assert result.returncode == 2
    assert "train first" in result.stderr
    assert "Traceback" not in result.stderr


def test_predict_judges_a_folder_with_a_broken_file(run, folder, tmp_path):
    images = tmp_path / "in"
    (images / "sub").mkdir(parents=True)
    shutil.copy(folder / "test" / "elastic" / "000.png", images / "a.png")
    good = decode_image(folder / "test" / "good" / "000.png", channels=3)
    Image.fromarray(good).save(images / "sub" / "b.jpg")
    (images / "broken.png").write_bytes(b"no image")
    (images / ".hidden.png").write_bytes(b"no image")
    result = by_command(
        "predict", "--detector", run / "detector", "--input", images, "--output", tmp_path / "out"
    )
    assert result.returncode == 3, result.stderr
    rows = {r["path"]: r for r in table(tmp_path / "out/predictions.csv")}
    assert sorted(rows) == ["a.png", "broken.png", "sub/b.jpg"]
    assert "broken.png" in rows["broken.png"]["error"]
    assert rows["broken.png"]["score"] == ""
    detector = load(run / "detector")
    expected = detector(decode_image(images / "a.png"))
    assert float(rows["a.png"]["score"]) == float(expected.score)
    assert rows["a.png"]["anomalous"] == ("true" if expected.label else "false")
    lines = [json.loads(x) for x in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == ["a.png", "broken.png", "sub/b.jpg"]
    overlay = decode_image(tmp_path / "out/overlays/sub/b.jpg.png")
    assert overlay.shape == (512, 512, 3)


def test_predict_judges_one_file_and_exits_with_zero(run, folder, tmp_path):
    file = folder / "test" / "good" / "001.png"
    result = by_command(
        "predict", "--detector", run / "detector", "--input", file, "--output", tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "overlays" / "001.png.png").is_file()


@pytest.mark.parametrize("given", ["missing", "empty"])
def test_predict_says_when_there_is_nothing_to_judge(run, tmp_path, given):
    (tmp_path / "empty").mkdir()
    result = by_command(
        "predict", "--detector", run / "detector", "--input", tmp_path / given,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 2
    assert str(tmp_path / given) in result.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--onnx", "model.txt"], "model.txt is no exported model"),
        (["--onnx", "."], ". is no exported model"),
        (["--detector", "{run}/detector", "--runtime", "openvino"], "--runtime is for --onnx"),
        (["--detector", "{run}/model.onnx"], "is not a detector directory"),
    ],
)
def test_predict_takes_either_form_of_a_detector_by_its_own_flag(run, tmp_path, flags, says):
    flags = [flag.replace("{run}", str(run)) for flag in flags]
    done = by_command("predict", *flags, "--input", run, "--output", tmp_path / "o")
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.nofield=3", "no field nofield. See configs/default.py"),
        ("--config.tran.steps=3", "no field tran. Did you mean train"),
        ("--config.train.step=3", "no field step. Did you mean steps"),
    ],
)
def test_a_field_that_no_config_has_is_told(tmp_path, flag, says):
    done = by_command("train", "--config", "configs/demo.py", "--workdir", tmp_path / "w", flag)
    assert done.returncode == 2
    assert says in done.stderr and len(done.stderr.splitlines()) == 1


def test_calibrate_sets_other_thresholds_without_training(run, folder, tmp_path):
    detector = load(run / "detector")
    detector.save(tmp_path / "d")
    result = by_command(
        "calibrate", "--detector", tmp_path / "d", "--normals", folder / "test" / "good",
        "--fpr", 0.25,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    again = load(tmp_path / "d")
    scores = sorted(float(detector.predict(r.load()).score) for r in synthetic_source("chess").test
                    if not r.anomalous)  # fmt: skip
    assert again.thresholds.image == pytest.approx(scores[3], rel=1e-6)  # ⌈5 · 0.75⌉ = 4th
    assert again.record["calibration"]["images"] == 4
    assert "trained on" not in result.stderr
    assert "evaluate and export it again" in result.stderr


def test_calibrating_with_images_that_were_trained_on_is_told(run, folder, tmp_path):
    shutil.copytree(run / "detector", tmp_path / "run/detector")
    (tmp_path / "run/metrics.json").write_text("{}")
    images = tmp_path / "images"
    shutil.copytree(folder / "test/good", images)
    for i, file in enumerate(sorted((folder / "train/good").iterdir())[:3]):
        shutil.copy(file, images / f"copy{i}.png")
    arguments = ("--detector", tmp_path / "run/detector", "--normals", images)
    done = by_command("calibrate", *arguments)
    assert done.returncode == 0, done.stderr
    # Of the four, the end of each was held out.
    assert "3 of the 7 images are some that the detector was trained on (copy0.png" in done.stderr
    assert f"as it was ({tmp_path / 'run/metrics.json'})" in done.stderr


def test_held_out_images_are_none_that_were_trained_on():
    records = [Record(f"{i}.png", lambda i=i: np.full((2, 2, 1), i, np.uint8)) for i in range(9)]
    known = known_again(records, kept=records[:8], but=records[:2])
    assert known == [digest(record.load()) for record in records[2:8]]
    assert len(known_again(records * 200, kept=records, but=())) == KNOWN == 1000
    images = [np.full((64, 64, 1), i, np.uint8) for i in range(12)]
    detector = recon_ad.fit(images, small_config("configs/folder.py:smoke"))
    assert len(detector.record["learnt_from"]) == 12 - detector.record["calibration"]["images"] < 12


def test_evaluation_names_what_it_wrote(run, caplog):
    with caplog.at_level(logging.INFO, "recon_ad"):
        evaluate.evaluate_workdir(run)
    (told,) = [message for message in caplog.messages if message.startswith("written to")]
    for name in ("report.html", "metrics.json", "scores.csv", "model.onnx", "model.tail.onnx"):
        assert (run / name).is_file() and name in told
    with caplog.at_level(logging.INFO, "recon_ad"):
        evaluate.evaluate_workdir(run, export=False)
    assert "model.onnx" not in caplog.messages[-1]


def test_fit_takes_arrays_or_a_folder_and_load_opens_what_it_made(folder, tmp_path):
    config = small_config("configs/folder.py:smoke")
    images = [r.load() for r in synthetic_source("chess").train]
    from_arrays = recon_ad.fit(images, config)
    from_folder = recon_ad.fit(folder, config, workdir=tmp_path)
    a, b = from_arrays(images[0]), from_folder(images[0])
    np.testing.assert_array_equal(a.anomaly_map, b.anomaly_map)
    c = recon_ad.load(tmp_path / "detector")(images[0])
    np.testing.assert_array_equal(b.anomaly_map, c.anomaly_map)
    assert config.data.source == "synthetic"  # not changed


def test_importing_the_package_imports_no_jax():
    code = "import sys, recon_ad; sys.exit('jax' in sys.modules or 'flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_names_of_the_package_are_attribute_errors():
    with pytest.raises(AttributeError, match="nothing"):
        recon_ad.nothing  # noqa: B018
    with pytest.raises(UserError):
        recon_ad.load("/no/such/detector")


def test_regions_of_interest_hold_from_training_to_prediction(tmp_path, folder):
    """Whatever is outside the region has no part in thresholds, metrics or predictions."""
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    roi = np.zeros((512, 512), np.uint8)
    roi[:256] = 255
    Image.fromarray(roi).save(data / "roi.png")
    config = small_config(
        "configs/folder.py:smoke", **{"data.source": "folder", "data.path": str(data)}
    )
    detector = trainer.train(config, tmp_path / "run")
    assert detector.record["calibration"]["regions_of_interest"]
    evaluate.evaluate_workdir(tmp_path / "run", export=False)
    inside = json.loads((tmp_path / "run/metrics.json").read_text())
    for file in data.glob("test/*/*.png"):
        pixels = np.asarray(Image.open(file)).copy()
        pixels[320:] = 255 - pixels[320:]  # beyond the reach of a tile that touches the region
        Image.fromarray(pixels).save(file)
    evaluate.evaluate_workdir(tmp_path / "run", export=False)
    again = json.loads((tmp_path / "run/metrics.json").read_text())
    for key in ("image_auroc", "pixel_auroc", "aupro_30", "iou_calibrated", "patch_auroc"):
        assert again[key] == inside[key]
    done = by_command(
        "predict", "--detector", tmp_path / "run/detector", "--input", data / "test/elastic",
        "--output", tmp_path / "out", "--roi", data / "roi.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {r["path"]: float(r["score"]) for r in table(tmp_path / "out/predictions.csv")}
    for row in table(tmp_path / "run/scores.csv"):
        if row["defect"] == "elastic":
            assert rows[row["path"].split("/")[-1]] == pytest.approx(float(row["score"]), rel=1e-6)
    done = by_command(
        "predict", "--detector", tmp_path / "run/detector", "--input", data / "test/elastic",
        "--output", tmp_path / "out", "--roi", data / "gone.png",
    )  # fmt: skip
    assert done.returncode == 2 and "no such region of interest" in done.stderr


def test_a_region_of_interest_that_fits_no_image_is_told(run, folder, tmp_path):
    (tmp_path / "roi").mkdir()
    done = by_command(
        "predict", "--detector", run / "detector", "--input", folder / "test/elastic",
        "--output", tmp_path / "out", "--roi", tmp_path / "roi",
    )  # fmt: skip
    assert done.returncode == 2 and "for none of the images" in done.stderr


def test_the_commands_own_output_is_not_judged(run, folder, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(folder / "test/elastic", images)
    for _ in range(2):
        arguments = ("--detector", run / "detector", "--input", images, "--output", images / "out")
        done = by_command("predict", *arguments)
        assert done.stdout.startswith("4 images: "), done.stdout


def test_a_name_that_is_no_utf8_is_written_escaped(run, folder, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    name = os.fsdecode(b"bad\xff.png")
    shutil.copy(next((folder / "test/elastic").iterdir()), images / name)
    arguments = ("--detector", run / "detector", "--input", images, "--output", tmp_path / "out")
    done = by_command("predict", *arguments)
    assert done.returncode == 0, done.stderr
    (line,) = (tmp_path / "out/predictions.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == name
    assert "bad\\udcff.png" in (tmp_path / "out/predictions.csv").read_text()


def test_a_terminal_that_cannot_show_a_name_is_told_it_escaped(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (tmp_path / "größe.png").write_bytes(b"no image")
    done = by_command(
        "predict", "--detector", run / "detector", "--input", tmp_path / "größe.png",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "1 not judged" in done.stdout and "gr\\xf6\\xdfe.png: " in done.stdout


def test_evaluating_on_a_folder_without_test_images_keeps_the_results(run, folder):
    before = (run / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="has no test images"):
        evaluate.evaluate_workdir(run, data=str(folder / "test/good"))
    assert (run / "metrics.json").read_bytes() == before


def test_a_mistake_in_the_regions_leaves_the_workdir_free(folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder / "train/good", data)
    roi = np.zeros((512, 512), np.uint8)
    roi[:40, :40] = 255
    Image.fromarray(roi).save(data / "roi.png")
    fields = {"data.source": "folder", "data.path": str(data), "holdout.few": 1}
    config = small_config("configs/folder.py:smoke", **fields, **{"data.patch_size": 64})
    with pytest.raises(UserError, match=r"smaller config\.data\.patch_size"):
        trainer.train(config, tmp_path / "run")
    config = small_config("configs/folder.py:smoke", **fields)
    assert trainer.train(config, tmp_path / "run").thresholds.image > 0
