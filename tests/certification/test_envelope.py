"""The operating envelope: disturbances, the search for the first level, limits, page."""

import numpy as np
import pytest

from recon_ad.certification import envelope as env
from recon_ad.certification import sections
from recon_ad.certification.disturb import DISTURBANCES, applies, disturbed
from recon_ad.certification.envelope import Outcome, Target, envelope, first_true, targets


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 2)])
@pytest.mark.parametrize("name", list(DISTURBANCES))
def test_a_disturbance_grows_with_its_level_and_keeps_the_type(name, dtype, channels):
    top = np.iinfo(dtype).max
    rng = np.random.default_rng(0)
    image = (top * rng.uniform(0.2, 0.6, (60, 70, channels))).astype(dtype)
    if not applies(image, name):
        assert name == "jpeg" and dtype == np.uint16
        return
    changes = []
    for level in DISTURBANCES[name].levels:
        made = disturbed(image, name, level, np.random.default_rng(1))
        assert made.shape == image.shape and made.dtype == dtype
        changes.append(np.abs(made.astype(float) - image).mean() / top)
    assert changes[0] > 0 and changes[-1] > 0.01
    # White noise that is moved by a pixel is as far from itself as if moved by many.
    if name not in ("shift", "rotation"):
        assert changes == sorted(changes)


def test_brightness_and_contrast_change_by_their_level():
    image = np.full((20, 20, 1), 100, np.uint8)
    image[:10] = 60
    rng = np.random.default_rng(0)
    assert set(disturbed(image, "brighter", 0.1, rng).ravel()) == {110, 66}
    assert set(disturbed(image, "darker", 0.1, rng).ravel()) == {90, 54}
    assert set(disturbed(image, "less_contrast", 0.2, rng).ravel()) == {96, 64}


def test_the_first_level_that_fails_is_found_with_few_tests():
    for first in range(6):
        tried = []
        levels = (1.0, 2.0, 3.0, 4.0, 5.0)
        found = first_true(lambda x: tried.append(x) or x > first, levels)  # noqa: B023
        assert found == first and len(tried) <= 3


def outcome(*, stopped=0, found=24, good=20, brightness=0.5, sharpness=1.0):
    def rows(count, total):
        row = {"registered": True, "brightness": brightness, "sharpness": sharpness}
        return [row | {"stopped": i < count} for i in range(total)]

    return Outcome(rows(stopped, good), rows(found, 24))


def found_by(judge_at, names=("darker",), promise=(0.01, 99.0)):
    watched = [Target("spot", 0.4, 12.0)]
    return envelope(judge_at, names=names, promise=promise, rejects=(0, 30), watched=watched)


def test_rejects_and_misses_beyond_chance_end_the_envelope():
    def judge_at(name, level):
        if name == "darker":
            return outcome(stopped=3 if level > 0.1 else 0, brightness=0.5 * (1 - level))
        return outcome(found=18 if level >= 4 else 20)

    found = found_by(judge_at, ("darker", "shift"))
    darker, shift = (found["disturbances"][name] for name in ("darker", "shift"))
    assert (darker["holds_to"], darker["leaves_at"], darker["because"]) == (0.1, 0.2, ["rejects"])
    # 18 of 24 are fewer than nine in ten at 5 %, 20 are not.
    assert (shift["holds_to"], shift["leaves_at"], shift["because"]) == (2.0, 4.0, ["detection"])
    assert found["warning_limits"]["brightness"] == [pytest.approx(0.45), None]
    assert found["usual"]["brightness"] == 0.5


def test_blur_and_noise_limit_the_sharpness():
    def judge_at(name, level):
        stopped = 9 if (name, level) in {("blur", 3.0), ("noise", 0.04), ("noise", 0.08)} else 0
        return outcome(stopped=stopped, sharpness=1 - 0.2 * level if name == "blur" else 1 + level)

    limits = found_by(judge_at, ("blur", "noise"))["warning_limits"]
    assert limits == {"brightness": [None, None], "sharpness": pytest.approx([0.6, 1.02])}


def test_what_fails_without_a_disturbance_is_not_blamed_on_it():
    found = found_by(lambda name, level: outcome(stopped=10, found=24 if level < 0.2 else 0))
    darker = found["disturbances"]["darker"]
    assert found["undisturbed"]["rejects_fail"]
    assert (darker["leaves_at"], darker["because"]) == (0.2, ["detection"])
    never = found_by(lambda name, level: outcome(stopped=10))["disturbances"]["darker"]
    assert (never["holds_to"], never["leaves_at"]) == (0.4, None)


def test_where_the_first_level_fails_it_is_the_limit():
    found = found_by(
        lambda name, level: outcome(stopped=20 if level else 0, brightness=0.5 - level)
    )
    darker = found["disturbances"]["darker"]
    assert (darker["holds_to"], darker["leaves_at"]) == (None, 0.02)
    assert found["warning_limits"]["brightness"][0] == pytest.approx(0.48)


def test_a_part_that_is_not_found_counts_as_stopped():
    lost = [{"registered": False, "stopped": False, "brightness": 0.5, "sharpness": 1.0}] * 20

    def judge_at(name, level):
        return outcome()._replace(good=lost) if level >= 8 else outcome()

    assert found_by(judge_at, ("shift",))["disturbances"]["shift"]["leaves_at"] == 8


def test_each_kind_is_watched_at_its_middle_contrast_or_a_stronger_one():
    def entry(kind, contrast, px, where="within"):
        return {"kind": kind, "contrast": contrast, "image": {"a90": {"px": px, "where": where}}}

    entries = [
        entry("spot", 0.2, 40.0), entry("spot", 0.4, 20.0), entry("spot", 0.8, 8.0),
        entry("dent", 0.4, 90.0), entry("dent", 0.8, 60.0), entry("smear", 0.4, 50.0, "above"),
        entry("missing", None, 16.0), entry("scratch", 0.2, 30.0),
    ]  # fmt: skip
    chosen = {one.kind: (one.contrast, one.size) for one in targets(entries, largest=100.0)}
    assert chosen == {
        "spot": (0.4, 25.0), "missing": (None, 20.0), "dent": (0.8, 75.0), "scratch": (0.2, 37.5),
    }  # fmt: skip


def test_without_a_promise_the_undisturbed_rate_is_to_be_kept():
    found = found_by(lambda name, level: outcome(), promise=None)
    assert found["rate_kept"] == 1 / 32 and env.GROWTH == 1.25


def test_the_page_says_which_change_is_too_much_and_why():
    found = found_by(
        lambda name, level: outcome(stopped=0 if level < 0.2 else 9, brightness=0.5 - level / 2),
        ("brighter", "darker", "blur", "noise", "jpeg"),
    )
    text = sections.envelope(found)
    assert "good parts are stopped" in text and "not reached in the tests" in text
    assert "20\xa0%" in text and "10\xa0%" in text
