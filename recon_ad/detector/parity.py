"""Comparison of an exported model with its detector: the content of M.parity.json.

Both judge the same real images. Every output may differ by a share of its scale (`share_of`): the
calibrated threshold of images for scores, that of pixels for maps, and 1, the range of an image,
for reconstructions; values above it are their own scale, or a good model would be refused for what
rounding does to strong defects. Labels have to agree wherever the score is farther than that share
from the threshold, and masks wherever the map is; how many are nearer is counted. With a
classifier, its probabilities may differ by `SHARE_OF_PROBABILITY`, and a label may depend on
whether a probability that near to the threshold is above it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from recon_ad.detector.inference import Prediction
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.onnx_detector import OUTPUTS, OnnxDetector
from recon_ad.ops import tiles

SHARE = 1e-4
# Encoders round more: a dozen blocks of products of hundreds of numbers.
SHARE_OF_FEATURES = 1e-3
# The factors of bfloat16 have 8 significant bits; exports multiply in float32.
SHARE_OF_BFLOAT16 = 3e-2
SHARE_OF_PROBABILITY = 1e-3  # the logarithm of a small moment has all of its rounding
BATCHES = (1, 2, 3)  # tiles at a time
TINY = float(np.finfo(np.float32).tiny)  # a threshold of 0 is no scale


class Differences:
    """Collector of the differences between two arrays, over several calls.

    Args:
      scale: Scale of the values; larger values are their own scale, as rounding grows with them.
      share: Share of the scale by which they may differ.
    """

    def __init__(self, scale: float, share: float):
        self._scale, self._share, self._worst = max(abs(scale), TINY), share, 0.0
        self._largest = self._sum = 0.0
        self._count = 0

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Add two arrays of one shape; raise ValueError where they differ in it."""
        if np.shape(ours) != np.shape(theirs):
            raise ValueError(f"shapes {np.shape(ours)} and {np.shape(theirs)} differ")
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        apart = np.abs(ours - theirs)
        # Values that are not finite agree with nothing.
        apart = np.where(np.isfinite(apart), apart, np.inf)
        relative = apart / np.maximum(self._scale, np.abs(ours))
        self._worst = max(self._worst, float(relative.max()))
        self._largest = max(self._largest, float(apart.max()))
        self._sum += float(apart.sum())
        self._count += apart.size

    def described(self) -> dict[str, Any]:
        """Return the differences as JSON takes them, which has no infinity."""
        mean = self._sum / self._count
        return {
            "max": self._largest if np.isfinite(self._largest) else None,
            "mean": mean if np.isfinite(mean) else None,
            "max_share_of_scale": self._worst if np.isfinite(self._worst) else None,
            "passed": self._worst <= self._share,
        }


