"""Evaluates a trained run on its test images: metrics.json, report.html, scores.csv, model.onnx.

python -m recon_ad.evaluate --workdir D [--data PATH] [--export=off]
"""

import csv
import functools
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from recon_ad import cli
from recon_ad.baselines import NoModel
from recon_ad.data import Record, Source
from recon_ad.data.build import build_source
from recon_ad.data.source import spread
from recon_ad.detector import Detector, load
from recon_ad.errors import UserError
from recon_ad.export import export_run
from recon_ad.inference import Prediction
from recon_ad.judging import Clock, judge, truth_of
from recon_ad.metrics import (
    levels,
    merge,
    pro_curve,
    roc_curve,
    upper_quantile,
)
from recon_ad.metrics.ranking import UndefinedMetric
from recon_ad.metrics.summary import Judged, Pooled, summarize
from recon_ad.report import (
    Panel,
    Report,
    Scale,
    Score,
    SmallPanel,
    pixel_scale,
    shrink_panel,
    write_report,
)
from recon_ad.runtime import files, provenance
from recon_ad.runtime.compilation import keep_compiled
from recon_ad.runtime.writer import read_log

# In this order in metrics.json.
FIGURES = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "aupro_30",
    "iou_max_oracle",
    "recall_at_iou_max_oracle",
    "iou_calibrated",
    "iou_mean_calibrated",
    "image_fpr_calibrated",
    "image_tpr_calibrated",
    "patch_auroc",
    "train_seconds",
    "patches_per_second",
    "images_per_second",
)

# Training images that are scored for the report, spread evenly over all of them.
LOOKED_AT = 100

logger = logging.getLogger("recon_ad")


def whole_panel(
    detector: Detector,
    image: np.ndarray,
    prediction: Prediction,
    *,
    name: str,
    defect: str,
    truth: np.ndarray | None,
) -> Panel:
    """What a report shows of an image, at its full size."""
    return Panel(
        name=name,
        defect=defect,
        score=float(prediction.score),
        threshold=detector.thresholds.image,
        image=image,
        reconstruction=prediction.reconstruction,
        residual=prediction.anomaly_map,
        truth=truth,
        mask=prediction.mask,
    )


def panel(detector: Detector, record: Record, *, scale: Scale | None) -> SmallPanel:
    """Everything about one image, computed anew, for the report; `scale` is its slider's."""
    image = record.load()
    roi = record.load_roi() if record.load_roi else None
    prediction = detector.predict(image, roi=roi)
    anomaly_map = prediction.anomaly_map

    def mask_at(threshold: float) -> np.ndarray:
        above = anomaly_map > np.float32(threshold)
        inside = above if roi is None else above & roi
        return detector.clean(inside)

    truth = truth_of(record, image.shape[:2])
    whole = whole_panel(
        detector, image, prediction, name=record.name, defect=record.defect, truth=truth
    )
    return shrink_panel(whole, scale=scale, mask_at=mask_at)


def slider_scale(detector: Detector, pooled: Pooled) -> Scale | None:
    """The pixel thresholds that the report offers; None where no truth is known."""
    pixels = merge(pooled.good, *pooled.defects.values())
    if not len(pixels.key):
        return None
    return pixel_scale(detector.thresholds.pixel, functools.partial(upper_quantile, pixels))


