"""Decisions in counts, and whether the promise is kept."""

import pytest

from recon_ad.data.source import GOOD
from recon_ad.metrics.conformal import surprising
from recon_ad.metrics.promise import decisions, promised_rates
from recon_ad.metrics.summary import ImageResult


def rows(good, stopped, defective=0, found=0):
    def one(i, defect, label):
        return ImageResult(f"{defect}{i}", defect, defect != GOOD, 0.0, label, None, 0, 0)

    return [one(i, GOOD, i < stopped) for i in range(good)] + [
        one(i, "hole", i < found) for i in range(defective)
    ]


def test_counts_and_sentence():
    found = decisions({"": rows(14, 7, 32, 32)}, {"": (0.14, 50.0)})
    assert found[:5] == (32, 32, 7, 14, 0.14)
    assert found.p_value == surprising(7, 14, promised=0.14, units=50.0) < 0.05
    assert found.broken and found.sentence() == (
        "found 32 of 32 defective images, stopped 7 of 14 good images by mistake "
        "(promised: 14\u00a0%)"
    )
    assert "7 of 14 good test images" in found.warning() and "14\u00a0%" in found.warning()


@pytest.mark.parametrize(("stopped", "broken"), [(0, False), (4, False), (6, True), (14, True)])
def test_only_what_is_significant_is_broken(stopped, broken):
    found = decisions({"": rows(14, stopped)}, {"": (0.14, 50.0)})
    assert found.broken is broken is bool(found.warning())


def test_without_good_images_or_promise_nothing_is_broken():
    assert decisions({"": rows(0, 0, 3, 1)}, {"": (0.1, 9.0)}).sentence() == (
        "found 1 of 3 defective images"
    )
    given = decisions({"": rows(4, 4)}, {"": (None, 9.0)})
    assert given.promised is None and not given.broken and "given in the config" in given.sentence()


def test_categories_weigh_by_their_good_images():
    found = decisions({"a": rows(30, 3), "b": rows(10, 2)}, {"a": (0.1, 30.0), "b": (0.3, 20.0)})
    assert found.promised == pytest.approx(0.15)
    assert found.stopped == 5 and found.good == 40
    entry = {"images": 8, "regions_per_image": 2.0, "fpr_supported": 0.2}
    assert promised_rates(entry, [""]) == {"": (0.2, 4.0)}  # from an older detector
    entry |= {"independent_units": 9.0, "by_category": {"a": [0.1, 5.0]}}
    assert promised_rates(entry, ["a", ""]) == {"a": (0.1, 5.0), "": (0.2, 9.0)}
