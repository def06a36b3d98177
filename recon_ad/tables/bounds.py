"""Floor and ceiling of the figures on chess and noise, and post-processing of a model's maps.

Maps are float32 [h, w], residuals of images in [0, 1] with one channel.
"""

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
