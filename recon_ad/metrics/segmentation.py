"""Segmentation figures of anomaly maps: histograms of pixel scores in bounded memory, pooled IoU.

Anomaly maps are float32 [h, w] of any range, higher is more anomalous; truths are bool [h, w],
True where defective. Pixels of all images are ranked together, so maps of one data set must share
a scale. Each image is read once and not kept.

Bins are floats cut to their leading bits. The bit patterns of all float32 values are reordered to
compare like the numbers they represent, which makes one scale from the lowest to the highest
value. Its leading bits are sign, exponent and the start of the mantissa. No range is needed
beforehand, bins are equally fine relative to the score everywhere, and any two histograms can be
merged.

Pixel AUROC, average precision and F1, and their bounds, are functions of `histogram.levels()` in
`ranking`. All bounds are relative to the same figure from each pixel's own float32 score.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt32
from scipy import ndimage

from recon_ad.metrics.ranking import Levels, UndefinedMetric, cumulative, unsure

# Sign, 8 bits of exponent, 13 of mantissa: scores that differ by 1 part in 8192 are separated.
# Scores between 1e-4 and 1 then have 100,000 bins, 3 MB; the limit of 2^22 bins is 134 MB.
BITS = 22
# The coarsest: sign and exponent. With fewer bits a bin's lowest score could be infinite.
MIN_BITS = 9

# Keys are counted in an array from the lowest key to the highest if it is at most about this many
# times as long as the number of keys. This is several times as fast as sorting.
_DENSE = 4

_SIGN = np.uint32(1 << 31)
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


class PixelHistogram(NamedTuple):
    """Pixels of any number of images by score, at a resolution of `bits`.

    Only bins with pixels are stored: 32 bytes each, at most 2^bits of them.

    Attributes:
      bits: Number of leading bits of the ordered float32 pattern that make a bin, 9 to 32; 32 is
        exact.
      key: Leading bits of each bin, ascending.
      normal: Number of normal pixels in each bin.
      anomalous: Number of anomalous pixels in each bin.
      overlap: Sum over the bin's anomalous pixels of 1 / (pixels in the pixel's region). Summed
        from a bin upwards and divided by the total, the number of regions, this is the PRO there.
      pattern: All 32 bits of the ordered pattern where all pixels of a bin have one score, and
        figures are exact. Where they have several it is 0, which is no score's pattern.
    """

    bits: int
    key: UInt32[np.ndarray, " n"]
    normal: Int[np.ndarray, " n"]
    anomalous: Int[np.ndarray, " n"]
    overlap: Float[np.ndarray, " n"]
    pattern: UInt32[np.ndarray, " n"]

    @property
    def tied(self) -> Bool[np.ndarray, " n"]:
        """The bins whose pixels all have one score."""
        return self.pattern != 0

    def levels(self) -> Levels:
        """Return the bins as levels of a ranking, each with the lowest score that the bin can hold.

        A pixel is in a bin or above it exactly when its score is at or above that score.
        """
        ordered = self.key[::-1] << np.uint32(32 - self.bits)
        pattern = np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered)
        counts = self.normal[::-1], self.anomalous[::-1]
        return Levels(pattern.view(np.float32), *counts, self.tied[::-1])


def empty_histogram(*, bits: int = BITS) -> PixelHistogram:
    """Return a histogram of no pixels.

    Raises:
      ValueError: If `bits` is not between 9 and 32.
    """
    _check_bits(bits, most=32)
    none = np.zeros(0, np.int64)
    key = none.astype(np.uint32)
    return PixelHistogram(bits, key, none, none, none.astype(np.float64), key)


def _check_bits(bits: int, *, most: int) -> None:
    if not MIN_BITS <= bits <= most:
        raise ValueError(f"bits must be from {MIN_BITS} to {most} here, not {bits}.")


def image_histogram(
    anomaly_map: Float[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
    *,
    valid: Bool[np.ndarray, "h w"] | None = None,
    bits: int = BITS,
) -> PixelHistogram:
    """Compute the histogram of one image.

    Args:
      anomaly_map: Scores, any finite values. Wider floats are rounded to float32.
      truth: True where defective. Regions are its 8-connected components, as in MVTec AD's AUPRO
        (Bergmann et al., IJCV 2021). Components of different images are never merged.
      valid: False where a pixel is left out, whatever its score. Regions are found before pixels
        are left out, so none is cut in two. Regions that lose all their pixels do not count.
      bits: Number of leading bits, see `PixelHistogram`.

    Raises:
      ValueError: If shapes differ, a valid score is NaN or infinite, or `bits` is out of range.
    """
    _check_bits(bits, most=32)
    for name, mask in (("truth", truth), ("valid", valid)):
        if mask is not None and mask.shape != anomaly_map.shape:
            raise ValueError(
                f"anomaly map {anomaly_map.shape} and {name} mask {mask.shape} differ in size; "
                "resize the map to the image's size first."
            )
    regions = _regions(truth)
    blocks = _blocks(truth.shape)
    size = np.zeros(int(regions.max(initial=0)) + 1)  # valid pixels of each region
    for rows in blocks:
        counted = regions[rows] if valid is None else regions[rows][valid[rows]]
        size += np.bincount(counted.ravel(), minlength=len(size))
    parts = [
        _block(
            anomaly_map[rows],
            regions[rows],
            size,
            None if valid is None else valid[rows],
            bits=bits,
        )
        for rows in blocks
    ]
    return merge(*parts) if parts else empty_histogram(bits=bits)


def _blocks(shape: tuple[int, int]) -> list[slice]:
    """Return the rows to count at a time, about a million pixels; each takes 50 bytes."""
    rows = max(1, (1 << 20) // max(1, shape[1]))
    return [slice(row, row + rows) for row in range(0, shape[0], rows)]


def _block(
    anomaly_map: Float[np.ndarray, "h w"],
    regions: Int[np.ndarray, "h w"],
    size: Float[np.ndarray, " r"],
    valid: Bool[np.ndarray, "h w"] | None,
    *,
    bits: int,
) -> PixelHistogram:
    """Compute the histogram of some rows of an image; `size` is each region's valid pixels."""
    with np.errstate(over="ignore"):  # overflow becomes infinity, which is rejected below
        scores = anomaly_map.astype(np.float32, copy=False).ravel()
    region = regions.ravel()
    if valid is not None:
        scores, region = scores[valid.ravel()], region[valid.ravel()]
    if not np.isfinite(scores).all():
        bad = np.count_nonzero(~np.isfinite(scores))
        raise ValueError(f"{bad} of {scores.size} scores of an anomaly map are NaN or infinite.")
    ordered = _ordered(scores)
    del scores  # frees the memory of a block
    inside = region > 0
    defective = inside.any()
    key, normal, pattern = _counted(ordered[~inside] if defective else ordered, bits=bits)
    nothing = np.zeros_like(normal), np.zeros(len(normal))
    normal_only = PixelHistogram(bits, key, normal, *nothing, pattern)
    if not defective:
        return normal_only
    region, ordered = region[inside], ordered[inside]
    anomalous_only = _collect(
        bits,
        ordered >> np.uint32(32 - bits),
        np.zeros(region.size, np.int64),
        np.ones(region.size, np.int64),
        1 / size[region],
        ordered,
    )
    return merge(normal_only, anomalous_only)


