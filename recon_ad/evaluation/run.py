"""Evaluation of a run on its test images: metrics.json, report.html, scores.csv, model.onnx."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recon_ad.data import Source
from recon_ad.data.source import by_category, fingerprint
from recon_ad.detector.certificate import CARD, link_report, section_of
from recon_ad.detector.classifier import without_labelled
from recon_ad.detector.directory import load
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.onnx_export import export_run
from recon_ad.errors import UserError
from recon_ad.evaluation.content import draw_curves, scores_csv, training_message, training_rows
from recon_ad.evaluation.images import (
    TEST_IMAGES,
    data_name,
    open_images,
    without_unregistered,
)
from recon_ad.evaluation.judge import Clock, judge
from recon_ad.evaluation.no_model import NoModel, no_model_row
from recon_ad.evaluation.panels import choose_panels, slider_scale
from recon_ad.evaluation.protocol import already_used, protocol
from recon_ad.metrics.figures import FIGURES
from recon_ad.metrics.promise import decisions, promised_rates
from recon_ad.metrics.summary import ImageResult, Pooled, pool, summarize
from recon_ad.report import Report, Scale, Score, write_report
from recon_ad.runtime import files
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime.stopping import Stop
from recon_ad.runtime.waiting import disk_is_full
from recon_ad.runtime.writer import read_log

UNSURE = 5e-5  # least bound of a figure that is logged: half of the figure's last digit

logger = logging.getLogger("recon_ad")


class Results(NamedTuple):
    """Results of a detector on test images.

    Attributes:
      parts: Results of each image, and all pixels, by category.
      baselines: No-model row and the reasons for its missing figures, by category.
      lost: Names of images in which the part was not found.
      images: Number of images that were timed.
      seconds: Time that these images took, one after the other.
    """

    parts: dict[str, tuple[list[ImageResult], Pooled]]
    baselines: dict[str, tuple[dict[str, Any], dict[str, str]]]
    lost: list[str]
    images: int
    seconds: float


def judge_source(detector: Detector, source: Source, *, stop: Stop | None = None) -> Results:
    """Inspect the test images, each host its share; all hosts must call this together.

    Images with which the detector's classifier was trained are left out. If any host's `stop` is
    requested, all hosts end between two images with `stopping.REQUEUE`.
    """
    stop = stop or Stop()
    source = without_labelled(source, detector.classifier)
    results, clock = Results({}, {}, [], 0, 0.0), Clock()
    if not source.test:
        return results
    train, test = by_category(source.train), by_category(source.test)
    # A category without test images counts too: it has no figures, so the mean has none either.
    for category in dict.fromkeys([*train, *test]):
        baseline = NoModel(
            train[category], through=functools.partial(meshes.in_lockstep, stop=stop)
        )
        judged, pixels, names = judge(
            detector.of_known(category),
            test.get(category, []),
            baseline=baseline,
            clock=clock,
            stop=stop,
        )
        results.parts[category] = (judged, pixels)
        results.lost.extend(names)
        results.baselines[category] = baseline.figures()
        del baseline  # the mean image, which may be large
    images, seconds = zip(*meshes.all_gather((clock.images, clock.seconds)), strict=True)
    return results._replace(images=sum(images), seconds=sum(seconds))


def evaluate(
    detector: Detector,
    source: Source,
    *,
    name: str,
    log: Sequence[dict[str, Any]] = (),
    results: Results | None = None,
) -> tuple[dict[str, Any], Report]:
    """Return the content of metrics.json, and the report.

    Args:
      detector: Calibrated detector.
      source: Test images. Without any, figures are None and the report shows training images only.
        Images with which the detector's classifier was trained are left out.
      name: Name of the data, for headings.
      log: Log of the training run, for its loss curve.
      results: Results of `judge_source` for these images. None inspects them here.

    Raises:
      UserError: If the detector's record lacks an entry that the report needs.
    """
    absent = [k for k in ("training", "calibration", "pretrained") if k not in detector.record]
    if absent:
        raise UserError(
            f"the detector's record, detector.json, has no {' and no '.join(absent)}, which the "
            "report needs; copy the detector again or train it again."
        )
    results = judge_source(detector, source) if results is None else results
    calibration = detector.record["calibration"]
    given, source = source.test, without_labelled(source, detector.classifier)
    missing: dict[str, str] = {}
    metrics: dict[str, Any] = {"intervals": {}, "bounds": {}, "per_defect": {}, "truths": {}}
    judged: list[ImageResult] = []
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    no_model: dict[str, Any] = {}
    patches: dict[str, np.ndarray] | None = None
    scale: Scale | None = None
    broken = ""
    if source.test:
        source = without_unregistered(source, results.lost)
        judged = [j for part, _ in results.parts.values() for j in part]
        pooled = pool([pixels for _, pixels in results.parts.values()])
        metrics |= summarize(
            results.parts, seed=detector.config.seed, resamples=detector.config.evaluation.bootstrap
        )
        missing |= metrics.pop("missing")
        broken = _add_decisions(metrics, missing, results, calibration)
        no_model, reasons = no_model_row(results.baselines, metrics.get("per_category", {}))
        missing |= reasons
        curves = draw_curves(judged, pooled)
        patches = pooled.patches._asdict()
        scale = slider_scale(detector, pooled)
    training = detector.record["training"]
    metrics["train_seconds"] = training["train_seconds"]
    metrics["patches_per_second"] = training["patches_per_second"]
    if training["patches_per_second"] is None:
        missing["patches_per_second"] = "the training was too short to measure without compilation"
    if results.images:
        metrics["images_per_second"] = results.images / results.seconds
    elif source.test:
        metrics["images_per_second"] = None
        missing["images_per_second"] = "every call compiled, as no two test images share a size"
    for key in FIGURES:
        if key not in metrics:
            metrics[key] = None
            missing[key] = (
                "all test images were labelled for the classifier"
                if given and not source.test
                else "no test images"
            )
    fine, of_training = training_message(training["message"], metrics)
    used = already_used([j.name for j in judged if j.known], of=len(judged))
    messages = [broken, used, calibration["message"], *source.notes]
    messages.insert(len(messages) if fine else 2, of_training)
    ordered = {key: metrics.pop(key) for key in FIGURES}
    metrics = (
        ordered
        | metrics
        | {
            "no_model": no_model,
            "missing": missing,
            "protocol": {
                "evaluated_on": name,
                "not_registered": results.lost,
                "test_images_already_used": used,
                TEST_IMAGES: fingerprint(given) if given else None,
                **protocol(detector, source),
            },
        }
    )
    report = Report(
        title=f"{detector.config.method.name} on {name}",
        metrics=metrics,
        threshold=None if len(detector.categories) > 1 else detector.thresholds.image,
        messages=[m for m in messages if m],
        curves=curves,
        scores=[Score(j.name, j.defect, j.score, j.label) for j in judged],
        training=training_rows(log),
        panels=choose_panels(
            detector, source, judged, limit=detector.config.evaluation.panels, scale=scale
        ),
        patches=patches,
    )
    return metrics, report


def _add_decisions(
    metrics: dict[str, Any], missing: dict[str, str], results: Results, calibration: dict[str, Any]
) -> str:
    """Add the decisions on the test images to the metrics, and return the warning to show first.

    The warning is "" unless the threshold's promised false-positive rate is exceeded.
    """
    parts = {name: rows for name, (rows, _) in results.parts.items()}
    promised = promised_rates(calibration, list(parts))
    outcome = decisions(parts, promised)
    metrics["decisions"] = outcome.described()
    metrics["image_fpr_promised"] = outcome.promised
    if outcome.promised is None:
        missing["image_fpr_promised"] = "the image threshold is given in the config"
    for name, figures in metrics.get("per_category", {}).items():
        if not parts[name]:
            continue
        each = decisions({name: parts[name]}, promised)
        figures["image_fpr_promised"] = each.promised
        figures["promise_broken"] = each.broken
    return outcome.warning()


def evaluate_workdir(
    workdir: Path,
    *,
    detector: Detector | None = None,
    source: Source | None = None,
    data: str = "",
    export: bool = True,
) -> dict[str, Any]:
    """Evaluate the detector of a run and write its files.

    Several hosts must call this together: each inspects its share of the images, and the first
    host writes the files.

    Args:
      workdir: Folder of the run.
      detector: The run's detector, if it is already open.
      source: The run's images, if they are already open.
      data: Another folder in the MVTec layout whose test images to use, or a folder that holds the
        run's several categories. "" uses the run's own images.
      export: True to export the detector as model.onnx too, if the packages are installed.

    Returns:
      The content of metrics.json; empty on all hosts but the first.

    Raises:
      UserError: If no training has finished, or the images are not usable.
    """
    if not (workdir / "detector").is_dir():
        raise UserError(
            f"{workdir} has no detector; train one first: "
            f"python -m recon_ad.train --config … --workdir {workdir}."
        )
    with meshes.stopping_together() as stop:
        detector = detector or load(workdir / "detector")
        config = detector.config
        if data or source is None:
            config, source = open_images(detector, data)
        name = data_name(config)
        results = judge_source(detector, source, stop=stop)
        meshes.stop_together(stop)
        metrics: dict[str, Any] = {}

        def write() -> None:
            metrics.update(_written(detector, source, workdir, results, name, export=export))

        if not meshes.is_first_host():
            results.parts.clear()
        meshes.on_first_host(write)
    return metrics


def _written(
    detector: Detector, source: Source, workdir: Path, results: Results, name: str, *, export: bool
) -> dict[str, Any]:
    """Compute the figures and write the files."""
    metrics, report = evaluate(
        detector, source, name=name, log=read_log(workdir / "log.jsonl"), results=results
    )
    thresholds = {
        row.name: detector.of_known(category).thresholds.image
        for category, (rows, _) in results.parts.items()
        for row in rows
    }
    results.parts.clear()  # the export needs the memory
    files.write_text(workdir / "scores.csv", scores_csv(report.scores, thresholds))
    write_report(workdir / "report.html", report)
    written = ["report.html", "metrics.json", "scores.csv"]
    if export:
        logger.info("exporting model.onnx and checking it against the detector")
        try:
            reason = export_run(detector, source, workdir)
        except Exception as error:  # a failed export must not cost the figures
            if disk_is_full(error):
                raise
            logger.exception("model.onnx was not written")
            reason = f"the export failed: {type(error).__name__}: {error}"
        if reason:
            logger.warning("model.onnx: %s", reason)
            metrics["missing"]["model.onnx"] = reason
        else:
            written += sorted(file.name for file in workdir.glob("model.*"))
    card = workdir / "detector" / CARD
    files.write_text(card, detector.model_card(metrics) + section_of(card))
    link_report(card.parent)
    # Written last, so that a run with metrics.json has the other files too.
    files.write_json(workdir / "metrics.json", metrics)
    if "decisions" in metrics:
        logger.info("%s", metrics["decisions"]["sentence"])
        if report.messages and metrics["decisions"]["promise_broken"]:
            logger.warning("%s", report.messages[0])
    if used := metrics["protocol"]["test_images_already_used"]:
        logger.warning("%s", used)
    for key in ("image_auroc", "pixel_auroc", "aupro_30", "iou_max_oracle"):
        if metrics[key] is not None:
            bound = metrics["bounds"].get(key, 0.0)
            sure = f" (± {bound:.2g} from binning the scores)" if bound > UNSURE else ""
            logger.info("%s %.4f%s", key, metrics[key], sure)
    logger.info("written to %s: %s", workdir, ", ".join(written))
    return metrics
