"""Real defects: how many are missed, by kind and size, beside what inserted ones predict.

The size of a real defect is that of an inserted one: the diameter of the smallest circle that holds
it, here the largest connected region of its truth mask.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool
from scipy import ndimage, stats

from recon_ad.certification.rejects import CONFIDENCE, rate_of
from recon_ad.certification.trials import Row, Trials, judge, row_of
from recon_ad.data.listing import images_below, subfolders
from recon_ad.data.source import GOOD, digest
from recon_ad.data.truth import ROI, Regions, mask_state, masks_of, stems, united_mask
from recon_ad.detector.image_files import decoded
from recon_ad.detector.inference import Inference
from recon_ad.errors import UserError
from recon_ad.ops.masks import EIGHT_CONNECTED
from recon_ad.runtime.progress import progress

TRUTHS = "ground_truth"  # folder of the masks, in that of the defects or beside it


class Defective(NamedTuple):
    """An image with a real defect.

    Attributes:
      name: Relative to the folder that was given.
      kind: The folder that it lies in.
      file: Path of the file.
      masks: Files of its truth masks; empty if it has none.
    """

    name: str
    kind: str
    file: Path
    masks: Sequence[Path]


def defective_images(folder: Path) -> list[Defective]:
    """List the images of a folder with a folder for each kind of defect.

    Images in `good` are left out. Masks lie in `ground_truth`, in that folder or beside it, as
    `recon_ad.data.truth` names them.

    Raises:
      UserError: There is no such image, or a mask does not fit its image.
    """
    if not folder.is_dir():
        raise UserError(f"--defects {folder}: no such folder: give one with a folder per kind.")
    truths = next((f for f in (folder / TRUTHS, folder.parent / TRUTHS) if f.is_dir()), None)
    found = []
    for kind in subfolders(folder):
        if kind.name in (GOOD, TRUTHS, ROI):
            continue
        masks = stems(truths / kind.name) if truths else {}
        for file in images_below(kind):
            mine = masks_of(file, kind, masks)
            mask_state(file, mine, on_error="raise")
            name = file.relative_to(folder).as_posix()
            found.append(Defective(name, kind.name, file, mine))
    if not found:
        raise UserError(
            f"--defects {folder} has no folder with defective images: give one with a folder for "
            "each kind of defect, as test/ of MVTec AD."
        )
    return found


def judge_real(
    detector: Inference,
    folder: Path,
    images: Sequence[Defective],
    trials: Trials,
    *,
    roi: Path | None,
) -> dict[str, Row]:
    """Judge real defects; each row has its size in px too, None without a mask.

    Args:
      detector: Calibrated.
      folder: Folder of the images.
      images: From `defective_images`.
      trials: Trials that keep the rows.
      roi: One region of interest for all images, if it is a file; else `folder` may have them.
    """
    regions = Regions(folder, roi if roi is not None and roi.is_file() else None)

    def make(one: Defective) -> Row:
        truth = united_mask(one.masks) if one.masks else None
        image = decoded(detector, one.file)
        row = row_of(judge(detector, image, regions.load(one.file)), truth)
        known = truth is not None and bool(truth.any())
        return row | {"size": diameter(truth) if known else None, "digest": digest(image)}

    return {
        one.name: trials.run(_trial(one), partial(make, one))
        for one in progress(images, "real defects")
    }


def _trial(one: Defective) -> str:
    """Return the name of a trial, which changes with the image's file and those of its masks."""
    times = [file.stat().st_mtime_ns for file in (one.file, *one.masks)]
    return f"real/{one.name}/{'/'.join(map(str, times))}"


