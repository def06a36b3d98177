"""No-model baselines: the image AUROC that mean brightness or a mean image reach without a model.

If the defective images were taken in other light than the good ones, a baseline's figure is high,
and a model's high figure proves little.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt16

from recon_ad.data import Record
from recon_ad.data.arrays import to_unit
from recon_ad.data.source import spread
from recon_ad.metrics import (
    PixelHistogram,
    UndefinedMetric,
    auroc,
    empty_histogram,
    image_histogram,
    levels,
    merge,
)
from recon_ad.metrics.auroc_interval import least_auroc
from recon_ad.runtime.progress import progress

AVERAGED = 1000  # training images, spread evenly
WHITE = 65535
LEAST = "image_auroc_least"  # lower bound with 98 % confidence or more
_BAND = 256  # rows at a time, as the computation takes up to four times an image's memory


def _bands(image: Shaped[np.ndarray, "h w c"]) -> list[slice]:
    return [slice(row, row + _BAND) for row in range(0, len(image), _BAND)]


class NoModel:
    """Collector of each image's mean brightness and distance to the mean training image.

    Args:
      train: Good images, at least one, of which up to `AVERAGED` are read. The distance needs all
        of them to have one size.
      through: Iterator over the images, such as `runtime.mesh.in_lockstep`.
    """

    def __init__(
        self,
        train: Sequence[Record],
        *,
        through: Callable[[Sequence[Record]], Iterable[Record]] = iter,
    ):
        self._mean: UInt16[np.ndarray, "h w c"] | None = None
        self._reason = ""
        total: Float[np.ndarray, "h w c"] | None = None
        averaged = spread(train, AVERAGED)
        for record in progress(through(averaged), "mean of the good images", total=len(averaged)):
            image = record.load()
            if total is None:
                total = np.zeros(image.shape, np.float32)
            if image.shape != total.shape:
                self._reason = "the images differ in size"
                break
            for rows in _bands(image):
                total[rows] += to_unit(image[rows])
        else:
            assert total is not None, "a source has at least one training image"
            # In 16 bits, since it is kept while all test images are read.
            total *= np.float32(WHITE / len(averaged))
            self._mean = np.rint(total, out=total).astype(np.uint16)
        self._labels: list[bool] = []
        self._brightness: list[float] = []
        self._distance: list[float] = []
        self._pixels: PixelHistogram = empty_histogram()

    def add(
        self,
        image: Shaped[np.ndarray, "h w c"],
        *,
        anomalous: bool,
        truth: Bool[np.ndarray, "h w"] | None,
        valid: Bool[np.ndarray, "h w"] | None = None,
    ) -> None:
        """Add one test image.

        Args:
          image: Image in the format of `recon_ad.data.arrays`.
          anomalous: True if the image is defective.
          truth: Truth of its pixels. None where it is not known.
          valid: Pixels that count. None counts all.
        """
        self._labels.append(anomalous)
        bands = _bands(image)
        weight = np.ones(1, bool) if valid is None else valid
        light = np.concatenate([to_unit(image[rows]).mean(axis=2) for rows in bands])
        self._brightness.append(float(light.mean(where=weight, dtype=np.float64)))
        if self._mean is not None and image.shape != self._mean.shape:
            self._mean, self._reason = None, "the images differ in size"
        if self._mean is not None:
            distance = np.empty(image.shape[:2], np.float32)
            for rows in bands:
                away = to_unit(image[rows]) - to_unit(self._mean[rows])
                distance[rows] = np.mean(away**2, axis=-1)
            self._distance.append(float(distance.mean(where=weight, dtype=np.float64)))
            if truth is not None:
                pixels = image_histogram(distance, truth, valid=valid)
                self._pixels = merge(self._pixels, pixels)

    def seen(self) -> tuple[Any, ...]:
        """Return what was collected from the images, for `join`."""
        return self._labels, self._brightness, self._distance, self._pixels, self._reason

    def join(self, shares: Sequence[tuple[Any, ...]]) -> None:
        """Replace the collected values by those that several hosts have seen of one image set."""
        labels, brightness, distance, pixels, reasons = zip(*shares, strict=True)
        self._labels, self._brightness, self._distance = (
            list(itertools.chain(*lists)) for lists in (labels, brightness, distance)
        )
        self._pixels = merge(*pixels)
        if any(reasons):
            self._mean, self._reason = None, max(reasons)

    def figures(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the row for metrics.json and the reasons for its missing figures."""
        missing: dict[str, str] = {}

        def given(key: str, figure: Any) -> float | None:
            try:
                return figure()
            except UndefinedMetric as reason:
                missing[f"no_model.{key}"] = str(reason)
                return None

        def image_auroc(scores: list[float]) -> float:
            if len(scores) != len(self._labels):
                raise UndefinedMetric(self._reason)
            return auroc(levels(np.array(scores), np.array(self._labels, bool)))

        def either_way() -> float:
            figure = image_auroc(self._brightness)
            return max(figure, 1 - figure)

        def least(figure: float | None) -> float | None:
            defective = sum(self._labels)
            good = len(self._labels) - defective
            return None if figure is None else least_auroc(figure, good, defective)

        def pixel_auroc() -> float:
            if self._mean is None:
                raise UndefinedMetric(self._reason)
            return auroc(self._pixels.levels())

        # Brighter or darker, whichever separates better, as either would confound the data set.
        light = given("mean_brightness.image_auroc", either_way)
        distance = given("distance_to_mean_image.image_auroc", lambda: image_auroc(self._distance))
        row = {
            "mean_brightness": {"image_auroc": light, LEAST: least(light)},
            "distance_to_mean_image": {
                "image_auroc": distance,
                LEAST: least(distance),
                "pixel_auroc": given("distance_to_mean_image.pixel_auroc", pixel_auroc),
            },
        }
        return row, missing


def _mean_figures(rows: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the mean over categories of the rows of `NoModel.figures`, with missing reasons.

    Brightness separates categories better than defects, so each category has a separate row.
    """
    mean: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, figures in next(iter(rows.values())).items():
        mean[name] = {}
        for key in (key for key in figures if key != LEAST):
            values = {category: row[name][key] for category, row in rows.items()}
            lacking = [category for category, value in values.items() if value is None]
            mean[name][key] = None if lacking else float(np.mean(list(values.values())))
            if lacking:
                missing[f"no_model.{name}.{key}"] = f"not available for {', '.join(lacking)}"
    return mean, missing


def no_model_row(
    rows: Mapping[str, tuple[dict[str, Any], dict[str, str]]], per_category: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the no-model row and its reasons; add its own row to each of several categories.

    For several categories the returned row is the mean.
    """
    if len(rows) == 1:
        return next(iter(rows.values()))
    mean, missing = _mean_figures({category: row for category, (row, _) in rows.items()})
    for category, (row, reasons) in rows.items():
        per_category[category]["no_model"] = row
        missing |= {f"per_category.{category}.{key}": why for key, why in reasons.items()}
    return mean, missing