class Agreement:
    """Counter of decisions that agree, and of those too near to the threshold to have to.

    Args:
      threshold: Threshold above which something is anomalous.
      share: Share of the threshold within which decisions may differ.
    """

    def __init__(self, threshold: float, share: float):
        self._threshold, self._near = threshold, share * abs(threshold)
        self.counted = self.differ = self.near = 0

    def add(self, value: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Add the values that were decided on, and both decisions."""
        near = np.abs(np.asarray(value, np.float64) - self._threshold) <= self._near
        self.counted += np.size(ours)
        self.near += int(np.count_nonzero(near))
        self.differ += int(np.count_nonzero((np.asarray(ours) != np.asarray(theirs)) & ~near))

    def described(self) -> dict[str, Any]:
        """Return the counts as JSON takes them."""
        return {
            "compared": self.counted,
            "differ": self.differ,
            "too_near_to_tell": self.near,
            "passed": not self.differ,
        }


def share_of(detector: Detector) -> float:
    """Return the allowed differences of outputs, as a share of their scale."""
    if "encoder" not in detector.variables:
        return SHARE
    return SHARE_OF_BFLOAT16 if detector.config.encoder.dtype == "bfloat16" else SHARE_OF_FEATURES


def compare(
    detector: Detector,
    exported: OnnxDetector,
    images: Sequence[Shaped[np.ndarray, "_ _ c"]],
    *,
    batches: Sequence[int] = BATCHES,
) -> dict[str, Any]:
    """Compare the core on tiles in batches of several sizes, then everything on whole images.

    Args:
      detector: Calibrated detector.
      exported: Its export.
      images: Images with the detector's channels, at least one.
      batches: Numbers of tiles, for a model of any batch; else its own number is used.
    """
    image, pixel = detector.thresholds
    share = share_of(detector)
    classifier = detector.classifier
    scales = {"residual_map": pixel, "anomaly_map": pixel, "score": image, "reconstruction": 1.0}
    groups = {}
    for size in batches:
        found = {name: Differences(scales[name], share) for name in OUTPUTS["core"]}
        chosen = some_tiles(detector, images, count=size)
        ours = _own_batches(detector, chosen)
        for name, a, b in zip(
            found, ours, exported.run_core(chosen, reconstruct=True), strict=True
        ):
            if a is not None:
                found[name].add(a, b)
        if ours[1] is None:
            del found["reconstruction"]
        groups[f"{size} tile{'s' * (size > 1)} at once"] = found

    def compared() -> dict[str, Differences | Agreement]:
        found = {
            "score": Differences(image, share),
            "anomaly_map": Differences(pixel, share),
            "label": Agreement(image, share),
            "mask": Agreement(pixel, share),
        }
        if classifier:
            found["label"] = Agreement(1.0, 1.0)
            found["defect_probability"] = Differences(1.0, SHARE_OF_PROBABILITY)
        return found

    def add(group: str, ours: Prediction, theirs: Prediction) -> None:
        found = groups[group]
        found["score"].add(ours.score, theirs.score)
        found["anomaly_map"].add(ours.anomaly_map, theirs.anomaly_map)
        found["mask"].add(ours.anomaly_map, ours.mask, theirs.mask)
        decisive = ours.score
        if classifier:
            found["defect_probability"].add(ours.defect_probability, theirs.defect_probability)
            # Both have to be above, so the lower one decides. The thresholds are at 1, and
            # what is too near to tell is within 1 of them.
            by_score = (ours.score - image) / max(abs(image), TINY) / share
            apart = ours.defect_probability - classifier.threshold
            decisive = 1 + np.minimum(by_score, apart / SHARE_OF_PROBABILITY)
        found["label"].add(np.asarray(decisive), ours.label, theirs.label)

    groups["images"] = compared()
    for i, picture in enumerate(images):
        # The tail knows pixels that do not count, too: a region of interest, on the first image.
        roi = middle(picture.shape[:2]) if i == 0 else None
        ours, theirs = (d.raw(d.residual_map(picture)[0], roi=roi) for d in (detector, exported))
        add("images", ours, theirs)
    if exported.facts["kind"] == "whole":
        groups["images of the tile's size"] = compared()
        chosen = some_tiles(detector, images, count=max(batches))
        for tile, theirs in zip(chosen, exported.whole(chosen), strict=True):
            ours = detector.raw(detector.residual_map(tile)[0])
            add("images of the tile's size", ours, theirs)
    described = {
        group: {name: found.described() for name, found in outputs.items()}
        for group, outputs in groups.items()
    }
    return {
        "share_of_scale": share,
        "scale": {"image": image, "pixel": pixel},
        "compared_images": len(images),
        "groups": described,
        "passed": all(f["passed"] for outputs in described.values() for f in outputs.values()),
    }


def _own_batches(
    detector: Detector, chosen: Shaped[np.ndarray, "n _ _ c"]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Run the detector's core on tiles in its usual batch sizes."""
    found = [
        detector.run_filled(chosen[part], size=size, reconstruct=True)
        for part, size in tiles.split(len(chosen), detector.batch_for)
    ]
    residual, reconstruction = zip(*found, strict=True)
    has_reconstruction = reconstruction[0] is not None
    return np.concatenate(residual), np.concatenate(reconstruction) if has_reconstruction else None


def middle(size: tuple[int, int]) -> Bool[np.ndarray, "p q"]:
    """Return a region of interest: the image without a fourth at each border."""
    roi = np.zeros(size, bool)
    h, w = size
    roi[h // 4 : h - h // 4, w // 4 : w - w // 4] = True
    return roi


def some_tiles(
    detector: Detector, images: Sequence[Shaped[np.ndarray, "_ _ c"]], *, count: int
) -> Shaped[np.ndarray, "n _ _ c"]:
    """Return tiles from all images, in turn."""
    tile = detector.plan.geometry.tile
    chosen = []
    for i in range(count):
        image = detector.prepared(images[i % len(images)])
        corners = tiles.tile_corners(image.shape[:2], tile=tile, stride=tile)
        corner = corners[(i * len(corners)) // count]
        chosen.append(tiles.cut(image, [corner], tile=tile))
    return np.concatenate(chosen)
