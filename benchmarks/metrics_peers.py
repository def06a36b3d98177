"""Compare our metrics with anomalib's on the same scores, in ten random cases.

    python -m benchmarks.metrics_peers

In every other case the scores make anomalib's approximations exact: its quantiles for PG and PB
fall on an image, and its evenly spaced thresholds for AUPIMO include every score. The other cases
have arbitrary scores. Ours use each pixel's exact score (32 bits), because an evaluation already
reports bounds for the error of its bins. Scores are in [0, 1], because anomalib's AUROC treats
other values as logits.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage

import benchmarks.peers.torchvision_operators  # noqa: F401
from benchmarks.harness import record
from recon_ad import metrics
from recon_ad.metrics.figures import FPR_LIMIT, PRESORTED, STRICT_FPR_LIMIT

# isort: split
from anomalib.metrics.aupro import _AUPRO
from anomalib.metrics.auroc import _AUROC
from anomalib.metrics.f1_score import _F1Max
from anomalib.metrics.pg_pb import _PBn, _PGn
from anomalib.metrics.pimo.pimo import _AUPIMO

CASES = 10
# The four good maps have 200,000 pixels, so that 1e-5 and 1e-4 of them are whole numbers.
MAPS, HEIGHT, WIDTH = 8, 200, 250
DEFECT = 30  # px, longest side of a defect
THRESHOLDS = 300_000  # anomalib's default for AUPIMO
# How anomalib computes each metric, apart from rounding to float32.
WAYS: Mapping[str, str] = {
    "image_auroc": "exact",
    "pixel_auroc": "exact",
    "aupro_30": "exact",
    "aupro_05": "exact",
    "seg_f1_max_oracle": "exact",
    "aupimo": "evenly spaced thresholds, ends at the nearest of them",
    **{f"p{kind}_{n}_oracle": "interpolated quantile" for kind in "gb" for n in PRESORTED},
}
APPROXIMATE = {key for key, way in WAYS.items() if way != "exact"}


class Case(NamedTuple):
    """A test case: image scores, and anomaly maps of other images.

    Attributes:
      on_grid: Whether anomalib's approximations are exact for it.
      scores: Image scores, float32.
      labels: Image labels, True if defective.
      maps: Anomaly maps, float32 [n, h, w].
      truths: Masks, bool [n, h, w].
    """

    on_grid: bool
    scores: np.ndarray
    labels: np.ndarray
    maps: np.ndarray
    truths: np.ndarray


def case(seed: int) -> Case:
    """Draw a random case. Cases with even seeds are on anomalib's grid."""
    rng = np.random.default_rng(seed)
    on_grid = seed % 2 == 0
    # With 100 n + 1 scores, the 1, 2 and 5 % quantiles fall on a score.
    good, bad = 100 * rng.integers(1, 4, 2) + 1 if on_grid else rng.integers(100, 400, 2)
    labels = np.arange(good + bad) >= good
    scores = rng.normal(size=len(labels)) + rng.uniform(0.5, 3) * labels
    truths = np.zeros((MAPS, HEIGHT, WIDTH), bool)
    for truth in truths[MAPS // 2 :]:
        for row, column in rng.integers(0, HEIGHT - DEFECT, (3, 2)):
            height, width = rng.integers(DEFECT // 3, DEFECT, 2)
            truth[row : row + height, column : column + width] = True
    maps = np.stack([ndimage.gaussian_filter(m, 1) for m in rng.normal(size=truths.shape)])
    maps += maps.std() * rng.uniform(1, 5, (MAPS, 1, 1)) * truths
    maps = ranks(maps, truths) if on_grid else (maps - maps.min()) / np.ptp(maps)
    scores = (scores - scores.min()) / np.ptp(scores)
    return Case(on_grid, scores.astype(np.float32), labels, maps.astype(np.float32), truths)


def ranks(maps: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Return each score's rank times a power of two: evenly spaced and exact in float32, no ties.

    The lowest and the highest score are swapped into good images, because anomalib's thresholds lie
    between the scores of good images.
    """
    found = np.argsort(np.argsort(maps, axis=None)).reshape(maps.shape)
    good = np.flatnonzero(np.broadcast_to(~truths.any((1, 2), keepdims=True), maps.shape))
    flat = found.ravel()
    for ends in (np.argmin, np.argmax):
        mine, theirs = good[ends(flat[good])], ends(flat)
        flat[mine], flat[theirs] = flat[theirs], flat[mine]
    return flat.reshape(maps.shape) * 2.0 ** -np.ceil(np.log2(maps.size))


def ours(one: Case) -> Iterator[tuple[str, float]]:
    """Yield our metrics with their names in metrics.json."""
    images = metrics.levels(one.scores, one.labels)
    histograms = [
        metrics.image_histogram(m, t, bits=32) for m, t in zip(one.maps, one.truths, strict=True)
    ]
    pixels = metrics.merge(*histograms)
    counts = pixels.levels()
    yield "image_auroc", metrics.auroc(images)
    yield "pixel_auroc", metrics.auroc(counts)
    yield "aupro_30", metrics.aupro(pixels, fpr_limit=FPR_LIMIT)
    yield "aupro_05", metrics.aupro(pixels, fpr_limit=STRICT_FPR_LIMIT)
    yield "seg_f1_max_oracle", metrics.f1_max(counts)[0]
    yield "aupimo", metrics.aupimo(histograms[: MAPS // 2], histograms[MAPS // 2 :])
    for percent in PRESORTED:
        yield f"pg_{percent}_oracle", metrics.presorted_good(images, percent=percent)
        yield f"pb_{percent}_oracle", metrics.presorted_bad(images, percent=percent)


def theirs(one: Case) -> Iterator[tuple[str, float]]:
    """Yield anomalib's metrics with our names."""
    images = torch.from_numpy(one.scores), torch.from_numpy(one.labels).int()
    pixels = torch.from_numpy(one.maps), torch.from_numpy(one.truths).int()
    flat = [part.flatten() for part in pixels]
    thresholds = one.maps.size if one.on_grid else THRESHOLDS
    yield "image_auroc", _figure(_AUROC(), *images)
    yield "pixel_auroc", _figure(_AUROC(), *flat)
    yield "aupro_30", _figure(_AUPRO(fpr_limit=FPR_LIMIT), *pixels)
    yield "aupro_05", _figure(_AUPRO(fpr_limit=STRICT_FPR_LIMIT), *pixels)
    yield "seg_f1_max_oracle", _figure(_F1Max(), *flat)
    yield "aupimo", _figure(_AUPIMO(num_thresholds=thresholds, force=True), *pixels)
    for percent in PRESORTED:
        yield f"pg_{percent}_oracle", _figure(_PGn(fnr=percent / 100), *images)
        yield f"pb_{percent}_oracle", _figure(_PBn(fpr=percent / 100), *images)


def _figure(metric: torch.nn.Module, scores: torch.Tensor, truths: torch.Tensor) -> float:
    metric.update(scores, truths)
    return float(metric.compute())


def main() -> None:
    """Compute both, print the largest differences and write the result."""
    logging.getLogger("anomalib").setLevel(logging.ERROR)
    found = []
    for seed in range(CASES):
        one = case(seed)
        other = dict(theirs(one))
        figures = {key: {"ours": own, "anomalib": other[key]} for key, own in ours(one)}
        counts = {
            "good_images": int((~one.labels).sum()),
            "defective_images": int(one.labels.sum()),
        }
        found.append({"seed": seed, "on_grid": one.on_grid, **counts, "figures": figures})
        print(f"case {seed} of {CASES}", flush=True)
    rows = []
    for key, way in WAYS.items():
        exact, approximate = [], []
        for one in found:
            pair = one["figures"][key]
            kind = approximate if key in APPROXIMATE and not one["on_grid"] else exact
            kind.append(abs(pair["ours"] - pair["anomalib"]))
        row = {
            "figure": key,
            "anomalib": way,
            "largest_difference_where_exact": max(exact),
            "largest_difference_where_approximate": max(approximate, default=None),
        }
        rows.append(row)
        print(row)
    content = {"command": "python -m benchmarks.metrics_peers", "rows": rows, "cases": found}
    record.write("metrics_peers", content, "torch", "anomalib")


if __name__ == "__main__":
    main()
