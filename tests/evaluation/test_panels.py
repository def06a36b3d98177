"""What a report shows of an image follows from its verdict."""

import numpy as np
import pytest
from helpers.detectors import make_detector, pictures

from recon_ad.data import Record
from recon_ad.detector.inference import Thresholds
from recon_ad.evaluation.panels import panel
from recon_ad.report import pixel_scale


@pytest.mark.parametrize("rejected", [False, True])
def test_an_accepted_image_is_shown_without_marks_at_any_pixel_threshold(rejected):
    detector, image = make_detector(), pictures()[0]
    found = detector.predict(image)
    score, pixel = float(found.score), float(np.median(found.anomaly_map))
    limit = score - 1e-3 if rejected else score + 1e-3
    detector = detector.with_thresholds(Thresholds(limit, pixel), {})
    values = found.anomaly_map
    scale = pixel_scale(pixel, lambda share: float(np.quantile(values, share)))
    shown = panel(detector, Record("a.png", lambda: image), scale=scale)
    assert detector.predict(image).mask.any()  # of which pixel figures are
    assert shown.mask.any() == bool(shown.marked) == bool(shown.regions) == rejected
    assert (shown.marks is not None) == rejected