def choose_panels(
    detector: Detector,
    source: Source,
    judged: Sequence[Judged],
    *,
    limit: int,
    scale: Scale | None,
) -> dict[str, Sequence[SmallPanel] | str]:
    """Which images the report shows: the worst mistakes, typical cases, odd training images."""
    ranked = sorted(
        zip(source.test, judged, strict=True), key=lambda pair: pair[1].score, reverse=True
    )
    alarms = [r for r, j in ranked if not j.anomalous and j.label][:limit]
    misses = [r for r, j in reversed(ranked) if j.anomalous and not j.label][:limit]
    typical = []
    for defect in dict.fromkeys(r.defect for r in source.test):
        of_type = [r for r, _ in ranked if r.defect == defect]
        typical.append(of_type[len(of_type) // 2])
    looked_at = spread(source.train, LOOKED_AT)
    scored = []
    for i, record in enumerate(looked_at):
        roi = record.load_roi() if record.load_roi else None
        score = detector.predict(record.load(), roi=roi, reconstruct=False).score
        scored.append((float(score), i))
    odd = [looked_at[i] for _, i in sorted(scored, reverse=True)[: max(1, limit // 2)]]
    of = "" if len(looked_at) == len(source.train) else f" of {len(looked_at)} spread over all"

    def drawn(records: Sequence[Record], otherwise: str) -> Sequence[SmallPanel] | str:
        return [panel(detector, r, scale=scale) for r in records] or otherwise

    return {
        "Worst false alarms": drawn(alarms, "None: no good test image scores above the threshold."),
        "Worst misses": drawn(misses, "None: every defective test image scores above it."),
        "Typical cases (median score of each type)": drawn(
            typical[:limit], "None: there are no test images."
        ),
        f"Most anomalous training images{of}": drawn(odd, ""),
    }


def protocol(detector: Detector, source: Source) -> dict[str, Any]:
    """How the figures came about: all that one needs to compare them with others."""
    config = detector.config
    geometry = detector.method.geometry
    return {
        "method": config.method.name,
        "method_settings": dict(detector.method.protocol),
        "residual": {name: weight for name, weight in config.residual.items() if weight},
        "resolution": f"resized to {geometry.resize}" if geometry.resize else "native",
        "crop": list(geometry.tile),
        "stride": list(geometry.stride),
        "tile_weights": geometry.weights,
        "border": border_rule(config),
        "smoothing_sigma_px": config.inference.sigma,
        "score_rule": f"{config.inference.score} of the smoothed map",
        "aupro_fpr_limit": 0.3,
        "pixel_metrics": "raw scores, streamed histogram; see bounds",
        "checkpoint": f"{config.train.select} (by held-out loss where best), never by test",
        "good_images_not_for_testing": len(source.train),
        "test_images": len(source.test),
        "seed": config.seed,
        "bootstrap": f"{config.evaluation.bootstrap} resamples over images, stratified",
        "notes": list(source.notes),
        "training": detector.record["training"],
        "calibration": {k: v for k, v in detector.record["calibration"].items() if k != "scores"},
        "config": json.loads(config.to_json()),
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
    }


def border_rule(config: ConfigDict) -> str:
    """How the image's border is treated."""
    rule = "tiles end with the image; smoothing is normalised over the image's pixels"
    if config.inference.border:
        rule += (
            f"; residuals within {config.inference.border} px of it are multiplied by "
            f"{config.inference.border_weight}"
        )
    return rule


def evaluate(
    detector: Detector, source: Source, *, name: str, log: Sequence[dict[str, Any]] = ()
) -> tuple[dict[str, Any], Report]:
    """The content of metrics.json, and the report.

    Args:
      detector: calibrated.
      source: its test images; without any, figures are None and the report shows training images.
      name: of the data, for headings.
      log: of the training run, for its curve.
    """
    clock = Clock()
    missing: dict[str, str] = {}
    metrics: dict[str, Any] = {"intervals": {}, "bounds": {}, "per_defect": {}, "truths": {}}
    judged: list[Judged] = []
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    no_model: dict[str, Any] = {}
    patches: dict[str, np.ndarray] | None = None
    scale: Scale | None = None
    if source.test:
        baseline = NoModel(source.train)
        judged, pooled = judge(detector, source.test, baseline=baseline, clock=clock)
        metrics |= summarize(
            judged,
            pooled,
            seed=detector.config.seed,
            resamples=detector.config.evaluation.bootstrap,
        )
        no_model, no_model_missing = baseline.figures()
        del baseline  # the mean image, which may be large
        missing |= metrics.pop("missing") | no_model_missing
        curves = draw_curves(judged, pooled)
        patches = pooled.patches._asdict()
        scale = slider_scale(detector, pooled)
    training = detector.record["training"]
    metrics["train_seconds"] = training["train_seconds"]
    metrics["patches_per_second"] = training["patches_per_second"]
    if training["patches_per_second"] is None:
        missing["patches_per_second"] = "training was too short to measure it without compilation"
    metrics["images_per_second"] = clock.images / clock.seconds if clock.images else None
    if not clock.images:
        missing["images_per_second"] = "every call compiled: no two test images share a size"
    for key in FIGURES:
        if key not in metrics:
            metrics[key] = None
            missing[key] = "there are no test images"
    messages = [training["message"], detector.record["calibration"]["message"], *source.notes]
    ordered = {key: metrics.pop(key) for key in FIGURES}
    metrics = (
        ordered
        | metrics
        | {
            "no_model": no_model,
            "missing": missing,
            "protocol": {"evaluated_on": name} | protocol(detector, source),
        }
    )
    report = Report(
        title=f"{detector.config.method.name} on {name}",
        metrics=metrics,
        threshold=detector.thresholds.image,
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


def described(config: ConfigDict) -> str:
    """The data's name, for headings."""
    data = config.data
    if data.source in ("synthetic", "csv"):
        return data.name
    if data.source == "tfds":
        return " ".join(filter(None, (data.name, data.category)))
    return " ".join(filter(None, (Path(data.path).name, data.category)))


def draw_curves(
    judged: Sequence[Judged], pooled: Pooled
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The curves that the data can give."""
    everything = merge(pooled.good, *pooled.defects.values())
    counts = levels(
        np.array([j.score for j in judged]), np.array([j.anomalous for j in judged], bool)
    )
    curves = {}
    for name, draw in {
        "roc": lambda: roc_curve(counts),
        "pixel_roc": lambda: roc_curve(everything.levels()),
        "pro": lambda: pro_curve(everything),
    }.items():
        try:
            curves[name] = draw()
        except UndefinedMetric:  # its figure is null, with the reason, in the same report
            continue
    return curves


def training_rows(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Losses by step, train and held-out."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in log:
        row = rows.setdefault(
            entry["step"], {"step": entry["step"], "train_loss": None, "heldout_loss": None}
        )
        row |= {k: entry[k] for k in ("train_loss", "heldout_loss") if k in entry}
    return list(rows.values())


def scores_csv(report: Report) -> str:
    """One line for each test image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "defect", "score", "threshold", "anomalous"])
    for row in report.scores:
        name, defect, score, anomalous = row
        writer.writerow([name, defect, repr(score), repr(report.threshold), int(anomalous)])
    return text.getvalue()


def evaluate_workdir(workdir: Path, *, data: str = "", export: bool = True) -> dict[str, Any]:
    """Evaluates the detector of a run and writes its files.

    Args:
      workdir: of the run.
      data: another folder in the MVTec layout, whose test images to use; else the run's own.
      export: whether the detector becomes a model.onnx too, where the packages for it are.

    Raises:
      UserError: there is no finished training, or the images are not usable.
    """
    if not (workdir / "detector").is_dir():
        raise UserError(
            f"{workdir} has no detector: train first, "
            f"python -m recon_ad.train --config … --workdir {workdir}."
        )
    detector = load(workdir / "detector")
    config = detector.config.copy_and_resolve_references()
    if data:
        config.data.source, config.data.path, config.data.category = "folder", data, ""
        config.data.channels = detector.channels
    source = build_source(config)
    if data and not source.test:
        raise UserError(
            f"{data} has no test images: give a folder with test/good or test/<defect> beside "
            "train/good."
        )
    for note in source.notes if data else ():  # those of the run's own images were told in training
        logger.warning("%s", note)
    metrics, report = evaluate(
        detector, source, name=described(config), log=read_log(workdir / "log.jsonl")
    )
    files.write_text(workdir / "scores.csv", scores_csv(report))
    write_report(workdir / "report.html", report)
    if export and (reason := export_run(detector, source, workdir)):
        logger.warning("model.onnx: %s", reason)
        metrics["missing"]["model.onnx"] = reason
    # Last: a run with metrics.json has the other files too.
    files.write_json(workdir / "metrics.json", metrics)
    for key in ("image_auroc", "pixel_auroc", "aupro_30", "iou_max_oracle"):
        if metrics[key] is not None:
            logger.info("%s %.4f", key, metrics[key])
    logger.info("report: %s", workdir / "report.html")
    return metrics


def main() -> None:
    """The command."""
    keep_compiled()
    export = _EXPORT.value == "auto"
    evaluate_workdir(Path(_WORKDIR.value), data=_DATA.value, export=export)


if __name__ == "__main__":
    _WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.", required=True)
    _DATA = flags.DEFINE_string("data", "", "Folder to evaluate on; else the run's own.")
    _EXPORT = flags.DEFINE_enum("export", "auto", ["auto", "off"], "Whether to write model.onnx.")
    cli.run(main)
