"""Figures of metrics.json from a detector's results on each test image.

A figure that the data cannot give is None, and its reason is stored under `missing`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from recon_ad.metrics import bootstrap
from recon_ad.metrics.auroc_interval import auroc_interval
from recon_ad.metrics.conformal import rate_interval
from recon_ad.metrics.figures import PRESORTED, STRICT_FPR_LIMIT
from recon_ad.metrics.patches import PatchMeans, joined
from recon_ad.metrics.pimo import aupimo, aupimo_bound
from recon_ad.metrics.pro import aupro, aupro_bound
from recon_ad.metrics.ranking import (
    UndefinedMetric,
    auroc,
    auroc_bound,
    average_precision,
    average_precision_bound,
    f1_max,
    f1_max_bound,
    levels,
    presorted_bad,
    presorted_good,
)
from recon_ad.metrics.segmentation import (
    PixelHistogram,
    at_common_bits,
    empty_histogram,
    iou_max,
    iou_max_bound,
    merge,
    recall_bound,
)


class ImageResult(NamedTuple):
    """Result of the detector on one test image, with the truth.

    Attributes:
      name: Name of the image.
      defect: Defect type.
      anomalous: True if the image is defective.
      score: Raw image score.
      label: Decision at the calibrated image threshold, True if the image is stopped.
      pixels: Compact histogram of the raw map's pixels. None where no truth mask is known.
      intersection: Number of pixels in both the calibrated mask and the truth.
      union: Number of pixels in either.
      known: True if training or calibration used an image of the same content.
    """

    name: str
    defect: str
    anomalous: bool
    score: float
    label: bool
    pixels: PixelHistogram | None
    intersection: int
    union: int
    known: bool = False


class Pooled(NamedTuple):
    """Pixels of all images with a truth mask, at full resolution of the histogram.

    Attributes:
      good: Pixels of good images.
      defects: Pixels of defective images, by defect type.
      other: Pixels of all images, by the name of an additional truth.
      patches: Mean residuals of patches of all images.
    """

    good: PixelHistogram
    defects: Mapping[str, PixelHistogram]
    other: Mapping[str, PixelHistogram]
    patches: PatchMeans


def _given(missing: dict[str, str], key: str, figure: Callable[[], Any]) -> Any:
    """Return the figure, or None after storing the reason in `missing`."""
    try:
        return figure()
    except UndefinedMetric as reason:
        missing[key] = str(reason)
        return None


def _share(values: Bool[np.ndarray, " n"], *, of: str) -> float:
    if not len(values):
        raise UndefinedMetric(f"no {of} test images")
    return float(np.mean(values))


def image_figures(judged: Sequence[ImageResult]) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute the ranking figures of the images and the rates at the calibrated threshold."""
    scores = np.array([j.score for j in judged], np.float64)
    truth = np.array([j.anomalous for j in judged], bool)
    label = np.array([j.label for j in judged], bool)
    missing: dict[str, str] = {}
    counts = levels(scores, truth)
    rows = {
        "image_auroc": lambda: auroc(counts),
        "image_ap": lambda: average_precision(counts),
        "image_f1_max": lambda: f1_max(counts)[0],
        "image_fpr_calibrated": lambda: _share(label[~truth], of="normal"),
        "image_tpr_calibrated": lambda: _share(label[truth], of="defective"),
    }
    for percent in PRESORTED:
        rows |= {
            f"pg_{percent}_oracle": partial(presorted_good, counts, percent=percent),
            f"pb_{percent}_oracle": partial(presorted_bad, counts, percent=percent),
        }
    return {key: _given(missing, key, rows[key]) for key in rows}, missing


