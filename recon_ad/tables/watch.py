"""Measurement of a cell's training: its time, its quality at each held-out evaluation, best IoUs.

The measurements are stored in the run's folder, so that they survive a restart like the training.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from recon_ad.data import Source
from recon_ad.detector.jax_detector import Detector
from recon_ad.evaluation.judge import further_truths, truth_of
from recon_ad.methods.base import Variables
from recon_ad.metrics import PixelHistogram, empty_histogram, image_histogram, iou_max, merge
from recon_ad.runtime import files


def pooled_pixels(detector: Detector, source: Source) -> dict[str, PixelHistogram]:
    """Return the pixels of all test images with a truth, by the truth's name.

    The truth of the main figures comes first.
    """
    further = further_truths(source.test)
    first = detector.config.data.truth if further else "truth"
    truths = {first: None} | {name: name for name in further}
    pooled = {name: empty_histogram() for name in truths}
    for record in source.test:
        prediction = detector.predict(record.load(), reconstruct=False)
        for name, which in truths.items():
            mask = truth_of(record, prediction.anomaly_map.shape, further=which)
            if mask is not None:
                histogram = image_histogram(prediction.anomaly_map, mask)
                pooled[name] = merge(pooled[name], histogram)
    return pooled


def best_iou(detector: Detector, source: Source) -> dict[str, float]:
    """Return the best IoU (oracle) by the name of the truth."""
    pixels = pooled_pixels(detector, source)
    return {name: iou_max(histogram.levels())[0] for name, histogram in pixels.items()}


class Watcher:
    """Callback of `recon_ad.training.run.train` at each held-out evaluation.

    Args:
      path: File of the measurements.
      config: Config of the run.
      source: Images of the run.
      iou: Mark of the IoU. None measures only the time.
    """

    def __init__(self, path: Path, config: ConfigDict, source: Source, *, iou: float | None):
        self._path, self._config, self._source, self._mark = path, config, source, iou
        self._start = time.perf_counter()
        new = {"wall_seconds": 0.0, "seen": []}
        kept = json.loads(path.read_text()) if path.is_file() else new
        self._before: float = kept["wall_seconds"]
        self._seen: list[dict[str, Any]] = kept["seen"]

    def __call__(self, step: int, variables: Variables, train_seconds: float) -> None:
        """Measure the time and, if there is a mark, the best IoU."""
        row: dict[str, Any] = {"step": step, "train_seconds": train_seconds}
        if self._mark is not None:
            channels = self._source.train[0].load().shape[-1]
            detector = Detector(self._config, channels=channels, variables=variables)
            row["iou"] = best_iou(detector, self._source)
        earlier = [kept for kept in self._seen if kept["step"] < step]  # a step may be repeated
        self._seen = [*earlier, row]
        self.keep()

    def keep(self) -> None:
        """Write the measurements to the file."""
        content = {"wall_seconds": self.wall_seconds(), "seen": self._seen}
        files.write_json(self._path, content)

    def wall_seconds(self) -> float:
        """Return the time since the cell first started, without interruptions."""
        return self._before + time.perf_counter() - self._start

    def curve(self, log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the quality over training time, a row for each held-out evaluation.

        Args:
          log: Lines of the run's log.

        Returns:
          Rows with `step`, `train_seconds`, `heldout_loss`, `explained_variance` (None for a method
          that does not reconstruct pixels) and, if there is a mark, `iou` by truth.
        """
        measured = {entry["step"]: entry for entry in log if "heldout_loss" in entry}
        return [
            row
            | {
                "heldout_loss": measured[row["step"]]["heldout_loss"],
                "explained_variance": _explained(measured[row["step"]]),
            }
            for row in self._seen
            if row["step"] in measured
        ]

    def summary(self) -> dict[str, Any] | None:
        """Return when the mark was first reached, by truth; None without a mark."""
        if self._mark is None:
            return None
        truths = self._seen[-1]["iou"] if self._seen else {}
        reached = {
            name: _first(
                [(row["train_seconds"], row["iou"][name]) for row in self._seen], self._mark
            )
            for name in truths
        }
        best = {name: max(row["iou"][name] for row in self._seen) for name in truths}
        return {"iou": self._mark, "seconds": reached, "best": best, "looks": len(self._seen)}


def _explained(entry: Mapping[str, Any]) -> float | None:
    share = entry.get("heldout_unexplained_variance")
    return None if share is None else 1 - share


def seconds_to(
    curve: Sequence[Mapping[str, Any]], key: str, marks: Sequence[float]
) -> dict[float, float | None]:
    """Return the first training time at which a curve's quantity is at each mark or above."""
    measured = [(row["train_seconds"], row[key]) for row in curve if row[key] is not None]
    return {mark: _first(measured, mark) for mark in marks}


def _first(measured: Sequence[tuple[float, float]], mark: float) -> float | None:
    """Return the first time at which a quantity is at the mark or above, None if at no time."""
    return next((seconds for seconds, value in measured if value >= mark), None)
