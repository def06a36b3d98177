"""What a report is made of: plain records of NumPy arrays and the content of `metrics.json`."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

# The same word as `recon_ad.data.source.GOOD`. Not imported from there: the package `data` holds
# the input pipeline, which a machine that only writes reports need not have.
GOOD = "good"


class Panel(NamedTuple):
    """One image with all that the detector made of it, every map at the image's own size.

    Attributes:
      name: the image's name.
      defect: `GOOD`, or the name of the defect type.
      score: the image's raw score, higher is more anomalous.
      threshold: the image threshold it is held against.
      image: [h, w, c], floating point in [0, 1], or bytes or 16 bits as decoded. Three channels are
        shown as RGB, otherwise the first one as grey.
      reconstruction: floating point [h, w, c] in [0, 1], or None where the method makes none.
      residual: floating point [h, w], >= 0, raw and unbounded.
      truth: bool [h, w], True where defective; None where it is not known.
      mask: bool [h, w], True where the detector marks a defect.
      pixel_threshold: the residual above which pixels are marked; None where it is not known.
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
    """The positions of a threshold's slider.

    Attributes:
      values: thresholds, finite and strictly ascending, the calibrated one among them.
      start: the place of the calibrated one.
    """

    values: tuple[float, ...]
    start: int


class Marks(NamedTuple):
    """What the detector marks in one image at each pixel threshold of a scale.

    Attributes:
      scale: pixel thresholds.
      level: for each displayed pixel at how many of them, counted from the lowest, it is marked.
      pixels: for each threshold the marked pixels of the image at full size.
      regions: for each threshold the 8-connected regions of the same.
    """

    scale: Scale
    level: UInt8[np.ndarray, "p q"]
    pixels: tuple[int, ...]
    regions: tuple[int, ...]


class SmallPanel(NamedTuple):
    """A panel shrunk to the size at which it is shown; `pictures.shrink_panel` makes it.

    Attributes:
      name: the image's name.
      defect: `GOOD`, or the name of the defect type.
      score: the image's raw score.
      threshold: the image threshold.
      image: the input as bytes.
      reconstruction: the same of the reconstruction, or None.
      residual: the highest residual of the pixels that fall together.
      truth: whether one of them is defective; None where it is not known.
      mask: whether one of them is marked.
      size: (height, width) of the image itself, in pixels.
      channels: of the image itself.
      defective: defective pixels of the image itself; None where it is not known.
      marked: marked pixels of the image itself.
      regions: 8-connected regions of these.
      typical: the median residual of its pixels that are not defective; NaN where none is finite.
      pixel_threshold: the residual above which pixels are marked; None where it is not known.
      marks: what is marked at other pixel thresholds; None where the page has no slider for it.
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
    """What one test image got.

    Attributes:
      name: the image's name.
      defect: `GOOD`, or the name of the defect type: the truth.
      score: the raw score, higher is more anomalous.
      anomalous: the detector's decision, as in `predictions.csv`.
    """

    name: str
    defect: str
    score: float
    anomalous: bool


class Report(NamedTuple):
    """Everything on the page.

    Attributes:
      title: the page's heading.
      metrics: the content of `metrics.json`. Null and absent figures are shown with the reason
        that stands under `missing`.
      threshold: the calibrated image threshold, in units of the score; None where there is none.
      messages: warnings and notes, one sentence each; they come first on the page.
      curves: any of `roc` and `pixel_roc`, both (false-positive rate, true-positive rate), and
        `pro`, (false-positive rate, mean region overlap); arrays [n] in [0, 1].
      scores: one row for each test image, in any order; plain tuples of the same four will do.
      training: rows with `step`, `train_loss` and `heldout_loss`; a loss may be None.
      panels: by the group's title, its panels, or one sentence that says why there are none. Any
        iterable is taken once; of large images, let a generator shrink each before it makes the
        next. Without shrinking they are shown without a slider.
      patches: mean residual of each patch of the test images, arrays [n] under `normal` and [m]
        under `defective`; None where there are none.
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