def pixel_figures(pixels: PixelHistogram) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute the figures of pixel ranking; `oracle` figures choose the threshold by the truth."""
    missing: dict[str, str] = {}
    counts = pixels.levels()
    rows = {
        "pixel_auroc": lambda: auroc(counts),
        "pixel_ap": lambda: average_precision(counts),
        "aupro_30": lambda: aupro(pixels),
        "aupro_05": lambda: aupro(pixels, fpr_limit=STRICT_FPR_LIMIT),
        "iou_max_oracle": lambda: iou_max(counts)[0],
        "recall_at_iou_max_oracle": lambda: iou_max(counts)[2],
        "seg_f1_max_oracle": lambda: f1_max(counts)[0],
    }
    return {key: _given(missing, key, rows[key]) for key in rows}, missing


def _calibrated_masks(judged: Sequence[ImageResult]) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute the figures of the masks at the calibrated pixel threshold.

    They are the pooled IoU, its mean over defective images, and `seg_f1_calibrated`, the F1 of all
    pixels of all images as the server of MVTec AD 2 computes it (SegF1, Heckler-Kram et al. 2025).
    With the pooled intersection I and union U it is 2 T / (2 T + F + M) = 2 I / (I + U).
    """
    missing: dict[str, str] = {}
    known = [j for j in judged if j.pixels is not None]
    defective = [j for j in known if j.anomalous]

    def pooled() -> tuple[int, int]:
        if not any(j.union for j in defective):
            raise UndefinedMetric("no defective test image with a truth mask")
        return sum(j.intersection for j in known), sum(j.union for j in known)

    def iou() -> float:
        intersection, union = pooled()
        return intersection / union

    def f1() -> float:
        intersection, union = pooled()
        return 2 * intersection / (intersection + union)

    def mean() -> float:
        pooled()
        # A union is empty where the defect lies outside the region of interest and nothing is
        # marked.
        return float(np.mean([j.intersection / j.union for j in defective if j.union]))

    rows = {"iou_calibrated": iou, "iou_mean_calibrated": mean, "seg_f1_calibrated": f1}
    return {key: _given(missing, key, rows[key]) for key in rows}, missing


def _by_class(
    judged: Sequence[ImageResult],
) -> tuple[list[PixelHistogram], list[PixelHistogram]]:
    """Return the pixels of each good and of each defective image that has a truth mask."""
    known = [j for j in judged if j.pixels is not None]
    good = [j.pixels for j in known if not j.anomalous]
    return good, [j.pixels for j in known if j.anomalous]


def pimo_figure(judged: Sequence[ImageResult]) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute the recall of each image's defective pixels at almost no false alarms."""
    missing: dict[str, str] = {}
    return {"aupimo": _given(missing, "aupimo", lambda: aupimo(*_by_class(judged)))}, missing


def patch_figure(patches: PatchMeans) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute how well the mean residual ranks patches (Schneider et al. 2022, Fig. 6)."""
    missing: dict[str, str] = {}
    scores = np.concatenate(patches)
    truth = np.arange(len(scores)) >= len(patches.normal)
    figure = _given(missing, "patch_auroc", lambda: auroc(levels(scores, truth)))
    if not len(scores):
        missing["patch_auroc"] = "no patches: the images are resized, or have no truth masks"
    return {"patch_auroc": figure}, missing


def _bounds(judged: Sequence[ImageResult], pixels: PixelHistogram) -> dict[str, float]:
    """Bound how far each binned figure may be from the one of the pixels' exact scores."""
    counts = pixels.levels()
    rows = {
        "pixel_auroc": lambda: auroc_bound(counts),
        "pixel_ap": lambda: average_precision_bound(counts),
        "aupro_30": lambda: aupro_bound(pixels),
        "aupro_05": lambda: aupro_bound(pixels, fpr_limit=STRICT_FPR_LIMIT),
        "aupimo": lambda: aupimo_bound(*_by_class(judged)),
        "iou_max_oracle": lambda: iou_max_bound(counts),
        "recall_at_iou_max_oracle": lambda: recall_bound(counts),
        "seg_f1_max_oracle": lambda: f1_max_bound(counts),
    }
    bounds = {key: _given({}, key, rows[key]) for key in rows}
    return {key: value for key, value in bounds.items() if value is not None}


def _intervals(
    judged: Sequence[ImageResult], everything: PixelHistogram, *, seed: int, resamples: int
) -> tuple[dict[str, tuple[float, float]], dict[str, str]]:
    """Compute the 95 % intervals, and the reasons of those that are missing.

    Rates have exact intervals, the image AUROC has `auroc_interval`, the rest the bootstrap.
    """
    scores = np.array([j.score for j in judged], np.float64)
    truth = np.array([j.anomalous for j in judged], bool)
    label = np.array([j.label for j in judged], bool)
    histograms = [j.pixels for j in judged if j.pixels is not None]
    missing: dict[str, str] = {}
    found: dict[str, tuple[float, float]] = {}
    for key, of in (("image_fpr_calibrated", ~truth), ("image_tpr_calibrated", truth)):
        if of.any():
            found[key] = rate_interval(int(label[of].sum()), int(of.sum()))
    auroc_ends = _given(missing, "intervals.image_auroc", lambda: auroc_interval(scores, truth))
    if auroc_ends is not None:
        found["image_auroc"] = auroc_ends
    found |= (
        _given(
            missing,
            "intervals.images",
            lambda: bootstrap.image_intervals(scores, truth, seed=seed, resamples=resamples),
        )
        or {}
    )
    pixels = _given(
        missing,
        "intervals.pixels",
        lambda: bootstrap.pixel_intervals(histograms, seed=seed, resamples=resamples),
    )
    if pixels:
        coarse = merge(*at_common_bits(histograms))
        for name, (low, high) in pixels.items():
            # The resamples use coarse histograms, whose own figure differs slightly.
            figure = bootstrap.PIXEL_FIGURES[name]
            shift = figure(everything) - figure(coarse)
            found[name] = (max(0.0, low + shift), min(1.0, high + shift))
    return found, missing


