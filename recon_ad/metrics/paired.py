"""Whether two detectors differ on the same images: DeLong's test of AUROC, McNemar's of decisions.

Both are paired: what matters are the images on which the two differ, so that they tell more from
as many images than two intervals side by side. They speak of the choice of test images. Neither
knows of the training seed.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from recon_ad.metrics.ranking import UndefinedMetric, wins


class AurocTest(NamedTuple):
    """DeLong's test.

    Attributes:
      difference: AUROC of the second less that of the first.
      p: chance that detectors of equal AUROC differ by that much or more on such images.
    """

    difference: float
    p: float


class DecisionTest(NamedTuple):
    """McNemar's test.

    Attributes:
      first_only: images that only the first decides rightly.
      second_only: images that only the second does.
      p: chance that detectors that are right equally often differ by that much or more.
    """

    first_only: int
    second_only: int
    p: float


def delong(
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    anomalous: Bool[np.ndarray, " n"],
) -> AurocTest:
    """Tests whether two detectors have the same image AUROC, two-sided.

    DeLong, DeLong and Clarke-Pearson 1988, with their variance of a difference (eq. 5 and 6)
    from sorted scores, as Sun and Xu 2014 do it from ranks. The difference is taken as normal, as
    it is for many images: with a handful in a class, p is rough.

    Args:
      first: scores of the images by one detector, any finite values.
      second: those by the other.
      anomalous: the truth.

    Raises:
      UndefinedMetric: if a class has less than two images, or the images of neither class tell the
        detectors apart, so that the difference has no variance.
    """
    normals, defects = int((~anomalous).sum()), int(anomalous.sum())
    if min(normals, defects) < 2:
        few = "good" if normals < 2 else "defective"
        raise UndefinedMetric(f"less than two {few} images")
    # How much oftener an image wins over those of the other class with the second detector. As
    # whole numbers, so that a variance of 0 is 0.
    changes = wins(second, anomalous) - wins(first, anomalous)
    by_defect, by_normal = changes[anomalous] / normals, changes[~anomalous] / defects
    difference = float(by_defect.mean()) / 2
    variance = (by_defect.var(ddof=1) / defects + by_normal.var(ddof=1) / normals) / 4
    if not np.ptp(changes[anomalous]) and not np.ptp(changes[~anomalous]):
        raise UndefinedMetric(
            "the difference is the same for every image, so that it has no variance"
            if difference
            else "no image is ranked better by one than by the other"
        )
    return AurocTest(difference, math.erfc(abs(difference) / math.sqrt(2 * variance)))


def mcnemar(first: Bool[np.ndarray, " n"], second: Bool[np.ndarray, " n"]) -> DecisionTest:
    """Tests whether two detectors decide rightly equally often, two-sided and exact.

    McNemar 1947: of the images that only one of them decides rightly, each is as likely the
    first's as the second's. The exact binomial probability, doubled and at most 1.

    Args:
      first: of each image, whether one detector decides rightly.
      second: the same of the other.

    Raises:
      UndefinedMetric: if they are right about the same images.
    """
    first_only, second_only = int((first & ~second).sum()), int((second & ~first).sum())
    if not first_only + second_only:
        raise UndefinedMetric("both are right about the same images")
    tail = special.bdtr(min(first_only, second_only), first_only + second_only, 0.5)
    return DecisionTest(first_only, second_only, min(1.0, 2 * float(tail)))
