"""Scores of held-out good images, and how a detector's record keeps them.

A detector keeps the score, the name and a digest of each image that its thresholds rest on, and the
upper end of the histogram of their pixels, so that more images can be added later.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from recon_ad.data.holdout import HoldOut, group_numbers
from recon_ad.data.source import digest, roi_of
from recon_ad.detector.damage import reason
from recon_ad.detector.jax_detector import Detector
from recon_ad.errors import UserError
from recon_ad.metrics import empty_histogram, image_histogram, merge
from recon_ad.metrics.segmentation import MIN_BITS, PixelHistogram, at_common_bits, compact
from recon_ad.ops.scores import ADDITIVE
from recon_ad.runtime.progress import progress

# Entries of the record's calibration for single images and pixels.
FIELDS = ("names", "digests", "shown", "scores", "blocks", "pixel_ends")
KEPT = 10  # times the share of pixels above the pixel threshold that a record keeps apart

logger = logging.getLogger("recon_ad")


class Judged(NamedTuple):
    """Held-out images and their scores; the lists have an entry for each image.

    Attributes:
      names: Names of the images.
      digests: Digests of their content; "" for regions, which are not told apart.
      categories: Their categories; "" where there is only one.
      scores: Scores of the images.
      blocks: Numbers of their blocks of neighbours, or of their groups.
      pixels: Histograms by category, of all of its images.
      grouped: Whether blocks are groups, each independent of the others.
    """

    names: list[str]
    digests: list[str]
    categories: list[str]
    scores: list[float]
    blocks: list[int]
    pixels: dict[str, PixelHistogram]
    grouped: bool = False

    def without(self, category: str) -> "Judged":
        """Return the images of other categories."""
        rest = [i for i, other in enumerate(self.categories) if other != category]
        lists = ([values[i] for i in rest] for values in self[:5])
        pixels = {name: h for name, h in self.pixels.items() if name != category}
        return Judged(*lists, pixels, self.grouped)


def judge_heldout(detector: Detector, holdout: HoldOut, *, known: Collection[str] = ()) -> Judged:
    """Judge each held-out image by a detector that has not seen it.

    Args:
      detector: Detector without a part. Where images are crossed it was trained on all of them.
      holdout: Division with the held-out images.
      known: Digests of images to leave out. Copies among whole images count once.

    Raises:
      UserError: If a score is not finite.
    """
    regions = holdout.regions_per_image
    found = Judged([], [], [], [], [], {}, holdout.grouped)
    seen, copies, judge, current = set(known), 0, detector, -1
    order = sorted(range(len(holdout.heldout)), key=lambda i: (holdout.blocks[i], i))
    contents: list[str] = []
    if holdout.crossed:
        looked_at = progress(holdout.heldout, "comparison of the images")
        contents = [digest(record.load()) for record in looked_at]
    for i in progress(order, "calibration"):
        record, block = holdout.heldout[i], holdout.blocks[i]
        if holdout.crossed and block != current:
            # With copies of its images in other blocks.
            own = {contents[k] for k, other in enumerate(holdout.blocks) if other == block}
            places = [k for k, content in enumerate(contents) if content in own]
            judge, current = detector.without(places), block
        roi, image = roi_of(record), record.load()
        content = contents[i] if contents else digest(image) if regions == 1 else ""
        if content in seen:  # a copy adds no information about scores
            copies += 1
            continue
        if content:
            seen.add(content)
        prediction = judge.predict(image, roi=roi, reconstruct=False)
        if not np.isfinite(prediction.score):
            raise UserError(
                f"{record.name} has the score {prediction.score}: the detector is damaged; train "
                "it anew."
            )
        score = float(prediction.score)
        if detector.config.inference.score in ADDITIVE:
            # The sum over an image is about that of a region times the number of regions.
            score *= regions
        found.names.append(record.name)
        found.digests.append(content)
        found.categories.append(record.category)
        found.scores.append(score)
        found.blocks.append(block)
        nothing = np.zeros(prediction.anomaly_map.shape, bool)
        pixels = image_histogram(prediction.anomaly_map, nothing, valid=roi)
        before = found.pixels.get(record.category, empty_histogram())
        found.pixels[record.category] = merge(before, pixels)
    if copies:
        logger.warning(
            "%d of the %d images are duplicates or already used, and were skipped",
            copies,
            len(order),
        )
    return found


def joined(earlier: Judged, later: Judged, *, group: str) -> Judged:
    """Return both together; later blocks are distinct from earlier ones.

    Args:
      earlier: Earlier images.
      later: Further ones.
      group: Expression of the groups, where both have them (`holdout.split_holdout`): images of one
        group belong together, whether earlier or later.
    """
    names = earlier.names + later.names
    first = max(earlier.blocks, default=-1) + 1
    blocks, grouped = earlier.blocks + [first + block for block in later.blocks], False
    if earlier.grouped and later.grouped:
        blocks, grouped = list(group_numbers(names, group)), True
    pixels = dict(earlier.pixels)
    for category, histogram in later.pixels.items():
        before = [pixels[category]] if category in pixels else []
        pixels[category] = merge(*at_common_bits([*before, histogram]))
    return Judged(
        *(a + b for a, b in zip(earlier[:4], later[:4], strict=True)), blocks, pixels, grouped
    )


def kept(judged: Judged, *, percentile: float) -> dict[str, Any]:
    """Return the entries of the images for a detector's record, plain JSON for `read_kept`."""
    ends = {
        category: _end(histogram, 1 - percentile / 100)
        for category, histogram in judged.pixels.items()
    }
    return dict(zip(FIELDS, (*judged[:5], ends), strict=True))


