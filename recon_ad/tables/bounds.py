"""Floor and ceiling of the figures on chess and noise, and post-processing of a model's maps.

Maps are float32 [h, w], residuals of images in [0, 1] with one channel.
"""

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from recon_ad.data import Source
from recon_ad.data.arrays import to_unit
from recon_ad.data.synthetic import undisturbed
from recon_ad.detector.jax_detector import Detector
from recon_ad.evaluation.judge import truth_of
from recon_ad.metrics import PixelHistogram, empty_histogram, image_histogram, iou_max, merge
from recon_ad.report.markdown import NOTHING, markdown_table
from recon_ad.tables.base import Column, Run
from recon_ad.tables.page import by_kind, ours, values

SIGMA = 0.7  # px, standard deviation of the Gaussian that smooths a residual map
# The names of the maps in a run, and on the page.
FLOOR = {"floor": "none: constant 0.5"}
CEILING = {"ceiling": "perfect: the image without its anomaly"}
MODEL = {
    "model": "as in the paper",
    "smoothed": f"map smoothed by {SIGMA} px (ours)",
    "averaged": "residual of the averaged reconstruction (ours)",
    "both": "both (ours)",
}
GROUPS = ("anomalous", "all")  # test images
FAINT = 76  # gray levels: truth B's pixels that change by no more are hard to tell from noise
# Kinds of false positives.
FALSE = ("false_touching", "false_elsewhere", "false_good")
TOUCHING = 1.5  # px, distance of a pixel that touches the truth, also at a corner

Map = Float32[np.ndarray, "h w"]


def squared(image: Float32[np.ndarray, "h w 1"], other: Any) -> Map:
    """Return the squared residual of an image and its reconstruction, which may be one value."""
    return ((image - np.float32(other)) ** 2)[..., 0]


def maps_of(
    detector: Detector, image: Float32[np.ndarray, "h w 1"], perfect: Float32[np.ndarray, "h w 1"]
) -> dict[str, Map]:
    """Return an image's maps by their names.

    The model's own map averages the residuals of overlapping tiles. "averaged" is the residual of
    the averaged reconstructions of the tiles.
    """
    predicted = detector.predict(image)
    averaged = squared(image, predicted.reconstruction)
    return {
        "floor": squared(image, 0.5),
        "ceiling": squared(image, perfect),
        "model": predicted.anomaly_map,
        "smoothed": ndimage.gaussian_filter(predicted.anomaly_map, SIGMA),
        "averaged": averaged,
        "both": ndimage.gaussian_filter(averaged, SIGMA),
    }


def measure_bounds(detector: Detector, source: Source) -> dict[str, Any]:
    """Measure each map's best IoU (oracle) and the recall there, on chess or noise.

    Returns:
      `{map: {group: {"iou": …, "recall": …}}}`. The groups are the anomalous test images, as in the
      paper, and all test images.
    """
    data = detector.config.data
    perfect = undisturbed(data.name, seed=detector.config.seed, side=data.side)
    names = [record.name for record in source.test if record.anomalous]
    normal = dict(zip(names, perfect, strict=True))
    pixels = {n: dict.fromkeys(GROUPS, empty_histogram()) for n in (*FLOOR, *CEILING, *MODEL)}
    for record in source.test:
        image = record.load()
        mask = truth_of(record, image.shape[:2])
        unit = to_unit(image)
        maps = maps_of(detector, unit, to_unit(normal.get(record.name, image)))
        for name, found in maps.items():
            histogram = image_histogram(found, mask)
            for group in GROUPS if record.anomalous else ("all",):
                pixels[name][group] = merge(pixels[name][group], histogram)
    return {
        name: {group: _figures(histogram) for group, histogram in groups.items()}
        for name, groups in pixels.items()
    }


