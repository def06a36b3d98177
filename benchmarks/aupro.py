"""Compare our AUPRO up to a false-positive rate of 0.3 with anomalib's on the same maps.

    python -m benchmarks.aupro

Each side takes the maps image by image and returns the metric: ours adds up one histogram per
image, anomalib's uses its metric class on the CPU.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage

import benchmarks.peers.torchvision_operators  # noqa: F401
from benchmarks.harness import record
from recon_ad.metrics import aupro, empty_histogram, image_histogram, merge

# isort: split
from anomalib.metrics.aupro import _AUPRO as Theirs

# Number of maps and their side in px: the 57 + 24 images of MVTec grid's test set, at anomalib's
# usual size and at twice that.
SETS = {"81 maps of 256x256": (81, 256), "81 maps of 512x512": (81, 512)}
REPEATS = 3

Maps = list[tuple[np.ndarray, np.ndarray]]


def maps(count: int, side: int, *, seed: int = 0) -> Maps:
    """Draw smooth random maps in [0, 1]. Two of three have defects with somewhat higher scores."""
    rng = np.random.default_rng(seed)
    pairs = []
    for i in range(count):
        anomaly_map = ndimage.gaussian_filter(rng.random((side, side)), side / 64)
        truth = np.zeros((side, side), bool)
        for _ in range(3 if i % 3 else 0):
            row, column = rng.integers(0, side - side // 8, 2)
            height, width = rng.integers(side // 64, side // 8, 2)
            truth[row : row + height, column : column + width] = True
        anomaly_map += ndimage.gaussian_filter(truth * 0.02, side / 64)
        low, high = anomaly_map.min(), anomaly_map.max()
        pairs.append((((anomaly_map - low) / (high - low)).astype(np.float32), truth))
    return pairs


def ours(pairs: Maps) -> float:
    """Compute our AUPRO, image by image into one histogram."""
    total = empty_histogram()
    for anomaly_map, truth in pairs:
        total = merge(total, image_histogram(anomaly_map, truth))
    return aupro(total)


def theirs(pairs: Maps) -> float:
    """Compute anomalib's AUPRO, image by image. The metric keeps all maps until the end."""
    metric = Theirs(fpr_limit=0.3)
    for anomaly_map, truth in pairs:
        metric.update(torch.from_numpy(anomaly_map)[None], torch.from_numpy(truth).int()[None])
    return float(metric.compute())


def seconds(run: Callable[[], float]) -> tuple[float, float]:
    """Return the metric and the time that it took."""
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def main() -> None:
    """Measure both in turns, print the result and write it."""
    rows = []
    for name, (count, side) in SETS.items():
        pairs = maps(count, side)
        runs = [
            (seconds(lambda p=pairs: ours(p)), seconds(lambda p=pairs: theirs(p)))
            for _ in range(REPEATS)
        ]
        (own, _), (other, _) = runs[0]
        fastest = [min(run[side][1] for run in runs) for side in (0, 1)]
        row = {
            "maps": name,
            "aupro": own,
            "aupro_anomalib": other,
            "difference": abs(own - other),
            "seconds": fastest[0],
            "seconds_anomalib": fastest[1],
            "times_as_fast": fastest[1] / fastest[0],
        }
        rows.append(row)
        print(
            f"{name}: {own:.5f} in {fastest[0]:.2f} s, anomalib {other:.5f} in {fastest[1]:.2f} s: "
            f"{row['times_as_fast']:.1f} times as fast, {row['difference']:.1e} apart"
        )
    content = {
        "command": "python -m benchmarks.aupro",
        "unit": f"seconds for all maps, best of {REPEATS}, in turns",
        "rows": rows,
    }
    record.write("aupro", content, "torch", "anomalib")


if __name__ == "__main__":
    main()
