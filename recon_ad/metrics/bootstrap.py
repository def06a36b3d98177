"""Intervals of the figures by resampling images, good and defective ones separately.

Samples of one production differ in the images they hold, and the pixels of an image depend on each
other. So whole images are drawn, with replacement, as many good and as many defective ones as
there were (percentile bootstrap, Efron and Tibshirani 1993, chapter 13). Nothing is sorted again:
a resample only changes the weight of each image's counts.

An interval says how far a figure may be due to the choice of test images. It does not cover the
training seed. With a handful of images in a class it would be too narrow, so none is given. None
is given either where all resamples agree. The image AUROC has a better one (`auroc_interval`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from recon_ad.metrics.figures import STRICT_FPR_LIMIT
from recon_ad.metrics.pro import aupro
from recon_ad.metrics.ranking import (
    Levels,
    UndefinedMetric,
    auroc,
    average_precision,
    f1_max,
    levels,
)
from recon_ad.metrics.segmentation import PixelHistogram, at_common_bits, iou_max, merge
from recon_ad.runtime.progress import progress

FEWEST = 10  # images of a class, for it to be resampled

Intervals = dict[str, tuple[float, float]]

IMAGE_FIGURES: Mapping[str, Callable[[Levels], float]] = {
    "image_ap": average_precision,
    "image_f1_max": lambda counts: f1_max(counts)[0],
}
PIXEL_FIGURES: Mapping[str, Callable[[PixelHistogram], float]] = {
    "pixel_auroc": lambda histogram: auroc(histogram.levels()),
    "pixel_ap": lambda histogram: average_precision(histogram.levels()),
    "aupro_30": aupro,
    "aupro_05": lambda histogram: aupro(histogram, fpr_limit=STRICT_FPR_LIMIT),
    "iou_max_oracle": lambda histogram: iou_max(histogram.levels())[0],
    "seg_f1_max_oracle": lambda histogram: f1_max(histogram.levels())[0],
}


def multiplicities(
    defective: Bool[np.ndarray, " n"], *, seed: int, resamples: int
) -> Iterator[Int[np.ndarray, " n"]]:
    """Yield how often each image is drawn, one array for each resample.

    Args:
      defective: Class of each image. Each resample has as many images of a class as there are.
      seed: Seed of the generator, 0 or more. The same seed gives the same draws.
      resamples: Number of resamples.
    """
    random = np.random.default_rng(seed)
    strata = [np.flatnonzero(defective == kind) for kind in np.unique(defective)]
    for _ in range(resamples):
        drawn = [stratum[random.integers(len(stratum), size=len(stratum))] for stratum in strata]
        yield np.bincount(np.concatenate(drawn), minlength=len(defective))


def image_intervals(
    scores: Float[np.ndarray, " n"],
    labels: Bool[np.ndarray, " n"],
    *,
    seed: int,
    resamples: int = 1000,
    coverage: float = 0.95,
) -> Intervals:
    """Compute the intervals of the image-level figures.

    Args:
      scores: One score for each image, any finite values, higher is more anomalous.
      labels: True where the image is defective.
      seed: Seed of the draws, 0 or more. The same seed gives the same intervals.
      resamples: Number of resamples. 1000 fix the ends of an interval to within a few hundredths
        of its width.
      coverage: Share of the resampled figures that an interval spans.

    Returns:
      (low, high) for those of `image_ap` and `image_f1_max` in which resamples differ.

    Raises:
      UndefinedMetric: If there are fewer than `FEWEST` good or defective images.
      ValueError: If a score is not finite, lengths differ, `resamples` is below 1 or `coverage`
        is not between 0 and 1.
    """
    everything = levels(scores, labels)
    place = np.searchsorted(-everything.score, -scores)
    count = len(everything.score)

    def resampled(times: Int[np.ndarray, " n"]) -> Levels:
        normal = np.bincount(place, weights=times * ~labels, minlength=count)
        anomalous = np.bincount(place, weights=times * labels, minlength=count)
        drawn = normal + anomalous > 0
        return Levels(
            everything.score[drawn],
            normal[drawn].astype(np.int64),
            anomalous[drawn].astype(np.int64),
        )

    return _intervals(IMAGE_FIGURES, resampled, labels, seed, resamples, coverage)


def pixel_intervals(
    histograms: Sequence[PixelHistogram],
    *,
    seed: int,
    resamples: int = 1000,
    coverage: float = 0.95,
) -> Intervals:
    """Compute the intervals of the pixel-level figures.

    Args:
      histograms: One for each image, from `compact(image_histogram(...))`. They are brought to
        the bits of the coarsest. The error that this adds is at most the figure's own bound at
        those bits (such as `auroc_bound`); the best IoU and F1 can only decrease.
      seed: Seed of the draws, 0 or more. The same seed gives the same intervals.
      resamples: Number of resamples.
      coverage: Share of the resampled figures that an interval spans.

    Returns:
      (low, high) for each of `PIXEL_FIGURES` in which resamples differ. An image counts as
      defective when it has an anomalous pixel. Resamples without a normal pixel, possible only
      where images have none, are left out.

    Raises:
      UndefinedMetric: If there are no normal or no anomalous pixels, or a class that has images
        has fewer than `FEWEST`.
      ValueError: If `resamples` is below 1 or `coverage` is not between 0 and 1.
    """
    if not histograms:
        raise UndefinedMetric("no images")
    histograms = at_common_bits(histograms)
    merged = merge(*histograms)
    bits, key, pattern = merged.bits, merged.key, merged.pattern
    start = np.cumsum([0, *(len(histogram.key) for histogram in histograms)])
    column = np.searchsorted(key, np.concatenate([histogram.key for histogram in histograms]))

    def per_image(values: Iterator[np.ndarray]) -> sparse.csr_array:
        shape = (len(histograms), len(key))
        return sparse.csr_array((np.concatenate(list(values)), column, start), shape=shape)

    normal = per_image(histogram.normal for histogram in histograms)
    anomalous = per_image(histogram.anomalous for histogram in histograms)
    overlap = per_image(histogram.overlap for histogram in histograms)

    def resampled(times: Int[np.ndarray, " n"]) -> PixelHistogram:
        counts = times @ normal, times @ anomalous, times @ overlap
        drawn = counts[0] + counts[1] > 0
        return PixelHistogram(bits, key[drawn], *(values[drawn] for values in (*counts, pattern)))

    defective = np.array([bool(histogram.anomalous.any()) for histogram in histograms])
    return _intervals(PIXEL_FIGURES, resampled, defective, seed, resamples, coverage)


def _intervals(
    figures: Mapping[str, Callable],
    resampled: Callable[[Int[np.ndarray, " n"]], Levels | PixelHistogram],
    defective: Bool[np.ndarray, " n"],
    seed: int,
    resamples: int,
    coverage: float,
) -> Intervals:
    """Return the quantiles of each figure over the resamples in which all are defined."""
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more, not {resamples}.")
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be between 0 and 1, not {coverage}.")
    once = resampled(np.ones(len(defective), np.int64))
    for figure in figures.values():
        figure(once)  # raises UndefinedMetric where every resample would
    for kind, name in ((False, "good"), (True, "defective")):
        count = np.count_nonzero(defective == kind)
        if 0 < count < FEWEST:
            raise UndefinedMetric(
                f"{count} {name} images are too few to resample, as {FEWEST} or more are needed"
            )
    values: dict[str, list[float]] = {name: [] for name in figures}
    drawn = multiplicities(defective, seed=seed, resamples=resamples)
    for times in progress(drawn, "intervals, resamples", total=resamples):
        counts = resampled(times)
        try:
            found = {name: figure(counts) for name, figure in figures.items()}
        except UndefinedMetric:
            continue
        for name, value in found.items():
            values[name].append(value)
    if not values[next(iter(figures))]:
        raise UndefinedMetric("no resample has both normal and anomalous pixels")
    tail = (1 - coverage) / 2
    ends = {name: np.quantile(found, [tail, 1 - tail]) for name, found in values.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items() if low < high}