def _end(histogram: PixelHistogram, share: float) -> dict[str, Any]:
    """Return the bins of the highest pixels; the others are counted in the lowest of these."""
    above = np.cumsum(histogram.normal[::-1])[::-1]
    first = max(int(np.searchsorted(-above, -KEPT * share * above[0], side="right")) - 1, 0)
    end = PixelHistogram(histogram.bits, *(values[first:].copy() for values in histogram[1:]))
    end.normal[0] = above[0] - int(end.normal[1:].sum())
    end = compact(end)
    return {"bits": end.bits, "keys": end.key.tolist(), "counts": end.normal.tolist()}


def read_kept(record: Mapping[str, Any]) -> Judged | None:
    """Read the images of a detector's calibration from its record; None where it keeps none.

    Raises:
      UserError: If it is damaged.
    """
    entry = record.get("calibration", {})
    if "pixel_ends" not in entry:
        return None
    try:
        lists = [list(entry[k]) for k in FIELDS[:5]]
        names, digests, shown, scores, blocks = lists
        if len({len(values) for values in lists}) != 1:
            raise ValueError("its lists differ in length")
        if not np.isfinite(np.array(scores, np.float64)).all():
            raise ValueError("a score is not finite")
        pixels = {str(c): _histogram(end) for c, end in entry["pixel_ends"].items()}
        if set(shown) != set(pixels):
            raise ValueError("its categories differ")
        return Judged(
            [str(name) for name in names],
            [str(content) for content in digests],
            [str(category) for category in shown],
            [float(score) for score in scores],
            [int(block) for block in blocks],
            pixels,
            bool(entry["grouped"]),
        )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"the detector's record of its calibration is damaged ({reason(error)}): calibrate "
            "anew with --replace."
        ) from None


def _histogram(end: Mapping[str, Any]) -> PixelHistogram:
    bits, count = int(end["bits"]), np.array(end["counts"], np.int64)
    key = np.array(end["keys"], np.int64)
    if not (MIN_BITS <= bits <= 32 and len(key) == len(count) > 0):
        raise ValueError("its pixels are not a histogram")
    if (np.diff(key) <= 0).any() or key[0] < 0 or key[-1] >= 1 << bits or (count < 0).any():
        raise ValueError("its pixels are not a histogram")
    nothing = np.zeros_like(count)
    return PixelHistogram(
        bits, key.astype(np.uint32), count, nothing, nothing.astype(np.float64),
        np.zeros(len(key), np.uint32),
    )  # fmt: skip