def largest_region(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return the largest region of a mask that is not empty."""
    labels, _ = ndimage.label(mask, structure=EIGHT_CONNECTED)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return labels == areas.argmax()


def diameter(mask: Bool[np.ndarray, "h w"]) -> float:
    """Return the diameter in px of the smallest circle around the largest region of a mask."""
    points = cv2.findNonZero(largest_region(mask).astype(np.uint8))
    _, radius = cv2.minEnclosingCircle(points)
    return 2 * float(radius) + 1  # from the middle of a pixel to its edge, on both sides


def real_defects(
    images: Sequence[Defective], rows: Mapping[str, Row], inserted: Sequence[tuple[float, bool]]
) -> dict[str, Any]:
    """Return the escapes, and what is found by size beside what inserted defects predict.

    Args:
      images: Real defects.
      rows: Rows of each.
      inserted: Size in px of each inserted defect and whether it was found.
    """
    kinds: dict[str, list[bool]] = {}
    for one in images:
        kinds.setdefault(one.kind, []).append(not rows[one.name]["stopped"])
    missed = [m for each in kinds.values() for m in each]
    sized = [
        (rows[one.name]["size"], rows[one.name]["stopped"])
        for one in images
        if rows[one.name]["size"] is not None
    ]
    sizes = by_size(sized, inserted)
    found = [row for row in rows.values() if row["stopped"] and row["size"] is not None]
    return {
        "escapes": rate_of(sum(missed), len(missed))._asdict(),
        "by_kind": {kind: rate_of(sum(each), len(each))._asdict() for kind, each in kinds.items()},
        "located": {"count": sum(bool(row["located"]) for row in found), "total": len(found)},
        "without_size": len(images) - len(sized),
        "by_size": sizes,
        "differs": any(one["differs"] for one in sizes),
        "digests": {one.name: rows[one.name]["digest"] for one in images},
    }


def by_size(
    real: Sequence[tuple[float, bool]], inserted: Sequence[tuple[float, bool]]
) -> list[dict[str, Any]]:
    """Compare the shares that are found, in bins of sizes that double.

    The prediction is the share of the inserted defects of all kinds and contrasts in the bin. A bin
    differs where the interval of the difference leaves out 0 at 95 % over all bins together
    (Bonferroni's correction). Bins without inserted defects have no prediction.
    """
    bins: dict[int, tuple[list[bool], list[bool]]] = {}
    for place, pairs in enumerate((real, inserted)):
        for size, found in pairs:
            each = bins.setdefault(math.floor(math.log2(max(size, 1.0))), ([], []))
            each[place].append(found)
    kept = {power: pair for power, pair in sorted(bins.items()) if pair[0]}
    compared = sum(bool(pair[1]) for pair in kept.values())
    rows = []
    for power, (ours, theirs) in kept.items():
        counts = sum(ours), len(ours), sum(theirs), len(theirs)
        row: dict[str, Any] = {"from_px": 2.0**power, "to_px": 2.0 ** (power + 1)}
        row |= dict(zip(("found", "real", "inserted_found", "inserted"), counts, strict=True))
        row |= {"difference": None, "interval": None, "differs": False}
        if theirs:
            low, high = difference_interval(*counts, coverage=CONFIDENCE)
            level = 1 - (1 - CONFIDENCE) / compared
            least, most = difference_interval(*counts, coverage=level)
            row |= {
                "difference": counts[0] / counts[1] - counts[2] / counts[3],
                "interval": [low, high],
                "differs": not least <= 0 <= most,
            }
        rows.append(row)
    return rows


def difference_interval(
    count: int, total: int, other: int, other_total: int, *, coverage: float
) -> tuple[float, float]:
    """Return the interval of a difference of two rates, from Wilson's intervals of both.

    Method 10 of Newcombe (1998, Statistics in Medicine 17, p. 873).
    """
    p, q = count / total, other / other_total
    a, b = (
        stats.binomtest(k, n).proportion_ci(coverage, method="wilson")
        for k, n in ((count, total), (other, other_total))
    )
    low = p - q - math.hypot(p - float(a.low), float(b.high) - q)
    high = p - q + math.hypot(float(a.high) - p, q - float(b.low))
    return low, high
