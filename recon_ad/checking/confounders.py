"""Confounders: simple numbers that separate good from defective test images without any defect.

If the defective images were taken on another day, a model can reach a high image AUROC from the
light of that day alone. Here simple numbers of each image are ranked as a model's scores would be.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from recon_ad.checking.findings import Finding
from recon_ad.checking.look import ImageLook
from recon_ad.data.source import GOOD, Record
from recon_ad.evaluation.no_model import NoModel
from recon_ad.metrics import auroc, levels
from recon_ad.metrics.auroc_interval import least_auroc

# A figure without a model is reported if it is this high, and not by chance. The bound alone would
# report weak effects in large sets, the figure alone five images that happen to be in order.
_TELLS_APART = 0.8
_AT_LEAST = 0.65


class Figure(NamedTuple):
    """AUROC with which a simple number of each test image separates good from defective.

    Attributes:
      name: Name of the number.
      auroc: Image AUROC, in [0.5, 1], in the direction that separates better.
      at_least: Lower bound of the AUROC with 98 to 99 % confidence.
      how: Direction in which defective images differ.
    """

    name: str
    auroc: float
    at_least: float
    how: str

    @property
    def high(self) -> bool:
        """True if the AUROC is above the reporting limit, ignoring chance."""
        return self.auroc >= _TELLS_APART

    @property
    def tells_apart(self) -> bool:
        """True if the AUROC is high, and not by chance."""
        return self.high and self.at_least >= _AT_LEAST


def figures(looks: Sequence[ImageLook], load: Callable[[ImageLook], np.ndarray]) -> list[Figure]:
    """Compute how well simple numbers separate good from defective test images.

    Mean brightness and distance to the mean training image are those of the report's no-model row
    (`NoModel`), each in the direction that separates better. The distance is left out if images
    differ in size. Images count as a whole, including pixels outside a region of interest.

    Args:
      looks: Measurements of training and test images, with at least one good and one defective
        test image.
      load: Function that decodes an image, all with the same number of channels. It may reduce
        large images.
    """
    test = [look for look in looks if not look.training]
    defective = np.array([look.defect != GOOD for look in test])
    good, bad = int(np.sum(~defective)), int(np.sum(defective))

    def figure(name: str, value: float, more: str, less: str) -> Figure:
        either = max(value, 1 - value)
        how = "no difference" if value == 0.5 else more if value > 0.5 else less
        return Figure(name, either, least_auroc(either, good, bad), how)

    def ranked(values: Iterable[float]) -> float:
        return auroc(levels(np.array([*values], float), defective))

    row = _no_model(looks, load)
    light = row["mean_brightness"]["image_auroc"]
    if ranked(look.brightness for look in test) < 0.5:  # NoModel does not give the direction
        light = 1 - light
    found = [figure("mean brightness", light, "brighter", "darker")]
    distance = row["distance_to_mean_image"]["image_auroc"]
    if distance is not None:
        found.append(figure("distance to mean train image", distance, "further", "closer"))
    return [
        *found,
        figure("contrast", ranked(x.contrast for x in test), "higher", "lower"),
        figure("sharpness", ranked(x.sharpness for x in test), "sharper", "less sharp"),
        figure("image size", ranked(math.prod(x.size) for x in test), "larger", "smaller"),
        figure("file size", ranked(x.stored for x in test), "larger", "smaller"),
        figure("kind of file", ranked(map(_is_jpeg, test)), "more are JPEG", "fewer are JPEG"),
    ]


def _no_model(
    looks: Sequence[ImageLook], load: Callable[[ImageLook], np.ndarray]
) -> dict[str, Any]:
    row = NoModel([Record(x.name, partial(load, x)) for x in looks if x.training])
    for look in looks:
        if not look.training:
            row.add(load(look), anomalous=look.defect != GOOD, truth=None)
    return row.figures()[0]


def about_figures(found: Sequence[Figure]) -> list[Finding]:
    """Return the finding on numbers that separate good from defective images."""
    apart = [figure for figure in found if figure.tells_apart]
    if not apart:
        return []
    return [
        Finding(
            "Defective test images can be separated from good ones without any model, by the "
            "numbers below. They may have been taken at other times, in other light, or stored in "
            "another way. Unless the defects themselves cause this, a model's image figures prove "
            "little; quote pixel figures, or take good and defective images in turns.",
            tuple(f"{f.name}: image AUROC {f.auroc:.2f} ({f.how})" for f in apart),
        )
    ]


def _is_jpeg(look: ImageLook) -> float:
    return float(look.file.suffix.lower() in (".jpg", ".jpeg"))
