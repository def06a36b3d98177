"""The counts of benchmarks/studies/drifts.py, on made-up judgements."""

import numpy as np

from benchmarks.studies import drifts
from recon_ad.line.charts import make_chart


def judgements(random, *, count=300, brightness=0.5, score=0.1, rejected=0.0):
    return {
        "score": score + 0.01 * random.standard_normal(count),
        "brightness": brightness + 0.01 * random.standard_normal(count),
        "sharpness": 0.02 + 0.001 * random.standard_normal(count),
        "rejected": np.full(count, rejected),
    }


def test_a_delay_is_from_the_change_on():
    chart = make_chart("x", "ewma", np.linspace(0, 1, 100), run_length=1_000)
    calm, high = np.full(50, 0.5), np.full(50, 1.0)
    assert 2 <= drifts.delay(chart, calm, high) <= 10
    assert drifts.delay(chart, calm, calm) == float("inf")
    assert drifts.delay(chart, high, high) is None  # in alarm before
    assert drifts.run(chart, np.concatenate([high, calm, high]))[1] == 2
    # Streams without an alarm have infinite delays, and those in alarm before are left out.
    summary = drifts.summary([1.0, 2.0, 3.0, float("inf"), None])
    assert summary == {"streams": 4, "median": 2.0, "p95": None, "never": 0.25}


def test_each_drift_is_seen_by_its_chart(monkeypatch):
    for name, value in {"QUIET": 3, "STREAMS": 3, "QUIET_LENGTH": 200, "WITHIN": 600}.items():
        monkeypatch.setattr(drifts, name, value)
    random = np.random.default_rng(0)
    fields = ({}, {"brightness": 0.475}, {}, {"score": 0.5, "rejected": 1.0})
    people = drifts.Population(*(judgements(random, **given) for given in fields), 0.2)
    rows = drifts.measured(people, 200)
    darker, _, creep, burst, none = drifts.DRIFTS
    assert rows["brightness, ewma"]["delay"][darker]["p95"] < 10
    assert rows["sharpness, ewma"]["delay"][darker]["never"] > 0.5
    assert rows["rejected, events"]["delay"][burst]["p95"] < 100
    assert rows["score, ewma"]["delay"][burst]["p95"] < 100
    assert 30 < rows["score, ewma"]["delay"][creep]["median"] < 600
    assert rows["rejected, events"]["delay"][none]["never"] == 1
    page = drifts.page({"of": "x", "references": {"200": rows}})
    assert page.count("\n| ") == 1 + len(drifts.CHARTS)
