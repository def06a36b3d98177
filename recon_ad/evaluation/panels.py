"""Choice of the images of an evaluation that a report shows, and their pictures."""

import contextlib
import functools
from collections.abc import Sequence

import numpy as np

from recon_ad.alignment.part import NotRegistered
from recon_ad.data import Record, Source
from recon_ad.data.source import digest, roi_of, spread
from recon_ad.detector.heldout import Judged, read_kept
from recon_ad.detector.inference import Prediction, back
from recon_ad.detector.jax_detector import Detector
from recon_ad.evaluation.judge import truth_of
from recon_ad.metrics import merge, upper_quantile
from recon_ad.metrics.summary import ImageResult, Pooled
from recon_ad.report import Panel, Scale, SmallPanel, pixel_scale, shrink_panel
from recon_ad.runtime.progress import progress

# Training images that are inspected for the report if calibration has inspected none of them.
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
    """Return the report's panel of an image, at the image's full size."""
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
    """Inspect one image again and return its panel for the report; `scale` is the slider's."""
    detector = detector.of_known(record.category)
    image = record.load()
    roi = roi_of(record)
    placement, _, judged = detector.predict_aligned(image, roi=roi, reconstruct=True)
    prediction = back(judged, placement)

    def mask_at(threshold: float) -> np.ndarray:
        # In the frame of the template, as in inspection: maps that were moved back give other
        # masks.
        above = judged.anomaly_map > np.float32(threshold)
        inside = above if placement.valid is None else above & placement.valid
        return placement.mask_back(detector.clean(inside))

    truth = truth_of(record, image.shape[:2])
    whole = whole_panel(
        detector, image, prediction, name=record.name, defect=record.defect, truth=truth
    )
    # The slider does not change the verdict: an accepted image has no marks at any position.
    return shrink_panel(whole, scale=scale if prediction.label else None, mask_at=mask_at)


def slider_scale(detector: Detector, pooled: Pooled) -> Scale | None:
    """Return the pixel thresholds of the report's slider, or None where it has no slider.

    A report has none if no truth is known or each category has a separate threshold.
    """
    if len(detector.categories) > 1:
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
    """Choose the report's images: worst mistakes, hits, good images, odd training images.

    Args:
      detector: Calibrated detector.
      source: Source whose test images were inspected.
      judged: Results, one for each test image.
      limit: Largest number of images in a group.
      scale: Scale of the report's slider.

    Returns:
      The panels of each group, or a sentence for a group without images.
    """
    pairs = zip(source.test, judged, strict=True)
    ranked = sorted(pairs, key=lambda pair: pair[1].score, reverse=True)

    def those(*, anomalous: bool, label: bool) -> list[Record]:
        return [r for r, j in ranked if j.anomalous == anomalous and j.label == label]

    misses = those(anomalous=True, label=False)[::-1]
    alarms, passed = (those(anomalous=False, label=label) for label in (True, False))
    hits = one_of_each(those(anomalous=True, label=True))

    def drawn(records: Sequence[Record], otherwise: str) -> Sequence[SmallPanel] | str:
        shown = progress(records[:limit], "report, pictures")
        return [panel(detector, r, scale=scale) for r in shown] or otherwise

    groups: dict[str, Sequence[SmallPanel] | str] = {}
    if any(record.anomalous for record in source.test):
        groups["Worst misses"] = drawn(misses, "No misses: every defect is found.")
    if any(not record.anomalous for record in source.test):
        groups["Worst false alarms"] = drawn(alarms, "No false alarms: no good part is stopped.")
    if hits:
        groups["Clearest hits"] = drawn(hits, "")
    if passed:
        groups["Typical good images"] = drawn(typical(passed, count=max(1, limit // 2)), "")
    odd, of = odd_training(detector, source, count=max(1, limit // 2), scale=scale)
    groups[f"Most anomalous training images{of}"] = odd or ""
    return groups


def one_of_each(records: Sequence[Record]) -> list[Record]:
    """Reorder the records so that the first of each defect type comes before the second of any."""
    seen: dict[str, int] = {}
    turn = []
    for record in records:
        turn.append(seen.get(record.defect, 0))
        seen[record.defect] = turn[-1] + 1
    return [records[i] for i in sorted(range(len(records)), key=turn.__getitem__)]


def typical(records: Sequence[Record], *, count: int) -> list[Record]:
    """Return `count` records, the middle ones of as many equal parts, the most central first."""
    count = min(count, len(records))
    places = [(2 * i + 1) * len(records) // (2 * count) for i in range(count)]
    middle = len(records) // 2
    return [records[i] for i in sorted(places, key=lambda place: abs(place - middle))]


def odd_training(
    detector: Detector, source: Source, *, count: int, scale: Scale | None
) -> tuple[list[SmallPanel], str]:
    """Return panels of the training images with the highest scores, and a note on their selection.

    Crossed calibration has a held-out score of each image. The panel is then by the detector that
    has not seen the image's block. Otherwise some images are inspected by the detector itself,
    spread evenly over all.
    """
    kept = read_kept(detector.record)
    if kept and detector.record["calibration"].get("rule") == "cross":
        known = dict(zip(kept.names, kept.scores, strict=True))
        contents = dict(zip(kept.names, kept.digests, strict=True))
        judged = [record for record in source.train if record.name in known]
        odd = sorted(judged, key=lambda record: -known[record.name])[:count]
        # Images of another folder may have the same names, so contents are compared.
        if odd and all(digest(record.load()) == contents[record.name] for record in odd):
            shown = [
                panel(_without_block(detector, source, kept, record.name), record, scale=scale)
                for record in odd
            ]
            # Scores differ if images were left out of training, so that places have shifted, or if
            # the block's images have copies in other blocks.
            if np.allclose([p.score for p in shown], [known[p.name] for p in shown], rtol=1e-4):
                return shown, ", held out"
            return [panel(detector, record, scale=scale) for record in odd], ""
    looked_at = spread(source.train, LOOKED_AT)
    scored = []
    for i, record in enumerate(progress(looked_at, "report, training images")):
        roi = roi_of(record)
        with contextlib.suppress(NotRegistered):  # training also left such images out
            # To reconstruct and draw all of them would take longer than to inspect the few again.
            score = detector.predict(record.load(), roi=roi, reconstruct=False).score
            scored.append((float(score), i))
    of = "" if len(looked_at) == len(source.train) else f", from a sample of {len(looked_at)}"
    highest = sorted(scored, reverse=True)[:count]
    return [panel(detector, looked_at[i], scale=scale) for _, i in highest], of


def _without_block(detector: Detector, source: Source, kept: Judged, name: str) -> Detector:
    """Return the detector as if it had not been trained on the block of the named image."""
    blocks = dict(zip(kept.names, kept.blocks, strict=True))
    places = [i for i, r in enumerate(source.train) if blocks.get(r.name) == blocks[name]]
    return detector.without(places)
