"""The no-model row: what image AUROC one gets without any model.

A data set whose defective images were taken in other light than the good ones gives a high figure
here, and then a model's high figure says little.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from recon_ad.data import Record
from recon_ad.data.arrays import to_unit
from recon_ad.metrics import (
    PixelHistogram,
    UndefinedMetric,
    auroc,
    empty_histogram,
    image_histogram,
    levels,
    merge,
)


class NoModel:
    """Collects, image by image, the mean brightness and the distance to the mean training image.

    Args:
      train: good images; the second figure needs all of them of one size.
    """

    def __init__(self, train: Sequence[Record]):
        self._mean: Float[np.ndarray, "h w c"] | None = None
        self._reason = ""
        total, shape = np.zeros(()), None
        for record in train:
            image = to_unit(record.load()).astype(np.float64)
            if shape is not None and image.shape != shape:
                self._reason = "the images differ in size"
                break
            shape = image.shape
            total = total + image
        else:
            self._mean = (total / len(train)).astype(np.float32)
        self._labels: list[bool] = []
        self._brightness: list[float] = []
        self._distance: list[float] = []
        self._pixels: PixelHistogram = empty_histogram()

    def add(self, image: np.ndarray, *, anomalous: bool, truth: np.ndarray | None) -> None:
        """Looks at one test image [h, w, c]; `truth` [h, w] is None where it is unknown."""
        unit = to_unit(image)
        self._labels.append(anomalous)
        self._brightness.append(float(unit.mean(dtype=np.float64)))
        if self._mean is not None and unit.shape != self._mean.shape:
            self._mean, self._reason = None, "the images differ in size"
        if self._mean is not None:
            distance = np.mean((unit - self._mean) ** 2, axis=-1)
            self._distance.append(float(distance.mean(dtype=np.float64)))
            if truth is not None:
                self._pixels = merge(self._pixels, image_histogram(distance, truth))

    def figures(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The row for metrics.json and the reasons for what is missing in it."""
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

        def pixel_auroc() -> float:
            if self._mean is None:
                raise UndefinedMetric(self._reason)
            return auroc(self._pixels.levels())

        row = {
            # Brighter or darker, whichever separates better: the question is whether it could.
            "mean_brightness": {"image_auroc": given("mean_brightness.image_auroc", either_way)},
            "distance_to_mean_image": {
                "image_auroc": given(
                    "distance_to_mean_image.image_auroc", lambda: image_auroc(self._distance)
                ),
                "pixel_auroc": given("distance_to_mean_image.pixel_auroc", pixel_auroc),
            },
        }
        return row, missing
