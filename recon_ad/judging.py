"""Runs a detector over test images, and keeps counts and histograms instead of maps."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from recon_ad.baselines import NoModel
from recon_ad.data import GOOD, Record
from recon_ad.detector import Detector
from recon_ad.inference import Prediction, map_bucket
from recon_ad.metrics import PixelHistogram, compact, empty_histogram, image_histogram, merge
from recon_ad.metrics.patches import PatchMeans, joined, patch_means
from recon_ad.metrics.summary import Judged, Pooled, mask_overlap

_Result = TypeVar("_Result")


def truth_of(
    record: Record, shape: tuple[int, int], *, further: str | None = None
) -> np.ndarray | None:
    """The truth mask, bool [h, w]; all False for a good image; None where it is not known.

    Args:
      record: the image.
      shape: its height and width.
      further: the name of another truth than its first.
    """
    load_mask = record.load_mask if further is None else record.other_masks.get(further)
    if load_mask is not None:
        return load_mask()
    return None if record.anomalous else np.zeros(shape, bool)


class Clock:
    """Images per second, from the decoded image to its mask, without the calls that compile."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, ...]] = set()
        self.images, self.seconds = 0, 0.0

    def timed(self, shape: tuple[int, ...], call: Callable[[], _Result]) -> _Result:
        """Runs the call; its time counts unless it is the first of its shape."""
        start = time.perf_counter()
        result = call()
        if shape in self._seen:
            self.images += 1
            self.seconds += time.perf_counter() - start
        self._seen.add(shape)
        return result


def _decide(
    detector: Detector, image: np.ndarray, roi: np.ndarray | None
) -> tuple[np.ndarray, Prediction]:
    """`detector.predict`, with the residual map before its smoothing."""
    residual, _ = detector.residual_map(image)
    return residual, detector.decide(residual, roi=roi)


def judge(
    detector: Detector, test: Sequence[Record], *, baseline: NoModel, clock: Clock
) -> tuple[list[Judged], Pooled]:
    """Runs the detector over the test images, one at a time; keeps counts, not maps."""
    judged: list[Judged] = []
    # Pixels by defect type (GOOD among them), and by further truth.
    by_defect: dict[str, PixelHistogram] = {}
    by_truth: dict[str, PixelHistogram] = {name: empty_histogram() for name in further_truths(test)}
    patches: list[PatchMeans] = []
    for record in test:
        image = record.load()
        roi = record.load_roi() if record.load_roi else None
        residual, prediction = clock.timed(
            map_bucket(image.shape[:2]), functools.partial(_decide, detector, image, roi)
        )
        truth = truth_of(record, image.shape[:2])
        baseline.add(image, anomalous=record.anomalous, truth=truth, valid=roi)
        pixels, overlap = None, (0, 0)
        if truth is not None:
            pixels = image_histogram(prediction.anomaly_map, truth, valid=roi)
            overlap = mask_overlap(prediction.mask, truth if roi is None else truth & roi)
            before = by_defect.get(record.defect, empty_histogram())
            by_defect[record.defect] = merge(before, pixels)
            side = detector.config.data.patch_size
            patches.append(patch_means(residual, truth, side=side, valid=roi))
        for name, before in by_truth.items():
            mask = truth_of(record, image.shape[:2], further=name)
            if mask is not None:
                by_truth[name] = merge(
                    before, image_histogram(prediction.anomaly_map, mask, valid=roi)
                )
        judged.append(
            Judged(
                record.name,
                record.defect,
                record.anomalous,
                float(prediction.score),
                bool(prediction.label),
                None if pixels is None else compact(pixels),
                *overlap,
            )
        )
        # The next image is not to be judged beside the maps of this one.
        del image, roi, residual, prediction, truth
    good = by_defect.pop(GOOD, empty_histogram())
    return judged, Pooled(good, by_defect, by_truth, joined(patches))


def further_truths(test: Sequence[Record]) -> list[str]:
    """Names of the truths that some image has besides its first."""
    return sorted({name for record in test for name in record.other_masks})
