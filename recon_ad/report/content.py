"""Content of a report: plain records of NumPy arrays and the content of `metrics.json`."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

# The same word as `recon_ad.data.source.GOOD`. Not imported from there: the package `data` holds
# the input pipeline, which a machine that only writes reports need not have.
GOOD = "good"


class Panel(NamedTuple):
    """One image with the detector's results, every map at the image's own size.

    Attributes:
      name: Name of the image.
      defect: `GOOD`, or the name of the defect type.
      score: Raw score of the image, higher is more anomalous.
      threshold: Image threshold with which the score is compared.
      image: Image [h, w, c], floating point in [0, 1], or bytes or 16 bits as decoded. Three
        channels are shown as RGB, otherwise the first one as grey.
      reconstruction: Floating point [h, w, c] in [0, 1]. None where the method makes none.
      residual: Floating point [h, w], >= 0, raw and unbounded.
      truth: Bool [h, w], True where defective. None where unknown.
      mask: Bool [h, w], True where the detector marks a defect.
      pixel_threshold: Residual above which pixels are marked. None where unknown.
    """

    name: str
    defect: str
    score: float
    threshold: float
    image: np.ndarray
    reconstruction: np.ndarray | None
    residual: np.ndarray
    truth: np.ndarray | None
    mask: np.ndarray
    pixel_threshold: float | None = None


class Scale(NamedTuple):
    """Positions of a threshold's slider.

    Attributes:
      values: Thresholds, finite and strictly ascending, including the calibrated one.
      start: Index of the calibrated threshold.
    """

    values: tuple[float, ...]
    start: int


class Marks(NamedTuple):
    """Marks of the detector in one image at each pixel threshold of a scale.

    Attributes:
      scale: Pixel thresholds.
      level: For each displayed pixel, at how many thresholds, counted from the lowest, it is
        marked.
      pixels: For each threshold, the number of marked pixels of the image at full size.
      regions: For each threshold, the number of 8-connected marked regions at full size.
    """

    scale: Scale
    level: UInt8[np.ndarray, "p q"]
    pixels: tuple[int, ...]
    regions: tuple[int, ...]


class SmallPanel(NamedTuple):
    """Panel shrunk to the size at which it is shown, made by `pictures.shrink_panel`.

    Attributes:
      name: Name of the image.
      defect: `GOOD`, or the name of the defect type.
      score: Raw score of the image.
      threshold: Image threshold.
      image: Input as bytes.
      reconstruction: Reconstruction as bytes, or None.
      residual: Highest residual of the merged pixels.
      truth: True where any merged pixel is defective. None where unknown.
      mask: True where any merged pixel is marked.
      size: (height, width) of the original image, in pixels.
      channels: Number of channels of the original image.
      defective: Number of defective pixels of the original image. None where unknown.
      marked: Number of marked pixels of the original image.
      regions: Number of 8-connected regions of the marked pixels.
      typical: Median residual of the pixels that are not defective. NaN where none is finite.
      pixel_threshold: Residual above which pixels are marked. None where unknown.
      marks: Marks at other pixel thresholds. None where the page has no slider for them.
    """

    name: str
    defect: str
    score: float
    threshold: float
    image: UInt8[np.ndarray, "p q 3"]
    reconstruction: UInt8[np.ndarray, "p q 3"] | None
    residual: Float[np.ndarray, "p q"]
    truth: Bool[np.ndarray, "p q"] | None
    mask: Bool[np.ndarray, "p q"]
    size: tuple[int, int]
    channels: int
    defective: int | None
    marked: int
    regions: int
    typical: float
    pixel_threshold: float | None = None
    marks: Marks | None = None


class Score(NamedTuple):
    """Score and decision of one test image.

    Attributes:
      name: Name of the image.
      defect: Truth, `GOOD` or the name of the defect type.
      score: Raw score, higher is more anomalous.
      anomalous: Decision of the detector, as in `predictions.csv`.
    """

    name: str
    defect: str
    score: float
    anomalous: bool


class Report(NamedTuple):
    """Content of the page.

    Attributes:
      title: Heading of the page.
      metrics: Content of `metrics.json`. Null and absent figures are shown with the reason stored
        under `missing`.
      threshold: Calibrated image threshold, in units of the score. None means no threshold.
      messages: Warnings and notes, one sentence each, shown first on the page.
      curves: Any of `roc` and `pixel_roc`, both (false-positive rate, true-positive rate), and
        `pro`, (false-positive rate, mean region overlap); arrays [n] in [0, 1].
      scores: One row for each test image, in any order; plain tuples of the same four values are
        accepted.
      training: Rows with `step`, `train_loss` and `heldout_loss`; a loss may be None.
      panels: Panels by the title of their group, or a sentence that explains an empty group. Any
        iterable is read once. For large images, use a generator that shrinks each image before it
        makes the next. Panels that are not shrunk beforehand have no slider.
      patches: Mean residual of each patch of the test images, arrays [n] under `normal` and [m]
        under `defective`. None means no patches.
    """

    title: str
    metrics: Mapping[str, Any]
    threshold: float | None = None
    messages: Sequence[str] = ()
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]] = {}
    scores: Sequence[Score | tuple[str, str, float, bool]] = ()
    training: Sequence[Mapping[str, Real | None]] = ()
    panels: Mapping[str, Iterable[Panel | SmallPanel] | str] = {}
    patches: Mapping[str, np.ndarray] | None = None
