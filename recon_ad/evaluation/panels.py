"""Which images of an evaluation a report shows, and what it shows of each."""

import contextlib
import functools
from collections.abc import Sequence

import numpy as np

from recon_ad.alignment.part import NotRegistered
from recon_ad.data import Record, Source
from recon_ad.data.source import digest, roi_of, spread
from recon_ad.detector.heldout import read_kept
from recon_ad.detector.inference import Prediction, back
from recon_ad.detector.jax_detector import Detector
from recon_ad.evaluation.judge import truth_of
from recon_ad.metrics import merge, upper_quantile
from recon_ad.metrics.summary import ImageResult, Pooled
from recon_ad.report import Panel, Scale, SmallPanel, pixel_scale, shrink_panel
from recon_ad.runtime.progress import progress

# Training images that are judged for the report where calibration has judged none of them.
LOOKED_AT = 30


def whole_panel(
    detector: Detector,
    image: np.ndarray,
    prediction: Prediction,
    *,
    name: str,
    defect: str,
    truth: np.ndarray | None,
) -> Panel:
    """What a report shows of an image, at its full size."""
    return Panel(
        name=name,
        defect=defect,
        score=float(prediction.score),
        threshold=detector.thresholds.image,
        image=image,
        reconstruction=prediction.reconstruction,
        residual=prediction.anomaly_map,
        truth=truth,
        mask=prediction.marks,
        pixel_threshold=detector.thresholds.pixel,
    )


def panel(detector: Detector, record: Record, *, scale: Scale | None) -> SmallPanel:
    """Everything about one image, computed anew, for the report; `scale` is its slider's."""
    detector = detector.of_known(record.category)
    image = record.load()
    roi = roi_of(record)
    placement, _, judged = detector.predict_aligned(image, roi=roi, reconstruct=True)
    prediction = back(judged, placement)

    def mask_at(threshold: float) -> np.ndarray:
        # In the frame in which it was judged: maps that were moved back cut other masks.
        above = judged.anomaly_map > np.float32(threshold)
        inside = above if placement.valid is None else above & placement.valid
        return placement.mask_back(detector.clean(inside))

    truth = truth_of(record, image.shape[:2])
    whole = whole_panel(
        detector, image, prediction, name=record.name, defect=record.defect, truth=truth
    )
    # The verdict stays, wherever the slider stands: an accepted image has no marks at any.
    return shrink_panel(whole, scale=scale if prediction.label else None, mask_at=mask_at)


def slider_scale(detector: Detector, pooled: Pooled) -> Scale | None:
    """The pixel thresholds that the report offers; None where no truth is known, or there are
    several calibrated ones."""
    if len(detector.categories) > 1:  # with thresholds of their own
        return None
    pixels = merge(pooled.good, *pooled.defects.values())
    if not len(pixels.key):
        return None
    return pixel_scale(detector.thresholds.pixel, functools.partial(upper_quantile, pixels))


def choose_panels(
    detector: Detector,
    source: Source,
    judged: Sequence[ImageResult],
    *,
    limit: int,
    scale: Scale | None,
) -> dict[str, Sequence[SmallPanel] | str]:
    """Which images the report shows: the worst mistakes, hits and good ones, odd training images.

    Args:
      detector: calibrated.
      source: its test images are those that were judged.
      judged: what the detector said of each.
      limit: images in a group at most.
      scale: of the report's slider.
    """
    pairs = zip(source.test, judged, strict=True)
    ranked = sorted(pairs, key=lambda pair: pair[1].score, reverse=True)

    def those(*, anomalous: bool, label: bool) -> list[Record]:
        return [r for r, j in ranked if j.anomalous == anomalous and j.label == label]

    misses = those(anomalous=True, label=False)[::-1]
    alarms, passed = (those(anomalous=False, label=label) for label in (True, False))
    hits = one_of_each(those(anomalous=True, label=True))
    odd, of = odd_training(detector, source, count=max(1, limit // 2))

    def drawn(records: Sequence[Record], otherwise: str) -> Sequence[SmallPanel] | str:
        shown = progress(records[:limit], "report, pictures")
        return [panel(detector, r, scale=scale) for r in shown] or otherwise

    groups: dict[str, Sequence[SmallPanel] | str] = {}
    if any(record.anomalous for record in source.test):
        groups["Worst misses"] = drawn(misses, "None: every defect is found.")
    if any(not record.anomalous for record in source.test):
        groups["Worst false alarms"] = drawn(alarms, "None: no good part is stopped.")
    if hits:
        groups["Clearest hits"] = drawn(hits, "")
    if passed:
        groups["Typical good ones"] = drawn(typical(passed, count=max(1, limit // 2)), "")
    groups[f"Most anomalous training images{of}"] = drawn(odd, "")
    return groups


def one_of_each(records: Sequence[Record]) -> list[Record]:
    """The records in their order, but the first of each defect type before the second of any."""
    seen: dict[str, int] = {}
    turn = []
    for record in records:
        turn.append(seen.get(record.defect, 0))
        seen[record.defect] = turn[-1] + 1
    return [records[i] for i in sorted(range(len(records)), key=turn.__getitem__)]


def typical(records: Sequence[Record], *, count: int) -> list[Record]:
    """So many of the records, the middle of each of as many equal parts, the middle one first."""
    count = min(count, len(records))
    places = [(2 * i + 1) * len(records) // (2 * count) for i in range(count)]
    middle = len(records) // 2
    return [records[i] for i in sorted(places, key=lambda place: abs(place - middle))]


def odd_training(detector: Detector, source: Source, *, count: int) -> tuple[list[Record], str]:
    """Returns the training images with the highest scores, and what they were chosen from.

    Crossed calibration has the score of each, held out. Else some images are judged, spread evenly
    over all.
    """
    kept = read_kept(detector.record)
    if kept and detector.record["calibration"].get("rule") == "cross":
        known = dict(zip(kept.names, kept.scores, strict=True))
        contents = dict(zip(kept.names, kept.digests, strict=True))
        judged = [record for record in source.train if record.name in known]
        odd = sorted(judged, key=lambda record: -known[record.name])[:count]
        # Other folders have images of the same names.
        if odd and all(digest(record.load()) == contents[record.name] for record in odd):
            return odd, ", held out"
    looked_at = spread(source.train, LOOKED_AT)
    scored = []
    for i, record in enumerate(progress(looked_at, "report, training images")):
        roi = roi_of(record)
        with contextlib.suppress(NotRegistered):  # training left it out, too
            score = detector.predict(record.load(), roi=roi, reconstruct=False).score
            scored.append((float(score), i))
    of = "" if len(looked_at) == len(source.train) else f" of {len(looked_at)} spread over all"
    return [looked_at[i] for _, i in sorted(scored, reverse=True)[:count]], of