def _per_defect(judged: Sequence[ImageResult], pooled: Pooled) -> dict[str, dict[str, Any]]:
    """Compute the figures of each defect type against all good images."""
    good = [j for j in judged if not j.anomalous]
    table = {}
    for defect in sorted({j.defect for j in judged if j.anomalous}):
        of_type = [j for j in judged if j.defect == defect]
        images, _ = image_figures([*good, *of_type])
        pixels, _ = pixel_figures(merge(pooled.good, pooled.defects.get(defect, empty_histogram())))
        table[defect] = {
            "n": len(of_type),
            **{k: images[k] for k in ("image_auroc", "image_tpr_calibrated")},
            **{k: pixels[k] for k in ("pixel_auroc", "aupro_30", "iou_max_oracle")},
        }
    return table


def pool(parts: Sequence[Pooled]) -> Pooled:
    """Merge the pixels of several parts of the images, whose defect types differ in name."""
    truths = {name for part in parts for name in part.other}
    return Pooled(
        merge(*(part.good for part in parts)),
        {defect: pixels for part in parts for defect, pixels in part.defects.items()},
        {
            name: merge(*(part.other[name] for part in parts if name in part.other))
            for name in sorted(truths)
        },
        joined([part.patches for part in parts]),
    )


def _figures(
    judged: Sequence[ImageResult], pooled: Pooled
) -> tuple[dict[str, Any], dict[str, str]]:
    """Compute all figures, and the reasons of those that are None."""
    parts = (
        image_figures(judged),
        pixel_figures(merge(pooled.good, *pooled.defects.values())),
        pimo_figure(judged),
        _calibrated_masks(judged),
        patch_figure(pooled.patches),
    )
    figures: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for found, reasons in parts:
        figures |= found
        missing |= reasons
    return figures, missing


def summarize(
    categories: Mapping[str, tuple[Sequence[ImageResult], Pooled]], *, seed: int, resamples: int
) -> dict[str, Any]:
    """Compute all figures of the test images, with intervals, bounds and the missing ones' reasons.

    Args:
      categories: Results and pixels of each category's images, at least one image each. With
        several categories, the main figures are those of all images together. Each category's own
        figures, which papers average, are under `per_category`, their mean under `category_mean`.
      seed: Seed of the bootstrap.
      resamples: Number of resamples of the bootstrap.
    """
    judged = [j for rows, _ in categories.values() for j in rows]
    pooled = pool([pixels for _, pixels in categories.values()])
    everything = merge(pooled.good, *pooled.defects.values())
    figures, missing = _figures(judged, pooled)
    per_defect: dict[str, dict[str, Any]] = {}
    for part in categories.values():  # against the good images of their own category
        per_defect |= _per_defect(*part)
    intervals, reasons = _intervals(judged, everything, seed=seed, resamples=resamples)
    missing |= reasons
    summary = {
        **figures,
        "intervals": intervals,
        "bounds": _bounds(judged, everything),
        "per_defect": per_defect,
        "truths": {name: pixel_figures(h)[0] for name, h in pooled.other.items()},
        "missing": missing,
    }
    if len(categories) > 1:
        each = {name: _figures(*part) for name, part in categories.items()}
        summary["per_category"] = {
            name: {"n": len(categories[name][0])} | found for name, (found, _) in each.items()
        }
        # Over all categories or none: a mean over fewer must not pass for one over all.
        lacking = {
            key: [n for n, (found, _) in each.items() if found[key] is None] for key in figures
        }
        summary["category_mean"] = {
            key: None if none else float(np.mean([found[key] for found, _ in each.values()]))
            for key, none in lacking.items()
        }
        missing |= {
            f"category_mean.{key}": "; ".join(
                f"{name}: {each[name][1].get(key, 'none')}" for name in none
            )
            for key, none in lacking.items()
            if none
        }
        for name, (_, reasons) in each.items():
            missing |= {f"per_category.{name}.{key}": why for key, why in reasons.items()}
    return summary


def mask_overlap(mask: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """Return the number of pixels in both masks and the number in either."""
    return int(np.count_nonzero(mask & truth)), int(np.count_nonzero(mask | truth))
