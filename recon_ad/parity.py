"""Whether an exported model decides as its detector does: the content of M.parity.json.

Both judge the same real images. Every output may differ by `SHARE` of its scale: the calibrated
threshold of images for scores, that of pixels for maps, and 1, the range of an image, for
reconstructions. Labels have to agree wherever the score is farther than that from the threshold,
and masks wherever the map is; how many are nearer is counted.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Shaped

from recon_ad.deployed import OUTPUTS, OnnxDetector
from recon_ad.detector import Detector
from recon_ad.inference import Prediction
from recon_ad.ops import tiles

SHARE = 1e-4
BATCHES = (1, 2, 7)  # of tiles


class Differences:
    """Collects how far two arrays are apart, over several calls.

    Args:
      bound: that no difference may exceed.
    """

    def __init__(self, bound: float):
        self.bound, self.largest = bound, 0.0
        self._sum, self._count = 0.0, 0

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Takes two arrays of one shape; raises ValueError where they are not."""
        if np.shape(ours) != np.shape(theirs):
            raise ValueError(f"shapes {np.shape(ours)} and {np.shape(theirs)} differ")
        apart = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
        # What is not finite agrees with nothing.
        apart = np.where(np.isfinite(apart), apart, np.inf)
        self.largest = max(self.largest, float(apart.max()))
        self._sum += float(apart.sum())
        self._count += apart.size

    @property
    def passed(self) -> bool:
        """Whether all were within the bound."""
        return self.largest <= self.bound

    def described(self) -> dict[str, Any]:
        """As JSON, which has no infinity."""
        mean = self._sum / self._count
        return {
            "max": self.largest if np.isfinite(self.largest) else None,
            "mean": mean if np.isfinite(mean) else None,
            "bound": self.bound,
            "passed": self.passed,
        }


class Agreement:
    """Counts decisions that agree, and those that need not: too near to the threshold to tell.

    Args:
      threshold: above which something is anomalous.
      bound: nearer than this to it, decisions may differ.
    """

    def __init__(self, threshold: float, bound: float):
        self._threshold, self._bound = threshold, bound
        self.counted = self.differ = self.near = 0

    def add(self, value: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Takes the values that were decided on, and both decisions."""
        near = np.abs(np.asarray(value, np.float64) - self._threshold) <= self._bound
        self.counted += np.size(ours)
        self.near += int(np.count_nonzero(near))
        self.differ += int(np.count_nonzero((np.asarray(ours) != np.asarray(theirs)) & ~near))

    def described(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "compared": self.counted,
            "differ": self.differ,
            "too_near_to_tell": self.near,
            "passed": not self.differ,
        }


def compare(
    detector: Detector,
    exported: OnnxDetector,
    images: Sequence[Shaped[np.ndarray, "h w c"]],
    *,
    batches: Sequence[int] = BATCHES,
) -> dict[str, Any]:
    """The core on tiles in batches of several sizes, then everything on whole images.

    Args:
      detector: calibrated.
      exported: what was made of it.
      images: of the detector's channels, at least one.
      batches: numbers of tiles, for a model of any batch; else the one that it takes.
    """
    pixel = SHARE * abs(detector.thresholds.pixel)
    image = SHARE * abs(detector.thresholds.image)
    bounds = {"residual_map": pixel, "anomaly_map": pixel, "score": image, "reconstruction": SHARE}
    by_batch = {}
    for size in batches:
        found = {name: Differences(bounds[name]) for name in OUTPUTS["core"]}
        chosen = some_tiles(detector, images, count=size)
        ours = detector.run_core(chosen, reconstruct=True)
        for name, a, b in zip(
            found, ours, exported.run_core(chosen, reconstruct=True), strict=True
        ):
            if a is not None:
                found[name].add(a, b)
        if ours[1] is None:
            del found["reconstruction"]
        by_batch[str(size)] = {name: d.described() for name, d in found.items()}

    whole: dict[str, Differences | Agreement] = {
        name: Differences(bounds[name]) for name in ("score", "anomaly_map", "reconstruction")
    }
    whole["label"] = Agreement(detector.thresholds.image, image)
    whole["mask"] = Agreement(detector.thresholds.pixel, pixel)
    for picture in images:
        _add(whole, detector, detector.predict(picture), exported.predict(picture))
    if detector.method.reconstruct is None:
        del whole["reconstruction"]
    of_images = {name: found.described() for name, found in whole.items()}
    results = [*of_images.values(), *(d for batch in by_batch.values() for d in batch.values())]
    return {
        "share_of_scale": SHARE,
        "scale": {"image": detector.thresholds.image, "pixel": detector.thresholds.pixel},
        "images": len(images),
        "tiles_by_batch": by_batch,
        "whole_images": of_images,
        "passed": all(result["passed"] for result in results),
    }


def _add(whole: dict[str, Any], detector: Detector, ours: Prediction, theirs: Prediction) -> None:
    for name in ("score", "anomaly_map", "reconstruction"):
        if getattr(ours, name) is not None:
            whole[name].add(getattr(ours, name), getattr(theirs, name))
    whole["label"].add(ours.score, ours.label, theirs.label)
    # Raw, as the graphs give them: opening and minimum area can carry one pixel far.
    masks = (p.anomaly_map > np.float32(detector.thresholds.pixel) for p in (ours, theirs))
    whole["mask"].add(ours.anomaly_map, *masks)


def some_tiles(
    detector: Detector, images: Sequence[Shaped[np.ndarray, "h w c"]], *, count: int
) -> Shaped[np.ndarray, "n H W c"]:
    """Tiles from all over the images, in turns."""
    tile = detector.plan.geometry.tile
    chosen = []
    for i in range(count):
        image = detector.prepared(images[i % len(images)])
        corners = tiles.tile_corners(image.shape[:2], tile=tile, stride=tile)
        corner = corners[(i * len(corners)) // count]
        chosen.append(tiles.cut(image, [corner], tile=tile))
    return np.concatenate(chosen)
