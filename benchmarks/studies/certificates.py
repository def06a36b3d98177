"""Measures whether the bounds of certificates hold, on simulated detectors.

    python -m benchmarks.studies.certificates

1. Detectors with a known probability of detection over size: how often a90/95 of 64 trials is at or
   above the true a90, in 500 studies each, and how often the largest tested size is its bound. One
   detector misses some defects of any size, so that it has no a90.
2. Good images of a known false-reject rate: how often the upper bound of 95 % is at or above it, in
   500 studies each.

Writes results/certificates.json.
"""

from typing import Any

import numpy as np
from scipy import special

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.certification.detection import ABOVE, NO_MODEL, WANTED, detection
from recon_ad.certification.rejects import upper_bound

STUDIES, TRIALS, SEED = 500, 64, 0
SIZES = (2.0, 85.0)  # px
DETECTORS = ((12.0, 3.0), (20.0, 2.0), (20.0, 4.0), (30.0, 5.0), (8.0, 8.0))  # a90, slope
CEILING = 0.85  # of the detector that misses defects of any size
REJECTS = ((24, 0.01), (24, 0.05), (100, 0.0217), (500, 0.01))  # images, true rate


def simulated(
    rng: np.random.Generator, *, a90: float, slope: float, ceiling: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sizes, hits and trials of a study."""
    places = (np.arange(TRIALS) + rng.random(TRIALS)) / TRIALS
    sizes = SIZES[0] * (SIZES[1] / SIZES[0]) ** places
    p = ceiling * special.expit(special.logit(WANTED) + slope * np.log(sizes / a90))
    return sizes, (rng.random(TRIALS) < p).astype(int), np.ones(TRIALS, int)


def main() -> None:
    """Simulate and write."""
    rows: list[dict[str, Any]] = []
    for a90, slope in DETECTORS:
        rng = np.random.default_rng(SEED)
        found = [detection(*simulated(rng, a90=a90, slope=slope)) for _ in range(STUDIES)]
        held = [one.a90_95.where == ABOVE or one.a90_95.px >= a90 for one in found]
        rows.append(
            {
                "a90": a90,
                "slope": slope,
                "held": float(np.mean(held)),
                "not_reached": float(np.mean([one.a90_95.where == ABOVE for one in found])),
                "no_model": float(np.mean([one.rule == NO_MODEL for one in found])),
                "median_ratio": float(np.median([one.a90_95.px / a90 for one in found])),
            }
        )
    rng = np.random.default_rng(SEED)
    capped = [
        detection(*simulated(rng, a90=8.0, slope=4.0, ceiling=CEILING)) for _ in range(STUDIES)
    ]
    rejects = []
    for images, rate in REJECTS:
        counts = np.random.default_rng(SEED).binomial(images, rate, STUDIES)
        held_rates = [upper_bound(int(k), images) >= rate for k in counts]
        rejects.append({"images": images, "rate": rate, "held": float(np.mean(held_rates))})
    record.write(
        "certificates",
        {
            "command": "python -m benchmarks.studies.certificates",
            "studies": STUDIES,
            "trials": TRIALS,
            "detection": rows,
            "ceiling": {
                "ceiling": CEILING,
                "held": float(np.mean([one.a90_95.where == ABOVE for one in capped])),
            },
            "false_rejects": rejects,
        },
        "scipy",
    )


if __name__ == "__main__":
    cli.run(main)
