"""Measure whether the bounds of certificates hold, on simulated detectors.

    python -m benchmarks.studies.certificates

In 500 studies each it measures

1. how often a90/95 is at or above the true a90, on detectors with a known probability of detection
   over size. The sizes are drawn as `recon_ad.certify` draws them, for images of several sides. The
   curves are logistic, steep and flat, and a cumulative normal. Detectors that miss a share of all
   sizes have no a90, so that no size must be certified;
2. how often the upper bound of 95 % is at or above a known false-reject rate.

Writes results/certificates.json.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import special, stats

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.certification.cases import sizes_of
from recon_ad.certification.detection import ABOVE, NO_MODEL, WANTED, Detection, detection
from recon_ad.certification.rejects import upper_bound

STUDIES, SEED = 500, 0
REJECTS = ((24, 0.01), (24, 0.05), (100, 0.0217), (500, 0.01))  # images, true rate


class Simulated(NamedTuple):
    """A simulated detector and the images that it is certified on.

    Attributes:
      a90: Size in px that it finds with probability .9 times `ceiling`.
      slope: Slope of the curve's logit over ln(size) at a90.
      largest: Largest inserted defect in px, a quarter of the images' side.
      ceiling: Share that it finds of very large defects.
      curve: Name of the curve.
    """

    a90: float
    slope: float
    largest: float = 128.0
    ceiling: float = 1.0
    curve: str = "logistic"


DETECTORS = (
    Simulated(12.0, 3.0),
    Simulated(20.0, 2.0),
    Simulated(30.0, 5.0),
    Simulated(8.0, 8.0),
    Simulated(20.0, 4.0, largest=85.0),
    Simulated(10.0, 3.0, largest=32.0),
    Simulated(15.0, 3.0, curve="normal"),
    Simulated(8.0, 4.0, ceiling=0.85),
    Simulated(15.0, 2.0, ceiling=0.85),
)


def _normal(x: np.ndarray) -> np.ndarray:
    """Return the cumulative normal with .9 and a logit's slope of 1 at x = 0."""
    at = stats.norm.ppf(WANTED)
    scale = WANTED * (1 - WANTED) / stats.norm.pdf(at)
    return stats.norm.cdf(at + scale * x)


CURVES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "logistic": lambda x: special.expit(special.logit(WANTED) + x),
    "normal": _normal,
}


def outcome(rng: np.random.Generator, detector: Simulated) -> tuple[np.ndarray, np.ndarray]:
    """Return the sizes and hits of a study."""
    sizes = sizes_of(rng, largest=detector.largest)
    grown = CURVES[detector.curve](detector.slope * np.log(sizes / detector.a90))
    return sizes, (rng.random(len(sizes)) < detector.ceiling * grown).astype(int)


def held(found: Detection, detector: Simulated) -> bool:
    """Return whether the bound is at or above the true a90; none certified where there is none."""
    if found.a90_95.where == ABOVE:
        return True
    return detector.ceiling == 1 and found.a90_95.px >= detector.a90


def simulated() -> dict[str, Any]:
    """Measure how often the bounds hold on simulated detectors."""
    rows: list[dict[str, Any]] = []
    for detector in DETECTORS:
        rng = np.random.default_rng(SEED)
        found = [detection(*outcome(rng, detector)) for _ in range(STUDIES)]
        rows.append(
            detector._asdict()
            | {
                "held": float(np.mean([held(one, detector) for one in found])),
                "not_reached": float(np.mean([one.a90_95.where == ABOVE for one in found])),
                "no_model": float(np.mean([one.rule == NO_MODEL for one in found])),
                "median_ratio": float(np.median([o.a90_95.px / detector.a90 for o in found])),
            }
        )
        print(rows[-1], flush=True)
    rejects = []
    for images, rate in REJECTS:
        counts = np.random.default_rng(SEED).binomial(images, rate, STUDIES)
        kept = [upper_bound(int(k), images) >= rate for k in counts]
        rejects.append({"images": images, "rate": rate, "held": float(np.mean(kept))})
    return {"studies": STUDIES, "detection": rows, "false_rejects": rejects}


def main() -> None:
    """Simulate and write."""
    record.write("certificates", simulated(), "scipy")


if __name__ == "__main__":
    cli.run(main)
