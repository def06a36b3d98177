"""Inspection of test images by a detector, keeping counts and histograms instead of maps."""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from recon_ad.alignment.part import NotRegistered
from recon_ad.data import GOOD, Record
from recon_ad.data.source import digest, roi_of
from recon_ad.detector.inference import Prediction, back
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.padding import padded_size
from recon_ad.evaluation.no_model import NoModel
from recon_ad.metrics import PixelHistogram, compact, empty_histogram, image_histogram, merge
from recon_ad.metrics.patches import PatchMeans, joined, patch_means
from recon_ad.metrics.summary import ImageResult, Pooled, mask_overlap
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime.progress import progress
from recon_ad.runtime.stopping import Stop

_Result = TypeVar("_Result")


def truth_of(
    record: Record, shape: tuple[int, int], *, further: str | None = None
) -> np.ndarray | None:
    """Return the truth mask, bool [h, w]: all False for a good image, None where unknown.

    Args:
      record: Record of the image.
      shape: Height and width of the image.
      further: Name of an additional truth to use instead of the first.
    """
    load_mask = record.load_mask if further is None else record.other_masks.get(further)
    if load_mask is not None:
        return load_mask()
    return None if record.anomalous else np.zeros(shape, bool)


class Clock:
    """Clock of the time from the decoded image to its mask, without the calls that compile."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, ...]] = set()
        self.images, self.seconds = 0, 0.0

    def timed(self, shape: tuple[int, ...], call: Callable[[], _Result]) -> _Result:
        """Run the call; its time counts unless it is the first of its shape."""
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
    """Run `detector.predict` and also return the residual map before smoothing."""
    placement, residual, prediction = detector.predict_aligned(image, roi=roi, reconstruct=False)
    return placement.map_back(residual), back(prediction, placement)


class HostResults(NamedTuple):
    """Results of one host's share of the test images.

    Attributes:
      judged: Result of each image.
      by_defect: Pixels by defect type, including `GOOD`.
      by_truth: Pixels by additional truth.
      patches: Mean residuals of patches, by the image's name.
      lost: Names of images in which the part was not found.
    """

    judged: list[ImageResult]
    by_defect: dict[str, PixelHistogram]
    by_truth: dict[str, PixelHistogram]
    patches: dict[str, PatchMeans]
    lost: list[str]


def judge(
    detector: Detector, test: Sequence[Record], *, baseline: NoModel, clock: Clock, stop: Stop
) -> tuple[list[ImageResult], Pooled, list[str]]:
    """Run the detector over the test images, one at a time on each host; keep counts, not maps.

    All hosts must call this together. If one is requested to stop, all end with
    `stopping.REQUEUE`.

    Returns:
      The result of each image, the pixels of all, and the names of images in which the part was not
      found. Those have no score and are excluded from all figures. Every host returns the same.
    """
    mine = _judge_share(
        detector,
        progress(
            meshes.host_share(test, stop),
            f"evaluation of {test[0].category}" if test and test[0].category else "evaluation",
            total=meshes.host_share_length(test),
        ),
        truths=further_truths(test),
        baseline=baseline,
        clock=clock,
    )
    shares: list[HostResults] = meshes.all_gather(mine)
    baseline.join(meshes.all_gather(baseline.seen()))
    place = {record.name: i for i, record in enumerate(test)}
    judged = sorted(
        itertools.chain(*(share.judged for share in shares)), key=lambda one: place[one.name]
    )
    lost = sorted(itertools.chain(*(share.lost for share in shares)), key=place.__getitem__)
    # In the order of the images, as with a single host.
    kinds = dict.fromkeys(one.defect for one in judged if one.pixels is not None)
    by_defect = {
        kind: merge(*(share.by_defect[kind] for share in shares if kind in share.by_defect))
        for kind in kinds
    }
    by_truth = {name: merge(*(share.by_truth[name] for share in shares)) for name in mine.by_truth}
    patches = {name: part for share in shares for name, part in share.patches.items()}
    good = by_defect.pop(GOOD, empty_histogram())
    pooled = Pooled(
        good,
        by_defect,
        by_truth,
        joined([patches[one.name] for one in judged if one.name in patches]),
    )
    return judged, pooled, lost


def _judge_share(
    detector: Detector,
    records: Iterable[Record],
    *,
    truths: Sequence[str],
    baseline: NoModel,
    clock: Clock,
) -> HostResults:
    share = HostResults([], {}, {name: empty_histogram() for name in truths}, {}, [])
    calibration = detector.record.get("calibration", {})
    used = {*detector.record.get("learnt_from", ()), *calibration.get("digests", ())}
    for record in records:
        image = record.load()
        roi = roi_of(record)
        try:
            residual, prediction = clock.timed(
                padded_size(image.shape[:2]), functools.partial(_decide, detector, image, roi)
            )
        except NotRegistered:
            share.lost.append(record.name)
            continue
        truth = truth_of(record, image.shape[:2])
        baseline.add(image, anomalous=record.anomalous, truth=truth, valid=roi)
        pixels, overlap = None, (0, 0)
        if truth is not None:
            pixels = image_histogram(prediction.anomaly_map, truth, valid=roi)
            overlap = mask_overlap(prediction.mask, truth if roi is None else truth & roi)
            before = share.by_defect.get(record.defect, empty_histogram())
            share.by_defect[record.defect] = merge(before, pixels)
            if not any(detector.config.data.resize):  # resized tiles are not patches of the image
                side = detector.config.data.patch_size
                share.patches[record.name] = patch_means(residual, truth, side=side, valid=roi)
        for name, before in share.by_truth.items():
            mask = truth_of(record, image.shape[:2], further=name)
            if mask is not None:
                share.by_truth[name] = merge(
                    before, image_histogram(prediction.anomaly_map, mask, valid=roi)
                )
        share.judged.append(
            ImageResult(
                record.name,
                record.defect,
                record.anomalous,
                float(prediction.score),
                bool(prediction.label),
                None if pixels is None else compact(pixels),
                *overlap,
                known=digest(image) in used,
            )
        )
        # Free the maps before the next image, so that memory holds one image's maps only.
        del image, roi, residual, prediction, truth
    return share


def further_truths(test: Sequence[Record]) -> list[str]:
    """Return the names of the truths that any image has besides its first."""
    return sorted({name for record in test for name in record.other_masks})