def _regions(truth: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "h w"]:
    """Return the number of each pixel's region, from 1 on; 0 where normal."""
    labels = np.zeros(truth.shape, np.int32)
    rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
    if rows.size:  # labelling is the slowest step, so it runs on the box around the defects only
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        labels[box] = ndimage.label(truth[box], structure=_EIGHT_NEIGHBOURS)[0]
    return labels


def _span(key: UInt32[np.ndarray, " n"]) -> tuple[int, int] | None:
    """Return the lowest key and the length of a dense array of keys, or None if it is too long."""
    if not key.size:
        return None
    low, high = int(key.min()), int(key.max())
    return (low, high - low + 1) if high - low < _DENSE * key.size + (1 << 16) else None


def _counted(
    ordered: UInt32[np.ndarray, " n"], *, bits: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct keys, ascending, their counts, and the pattern of a single score or 0."""
    key = ordered >> np.uint32(32 - bits)
    span = _span(key)
    if span is None:
        present, place, count = np.unique(key, return_inverse=True, return_counts=True)
        return present, count, _one_score(place, len(present), ordered)
    first, length = span
    place = (key - np.uint32(first)).astype(np.intp)
    count = np.bincount(place, minlength=length)
    kept = np.flatnonzero(count)
    pattern = _one_score(place, length, ordered)
    return (kept + first).astype(np.uint32), count[kept], pattern[kept]


def _one_score(
    place: Int[np.ndarray, " m"], length: int, pattern: UInt32[np.ndarray, " m"]
) -> UInt32[np.ndarray, " n"]:
    """Return the pattern of each place if all its pixels share one, else 0."""
    low, high = np.full(length, np.uint32(0xFFFFFFFF)), np.zeros(length, np.uint32)
    np.minimum.at(low, place, pattern)
    np.maximum.at(high, place, pattern)
    return np.where(low == high, low, np.uint32(0))


def _ordered(scores: Float32[np.ndarray, " n"]) -> UInt32[np.ndarray, " n"]:
    """Reorder bit patterns so that they compare as unsigned integers as the scores compare."""
    pattern = scores.view(np.uint32)
    pattern = np.where(pattern == _SIGN, np.uint32(0), pattern)  # -0 equals 0
    return np.where(pattern & _SIGN, ~pattern, pattern | _SIGN)


def _collect(
    bits: int,
    key: UInt32[np.ndarray, " m"],
    normal: Int[np.ndarray, " m"],
    anomalous: Int[np.ndarray, " m"],
    overlap: Float[np.ndarray, " m"],
    pattern: UInt32[np.ndarray, " m"],
) -> PixelHistogram:
    """Add up the counts of the same key."""
    span = _span(key)
    if span is None:
        present, place = np.unique(key, return_inverse=True)
        length, kept = len(present), slice(None)
    else:
        first, length = span
        place = (key - np.uint32(first)).astype(np.intp)
        kept = np.flatnonzero(np.bincount(place, minlength=length))
        present = (kept + first).astype(np.uint32)

    # One after the other, as each is as long as the span, which may be four times the number of
    # keys. With weights bincount adds in float64, which is exact for counts.
    def added(values: np.ndarray, dtype: type) -> np.ndarray:
        return np.bincount(place, weights=values, minlength=length)[kept].astype(dtype)

    counts = (added(values, np.int64) for values in (normal, anomalous))
    one = _one_score(place, length, pattern)[kept]
    return PixelHistogram(bits, present, *counts, added(overlap, np.float64), one)


def merge(*histograms: PixelHistogram) -> PixelHistogram:
    """Merge the histograms of images, or of parts of a data set, in any order.

    Raises:
      ValueError: If no histogram is given, or they differ in `bits`.
    """
    bits = {histogram.bits for histogram in histograms}
    if len(bits) != 1:
        raise ValueError(f"histograms to merge must have the same bits, not {sorted(bits)}.")
    _, *parts = zip(*histograms, strict=True)
    return _collect(bits.pop(), *(np.concatenate(part) for part in parts))


def coarsen(histogram: PixelHistogram, *, bits: int) -> PixelHistogram:
    """Return the histogram of the same pixels with fewer leading bits.

    Raises:
      ValueError: If `bits` is below 9 or above the histogram's.
    """
    _check_bits(bits, most=histogram.bits)
    key = histogram.key >> np.uint32(histogram.bits - bits)
    return _collect(bits, key, *histogram[2:])


def at_common_bits(histograms: Iterable[PixelHistogram]) -> list[PixelHistogram]:
    """Bring histograms to the bits of the coarsest, so that they can be merged.

    Raises:
      ValueError: If no histogram is given.
    """
    histograms = list(histograms)
    bits = min(histogram.bits for histogram in histograms)
    return [coarsen(histogram, bits=bits) for histogram in histograms]


def compact(histogram: PixelHistogram, *, max_bins: int = 2048) -> PixelHistogram:
    """Return the finest histogram of the same pixels that has at most `max_bins` bins.

    This allows keeping one histogram for each image: at 32 bytes a bin, 66 kB at most. Scores over
    ten octaves keep a resolution of 1 part in 128; scores in a narrow range keep all of theirs.

    Raises:
      ValueError: If `max_bins` is below 512, the number of bins at the coarsest resolution.
    """
    if max_bins < 1 << MIN_BITS:
        raise ValueError(f"max_bins must be {1 << MIN_BITS} or more, not {max_bins}.")
    bits = histogram.bits
    while len(np.unique(histogram.key >> np.uint32(histogram.bits - bits))) > max_bins:
        bits -= 1
    return coarsen(histogram, bits=bits)


def iou_max(counts: Levels) -> tuple[float, float, float]:
    """Find the highest intersection over union T / (P + F), its threshold, and the recall T / P.

    The IoU is pooled: intersection and union are those of all pixels of all images at one
    threshold, for the anomalous class. It is in (0, 1]. Of several equally good thresholds the
    highest is returned. The threshold is chosen with knowledge of the truth, so report the figure
    as an oracle.

    Raises:
      UndefinedMetric: If there are no normal or no anomalous pixels.
    """
    false, true = cumulative(counts)
    iou = true / (true[-1] + false)
    best = np.argmax(iou)
    return float(iou[best]), float(counts.score[best]), float(true[best] / true[-1])


def iou_max_bound(counts: Levels) -> float:
    """Bound how far the exact highest IoU can exceed that of the bins; it is never below.

    The binned value is reached by its threshold, and so is the recall given with it. A threshold
    inside a bin has at most the bin's T true and at least the F' false positives above the bin,
    so its IoU is at most T / (P + F'). No threshold is inside a bin whose scores tie.

    Raises:
      UndefinedMetric: If there are no normal or no anomalous pixels.
    """
    return float(np.max(_most_iou(counts)) - iou_max(counts)[0])


def _most_iou(counts: Levels) -> Float[np.ndarray, " n"]:
    """Return an upper bound of the IoU for thresholds inside or at the end of each bin."""
    false, true = cumulative(counts)
    return true / (true[-1] + false - counts.normal * unsure(counts))


def recall_bound(counts: Levels) -> float:
    """Bound how far the recall at the exact highest IoU can be from the one of the bins.

    The exact best threshold lies inside or at the end of a bin in which the IoU may exceed that of
    the best bin, or it is the threshold of the best bin. The recall is between that of the bin and
    of the one above.

    Raises:
      UndefinedMetric: If there are no normal or no anomalous pixels.
    """
    false, true = cumulative(counts)
    iou = true / (true[-1] + false)
    best = int(np.argmax(iou))
    most = _most_iou(counts)
    could = (most > iou[best]) | ((most >= iou[best]) & (np.arange(len(iou)) <= best))
    within = counts.anomalous * unsure(counts)
    lowest, highest = np.min((true - within)[could]), np.max(true[could])
    return float(max(true[best] - lowest, highest - true[best]) / true[-1])


def upper_quantile(histogram: PixelHistogram, share: float) -> float:
    """Return a score that at least `share` of all pixels do not exceed, the upper end of a bin.

    At the default bits it is at most 1 part in 2^13 above the exact quantile, and never below it.

    Args:
      histogram: Histogram of any pixels, at least one.
      share: Share of the pixels, in (0, 1].

    Raises:
      UndefinedMetric: If the histogram is empty.
    """
    count = histogram.normal + histogram.anomalous
    if not count.sum():
        raise UndefinedMetric("no pixels")
    # 99.9 / 100 is 0.9990000000000001 in binary, which would count one pixel too many.
    place = int(np.searchsorted(np.cumsum(count), share * count.sum() * (1 - 1e-12)))
    key = histogram.key[min(place, len(count) - 1)]
    # The bin's largest pattern: its leading bits, followed by ones.
    shift = np.uint32(32 - histogram.bits)
    ordered = (key << shift) | np.uint32((1 << int(shift)) - 1)
    pattern = ordered ^ _SIGN if ordered & _SIGN else ~ordered
    return float(np.uint32(pattern).view(np.float32))