def where_lost(detector: Detector, source: Source) -> dict[str, float]:
    """Return which pixels of chess or noise are wrong at the threshold of the best IoU (oracle).

    Returns:
      `faint`: share of the truth's pixels that change by `FAINT` or less. `recall_faint` and
      `recall_other`: found shares of these and of all others. `false_touching`, `false_elsewhere`
      and `false_good`: shares of the false positives that touch the truth, that lie elsewhere on
      anomalous images, and that lie on good images.
    """
    maps = [detector.predict(r.load(), reconstruct=False).anomaly_map for r in source.test]
    truths = [truth_of(r, m.shape) for r, m in zip(source.test, maps, strict=True)]
    pixels = functools.reduce(merge, map(image_histogram, maps, truths))
    threshold = iou_max(pixels.levels())[1]
    data = detector.config.data
    normal = iter(undisturbed(data.name, seed=detector.config.seed, side=data.side))
    counts = collections.Counter[str]()
    for record, found, truth in zip(source.test, maps, truths, strict=True):
        marked = found >= threshold
        if not record.anomalous:
            counts["false_good"] += int(marked.sum())
            continue
        change = np.abs(record.load()[..., 0].astype(int) - next(normal)[..., 0])
        faint, other = truth & (change <= FAINT), truth & (change > FAINT)
        touching = ndimage.distance_transform_edt(~truth) <= TOUCHING
        for name, these in {
            "faint": faint,
            "other": other,
            "found_faint": faint & marked,
            "found_other": other & marked,
            "false_touching": marked & touching & ~truth,
            "false_elsewhere": marked & ~touching,
        }.items():
            counts[name] += int(these.sum())
    false = sum(counts[name] for name in FALSE)
    return {
        "faint": _share(counts["faint"], counts["faint"] + counts["other"]),
        "recall_faint": _share(counts["found_faint"], counts["faint"]),
        "recall_other": _share(counts["found_other"], counts["other"]),
        **{name: _share(counts[name], false) for name in FALSE},
    }


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0


def lost(run: Run) -> str:
    """Return a sentence on the pixels that `where_lost` counts."""
    found = run["where_lost"]
    return (
        f"{run['name']}: {found['faint']:.0%} of truth B's pixels change by {FAINT}/255 or less, "
        f"and are found with recall {found['recall_faint']:.2f}, all others with "
        f"{found['recall_other']:.2f}. Of the false positives {found['false_touching']:.0%} touch "
        f"the truth, {found['false_elsewhere']:.0%} lie elsewhere on anomalous images, where the "
        f"anomaly disturbs the reconstruction, and {found['false_good']:.0%} on normal images."
    )


def _figures(histogram: PixelHistogram) -> dict[str, float]:
    iou, _, recall = iou_max(histogram.levels())
    return {"iou": iou, "recall": recall}


def section(runs: Sequence[Run], papers: Mapping[tuple[str, str], tuple[float, float]]) -> str:
    """Return the table of floor, ceiling and maps, in Markdown.

    Args:
      runs: Finished runs that have `bounds`.
      papers: The paper's recall and IoU by data set and method.
    """
    head = ["data", "model", "seeds", "map"]
    head += ["IoU, anomalous images", "paper", "A, anomalous images", "paper"]
    head += ["IoU, all images", "A, all images"]
    rows = [head]
    for dataset in dict.fromkeys(run["dataset"] for run in runs):
        own = [run for run in runs if run["dataset"] == dataset]
        # Neither depends on a model, so each seed's images count once.
        once = list({run["seed"]: run for run in own}.values())
        rows += [_row(dataset, what, once, NOTHING, name) for name, what in FLOOR.items()]
        for (_, _, _, method), same in by_kind(own).items():
            for name, what in MODEL.items():
                paper = papers.get((dataset, method)) if name == "model" else None
                rows.append(_row(dataset, method, same, what, name, paper=paper))
        rows += [_row(dataset, what, once, NOTHING, name) for name, what in CEILING.items()]
    return markdown_table(rows)


def _row(
    dataset: str,
    model: str,
    runs: Sequence[Run],
    what: str,
    name: str,
    *,
    paper: tuple[float, float] | None = None,
) -> list[str]:
    def cell(group: str, key: str) -> str:
        column = Column(f"bounds.{name}.{group}.{key}", "", 4)
        return ours(values(runs, column.key), column)

    recall, iou = (NOTHING, NOTHING) if paper is None else (f"{figure:g}" for figure in paper)
    return [
        *(dataset, model, str(len(runs)), what),
        *(cell("anomalous", "iou"), iou, cell("anomalous", "recall"), recall),
        *(cell("all", "iou"), cell("all", "recall")),
    ]
