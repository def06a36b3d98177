"""The appearance of defects in benchmarks/studies/certificates.py."""

import math

import numpy as np
import pytest

from benchmarks.studies.certificates import appearance


def test_a_defect_looks_as_its_largest_region_does():
    image = np.tile(np.linspace(50, 150, 200).astype(np.uint8)[:, None, None], (1, 200, 1))
    mask = np.zeros((200, 200), bool)
    mask[90:110, 90:110] = True
    image[mask] = 180
    alone = appearance(image, mask)
    # The 1st and the 99th percentile are 51 and 149: the defect is a hundredth of the image.
    assert alone[0] == pytest.approx((180 - 100) / (149 - 51), abs=0.02)
    assert alone[1] == pytest.approx(2 / math.pi, rel=0.1)  # a square in a circle
    mask[20:30, 20:30] = True  # a second defect, darker
    image[20:30, 20:30] = 0
    both = appearance(image, mask)
    assert both[1] == alone[1]
    assert both[0] == pytest.approx(alone[0], abs=0.02)
