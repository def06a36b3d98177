"""Paired tests of two detectors: DeLong's of the AUROC and McNemar's of the decisions.

Both detectors see the same images, and only the images on which they differ matter. A paired test
therefore finds smaller differences than two intervals side by side. The tests account for the
choice of test images, not for the training seed.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from recon_ad.metrics.ranking import UndefinedMetric, wins


class AurocTest(NamedTuple):
    """Result of DeLong's test.

    Attributes:
      difference: AUROC of the second detector minus that of the first.
      p: Chance that detectors of equal AUROC differ by that much or more on such images.
    """

    difference: float
    p: float


class DecisionTest(NamedTuple):
    """Result of McNemar's test.

    Attributes:
      first_only: Number of images that only the first detector decides correctly.
      second_only: Number of images that only the second detector decides correctly.
      p: Chance that detectors that are correct equally often differ by that much or more.
    """

    first_only: int
    second_only: int
    p: float


def delong(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    anomalous: Bool[np.ndarray, " n"],
) -> AurocTest:
    """Test whether two detectors have the same image AUROC, two-sided.

    The test is that of DeLong, DeLong and Clarke-Pearson 1988. Their variance of a difference
    (eq. 5 and 6) is computed from sorted scores, as Sun and Xu 2014 compute it from ranks. The
    difference is assumed to be normal, which holds for many images. With a handful in a class, p
    is rough.

    Args:
      first: Scores of the images by the first detector, any finite values.
      second: Scores of the same images by the second detector.
      anomalous: True where the image is defective.

    Raises:
      UndefinedMetric: If a class has fewer than two images, or no class separates the detectors,
        so that the difference has no variance.
    """
    normals, defects = int((~anomalous).sum()), int(anomalous.sum())
    if min(normals, defects) < 2:
        few = "good" if normals < 2 else "defective"
        raise UndefinedMetric(f"fewer than two {few} images")
    # How much more often an image wins over those of the other class with the second detector.
    # Whole numbers, so that a variance of 0 is exactly 0.
    changes = wins(second, anomalous) - wins(first, anomalous)
    by_defect, by_normal = changes[anomalous] / normals, changes[~anomalous] / defects
    difference = float(by_defect.mean()) / 2
    variance = (by_defect.var(ddof=1) / defects + by_normal.var(ddof=1) / normals) / 4
    if not np.ptp(changes[anomalous]) and not np.ptp(changes[~anomalous]):
        raise UndefinedMetric(
            "the difference is the same for every image, so that it has no variance"
            if difference
            else "neither detector ranks any image better than the other does"
        )
    return AurocTest(difference, math.erfc(abs(difference) / math.sqrt(2 * variance)))


def mcnemar(first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]) -> DecisionTest:
    """Test whether two detectors are correct equally often, two-sided and exact.

    Under the hypothesis of McNemar 1947, an image that only one of them decides correctly is
    equally likely to be the first's or the second's. p is the exact binomial probability, doubled
    and at most 1.

    Args:
      first: True where the first detector decides the image correctly.
      second: True where the second detector decides the image correctly.

    Raises:
      UndefinedMetric: If both are correct about the same images.
    """
    first_only, second_only = int((first & ~second).sum()), int((second & ~first).sum())
    if not first_only + second_only:
        raise UndefinedMetric("both are correct about the same images")
    tail = special.bdtr(min(first_only, second_only), first_only + second_only, 0.5)
    return DecisionTest(first_only, second_only, min(1.0, 2 * float(tail)))
