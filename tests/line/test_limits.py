"""Limits of a certificate on the line: reading them, alarms, the dashboard."""

import json

import numpy as np
import pytest

from recon_ad.errors import UserError
from recon_ad.line.alarms import Monitor, parse_period
from recon_ad.line.dashboard import page
from recon_ad.line.limits import IMAGES, read_limits

LIMITS = {"brightness": (0.45, 0.55), "sharpness": (0.01, None)}


def rows(brightness, *, first=1, sharpness=0.02, broken=5):
    for i, value in enumerate(brightness, first):
        measured = {"brightness": float(value), "sharpness": sharpness, "score": 1.0}
        seen = i % broken
        yield {
            "id": i, "committed": 1e9 + i, "registration": None, "error": None, "anomalous": 0,
            "outcome": "good" if seen else "broken",
            **(measured if seen else dict.fromkeys(measured)),
        }  # fmt: skip


def watched(values, **settings):
    found = Monitor(references=[parse_period("500")], run_length=10_000, limits=LIMITS)
    for row in rows(values, **settings):
        found.feed(row)
    return found


def test_images_beyond_the_certificate_are_an_alarm_before_any_reference_is_over():
    noise = 0.02 * np.random.default_rng(0).standard_normal(300)
    found = watched(0.5 + noise - 0.15 * ((np.arange(300) >= 100) & (np.arange(300) < 200)))
    (alarm,) = found.alarms
    assert (alarm.statistic, alarm.kind, alarm.direction) == ("brightness", "certificate", "low")
    assert alarm.words == "images are darker than the certificate covers"
    # A third of the images have to be dark for the mean to fall by .05; one in five has no value.
    assert 105 <= alarm.image <= 125 and 205 <= alarm.ended <= 245
    shown = page(found, name="a", now=found.last)
    assert "compared with the certificate" in shown and "the certificate covers" in shown.lower()
    assert watched(0.5 + noise).alarms == []


def test_too_few_images_are_no_alarm_and_no_end_is_no_limit():
    assert watched([0.1] * (IMAGES - 1), broken=1000).alarms == []
    assert len(watched([0.1] * IMAGES, broken=1000).alarms) == 1
    assert watched([0.5] * 60, sharpness=99.0).alarms == []
    assert watched([0.5] * 60, sharpness=0.001).alarms[0].statistic == "sharpness"


def test_from_too_dark_to_too_bright_is_a_second_alarm():
    found = watched([0.1] * 60 + [0.9] * 60)
    assert [alarm.direction for alarm in found.alarms] == ["low", "high"]
    assert found.alarms[0].ended <= found.alarms[1].image and found.alarms[1].ended is None


def test_limits_are_read_from_a_certificate(tmp_path):
    file = tmp_path / "certificate.json"
    limits = {"brightness": [0.45, 0.55], "sharpness": [0.01, None]}
    file.write_text(json.dumps({"envelope": {"warning_limits": limits}}))
    assert read_limits(file) == LIMITS
    with pytest.raises(UserError, match="cannot be read"):
        read_limits(tmp_path / "none.json")
    for damaged in (
        "{", "[]", '{"envelope": null}', "{}", '{"envelope": {"warning_limits": {}}}',
        json.dumps({"envelope": {"warning_limits": limits | {"sharpness": [1]}}}),
        json.dumps({"envelope": {"warning_limits": limits | {"sharpness": ["a", 1]}}}),
        json.dumps({"envelope": {"warning_limits": limits | {"sharpness": [True, 1]}}}),
        '{"envelope": {"warning_limits": {"brightness": [NaN, 1], "sharpness": [1, 2]}}}',
    ):  # fmt: skip
        file.write_text(damaged)
        with pytest.raises(UserError, match="holds no operating envelope"):
            read_limits(file)
