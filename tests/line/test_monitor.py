"""The monitor reports a change on the line once, and shows it."""

import base64
import io
import itertools
import re
import sqlite3
import time
import urllib.parse
from datetime import UTC, datetime

import numpy as np
import pytest
from helpers.lines import Looks, rows
from PIL import Image

from recon_ad.errors import UserError
from recon_ad.line import follow
from recon_ad.line.alarms import Monitor, parse_period
from recon_ad.line.dashboard import curve, page, shares
from recon_ad.line.run import overlay_of
from recon_ad.line.store import Key, Store
from recon_ad.runtime import waiting


def watched(*parts, reference="500"):
    """Return a monitor with these periods, after these rows."""
    periods = [parse_period(text) for text in reference.split(",")]
    found = Monitor(references=periods, run_length=10_000)
    for row in itertools.chain(*parts):
        found.feed(row)
    return found


def of(found, statistic):
    """Return the alarms of a statistic; those of others may be due to chance."""
    return [alarm for alarm in found.alarms if alarm.statistic == statistic]


def shown(found, *, name="a", later=0.0):
    """Return the dashboard's page, so many seconds after the last image."""
    return page(found, name=name, now=found.last + later)


@pytest.mark.parametrize(
    ("change", "statistic", "direction", "within"),
    [
        ({"darker": 0.025}, "brightness", "low", 30),
        ({"blur": 0.8}, "sharpness", "low", 30),
        ({"creep": 0.002}, "score", "high", 300),
        ({"rejects": 0.2}, "rejected", "high", 80),
        ({"broken": 3}, "broken", "high", 80),
    ],
)
def test_a_change_is_named(change, statistic, direction, within):
    found = watched(rows(900), rows(400, first=901, seed=1, **change))
    alarms = of(found, statistic)
    assert alarms and {a.direction for a in alarms} <= {direction, "changed"}
    assert alarms[0].direction == direction
    assert 901 <= alarms[0].image <= 901 + within
    assert alarms == found.alarms


def test_no_change_is_no_alarm_and_an_alarm_ends():
    # With six charts and 5,000 images after the references, 3 false alarms are expected, and more
    # because 500 images do not determine exactly what is normal.
    assert sum(len(watched(rows(1_500, seed=seed)).alarms) for seed in range(10, 15)) <= 9
    found = watched(
        rows(600), rows(100, first=601, seed=1, darker=0.05), rows(300, first=701, seed=2)
    )
    (alarm,) = of(found, "brightness")
    assert alarm.words == "images are darker than before"
    assert 601 <= alarm.image <= 620 and 701 <= alarm.ended <= 760


def test_a_chart_that_the_reference_will_not_do_for_is_left_out_and_told(caplog):
    found = watched(rows(60, broken=2), rows(60, first=61, darker=0.2), reference="50")
    assert not found.charts  # too few scores, and too many broken files
    assert any("no chart of broken, events" in message for message in caplog.messages)
    assert any("reference period of score has 25 images" in message for message in caplog.messages)
    found = watched(rows(300, rejects=0.6), rows(60, first=301, darker=0.1), reference="300")
    assert ("rejected", "events") not in found.charts and of(found, "brightness")


@pytest.mark.parametrize("scores", [[0.5], [0.1, 0.2], [0.3, 0.1, 0.4, 0.1, 0.5, 0.9, 0.2]])
def test_few_values_repeated_are_no_change(scores):
    cycle = itertools.cycle(scores)
    found = watched(row | {"score": next(cycle)} for row in rows(3_000))
    assert found.charts and not of(found, "score")
    # A different value is a change.
    more = [row | {"score": 1.0} for row in rows(100, first=3_001)]
    cycle = itertools.cycle(scores)
    again = watched((row | {"score": next(cycle)} for row in rows(3_000)), more)
    assert of(again, "score")


@pytest.fixture(scope="module")
def whole():
    """Return a monitor after 600 rows of which none is odd."""
    return watched(rows(600), reference="200")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("score", "abc"), ("score", b"\x00"), ("score", float("inf")), ("brightness", 1e400),
        ("committed", "x"), ("committed", 1e300), ("committed", None), ("anomalous", "yes"),
        ("registration", "sure"), ("outcome", "<script>"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("at", [20, 400])
def test_a_row_with_what_no_line_writes_decides_nothing(whole, column, value, at):
    def odd(row):
        return row | {column: value} if row["id"] == at else row

    found = watched(map(odd, rows(600)), reference="200")
    assert found.charts.keys() == whole.charts.keys()
    assert [a.image for a in found.alarms] == [a.image for a in whole.alarms]
    assert "<script>" not in shown(found)


@pytest.mark.parametrize("at", [1, 20, 200])
def test_a_row_with_a_wrong_clock_ends_no_period(at):
    def wrong(row):
        return row | {"committed": 4e9} if row["id"] == at else row

    times = "..".join(datetime.fromtimestamp(1e9 + i, UTC).isoformat() for i in (100, 300))
    found = watched(map(wrong, rows(320)), reference=times)
    assert found.charts and not found.collecting and not found.alarms
    assert found.collected in (200, 201, 202)
    # A pause of a night is not a wrong clock.
    later = [row | {"committed": row["committed"] + 50_000} for row in rows(20, first=251)]
    found = watched(rows(250), later, reference=times)
    assert found.charts and found.last == 1e9 + 50_270


def test_a_damaged_note_of_what_was_told_and_a_locked_table_stop_nothing(tmp_path, monkeypatch):
    store = Store(tmp_path / "line.sqlite")
    for row in rows(60):
        store.commit(Key(f"{row['id']}.png", 1, 1), row | {"latency": 0.1, "waiting": 0})
    store.close()
    monkeypatch.setattr(waiting, "RETRY", 0.01)
    opened = iter([sqlite3.OperationalError("database is locked")] * 2)

    class Locked(Store):
        def __init__(self, path):
            for error in opened:
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            super().__init__(path)

    monkeypatch.setattr(follow, "Store", Locked)
    null = '{"settings": null, "marks": {}}'
    for content in ("", "{", "[]", "{}", null, "\xff", "[" * 100_000):
        (tmp_path / "told.json").write_text(content, encoding="latin-1")
        found = follow.follow(
            tmp_path, references=[parse_period("30")], run_length=1e4, webhook="", stop=Looks()
        )
        assert found.images == 60


def test_rows_before_a_period_and_of_it_are_not_judged():
    # Dark until row 300, like the rows of the period itself.
    parts = [*rows(300), *rows(300, first=301, seed=1, darker=0.1)]
    assert of(watched(parts, reference="200"), "brightness")
    later = watched(parts, rows(200, first=601, seed=2, darker=0.1), reference="301..500")
    assert not of(later, "brightness") and later.reference.text == "301..500"
    back = watched(parts, rows(100, first=601, seed=2), reference="301..500")
    assert [(a.direction, a.reference) for a in of(back, "brightness")] == [("high", "301..500")]
    # A period of times means the rows committed then; row i is committed at 1e9 + i s.
    times = [datetime.fromtimestamp(1e9 + i, UTC).isoformat() for i in (301, 500)]
    by_time = watched(parts, rows(100, first=601, seed=2), reference="..".join(times))
    assert back.alarms == [a._replace(reference="301..500") for a in by_time.alarms]


def test_a_further_period_leaves_earlier_alarms_and_starts_anew():
    # A lamp is changed on purpose at row 401.
    parts = [*rows(400), *rows(400, first=401, seed=1, darker=0.1)]
    before, after = watched(parts, reference="200"), watched(parts, reference="200,501..700")
    (alarm,) = of(before, "brightness")
    assert alarm.ended is None
    # The alarm ends where the period begins, and later rows are like that period.
    assert of(after, "brightness") == [alarm._replace(ended=501)]
    assert not any(501 <= a.image <= 700 for a in after.alarms)
    again = watched(parts, rows(100, first=801, seed=2), reference="200,501..700")
    found = of(again, "brightness")
    assert [(a.direction, a.reference) for a in found] == [("low", "200"), ("high", "501..700")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("soon", "cannot be read"),
        ("1..2026-03-01T06:00", "cannot be read"),
        ("20", "is too short"),
        ("100..120", "is too short"),
        ("200..100", "ends before it begins"),
        ("2026-03-02T06:00..2026-03-01T06:00", "ends before it begins"),
    ],
)
def test_a_period_that_is_none_gets_a_sentence(text, words):
    with pytest.raises(UserError, match=words):
        parse_period(text)


def test_registration_is_watched_where_parts_are_aligned():
    def aligned(row):
        if row["outcome"] == "broken":
            return row
        late = row["id"] > 400
        if late and row["id"] % 3 == 0:
            # As a line stores it: an error, and the confidence of the best position.
            return row | {
                "score": None, "anomalous": None, "outcome": "not registered",
                "error": "not there", "registration": 0.2,
            }  # fmt: skip
        return row | {"registration": (0.9 if late else 0.95) + 0.001 * (row["id"] % 17)}

    found = watched(map(aligned, rows(500)), reference="200")
    words = [alarm.words for alarm in of(found, "not registered")]
    assert words == ["more parts are not found than before"]
    assert [a.direction for a in of(found, "registration")] == ["low"]
    assert not of(found, "broken")  # a missing part is not a broken file
    assert 'id="not-registered"' in shown(found)
    without = watched(rows(500), reference="200")
    names = {name for name, _ in without.charts}
    assert names == {"score", "brightness", "sharpness", "rejected", "broken"}
    assert "egist" not in shown(without)


@pytest.mark.parametrize(
    ("count", "later", "reference", "words"),
    [
        (600, 60, "500", "No change since the reference period."),
        (600, 1200, "500", "No image for 20 minutes."),
        (40, 0, "500", "Charts start after the first 500 images: 40 so far."),
        (40, 0, "2001-01-01..2030-01-01", "2001-01-01..2030-01-01 is over: 40 images so far."),
        (40, 0, "50..90", "reference period 50..90, which has not begun."),
        (
            450,
            0,
            "200,501..700",
            "Compared with the first 200 images. Next reference period: images 501..700.",
        ),
        (600, 0, "200,501..700", "501..700 is complete: 100 of 200 images so far"),
    ],
)
def test_the_page_says_how_a_line_is_and_what_charts_wait_for(count, later, reference, words):
    drawn = shown(watched(rows(count), reference=reference), name="<press>", later=later)
    assert words in drawn and "&lt;press&gt;" in drawn and "<press>" not in drawn


def test_a_curve_has_gaps_where_there_is_no_value():
    drawn = curve(np.array([1.0, 2.0, np.nan, 3.0, 4.0]), alt="x")
    assert drawn.count("<polyline") == 2
    assert "No values" in curve(np.array([np.nan]), alt="x")
    assert "polyline" in curve(np.array([1.0]), alt="x")


def test_a_curve_has_its_axes_and_the_threshold():
    times = [1e9, 1e9 + 60, 1e9 + 7200]
    drawn = curve(np.array([1.0, 4.0, 2.0]), alt="x", times=times, threshold=3.0)
    assert re.findall(r"<span>([\d.]+)</span>", drawn) == ["4.00", "2.50", "1.00"]
    clock = [time.strftime("%H:%M:%S", time.localtime(t)) for t in times]
    assert re.findall(r"<span>([\d:]+:[\d:]+)</span>", drawn) == clock
    assert drawn.count('class="above"') == drawn.count('class="threshold"') == 1
    assert "threshold 3.00" in drawn
    assert "threshold" not in curve(np.array([1.0]), alt="x")
    late = curve(np.array([1.0, 2.0]), alt="x", times=[1e9, 1e9 + 400_000])
    assert time.strftime("%m-%d %H:%M", time.localtime(1e9)) in late


def test_what_happens_or_not_is_drawn_as_its_share():
    values = np.array([1.0] * 50 + [np.nan] * 10 + [0.0] * 30)
    drawn = shares(values)
    assert drawn[0] == drawn[49] == 1.0 and drawn[59] == 1.0
    assert drawn[-1] == pytest.approx(10 / 40)  # of the latest 50, ten without a value
    assert np.isnan(shares(np.array([np.nan]))).all()


def test_the_latest_rejects_are_shown_as_the_line_has_drawn_them(tmp_path):
    def named(row):
        return row | {"name": f"new/{row['id']} #.png", "threshold": 1.5}

    found = watched(map(named, rows(300, rejects=0.1)), reference="200")
    assert found.rejected > found.rejects.maxlen == len(found.rejects)
    kept = [row["name"] for row in found.rejects][1:]  # the first one was deleted
    for name in kept:
        path = overlay_of(tmp_path, name, anomalous=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (900, 300), "red").save(path)
    overlay_of(tmp_path, kept[-1], anomalous=True).write_bytes(b"half writ")
    drawn = page(found, name="a", now=found.last, line=tmp_path)
    links = [urllib.parse.unquote(link) for link in re.findall(r'<a href="([^"]*)"', drawn)]
    assert links == [f"reject/{name}.png" for name in kept[-2::-1]]
    assert all((tmp_path / link).is_file() for link in links)
    (data, *_) = re.findall(r"data:image/jpeg;base64,([^\"]*)", drawn)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (360, 120)
    assert f"{found.rejected} of them rejected" in drawn and "threshold 1.50" in drawn
    assert 'id="rejects"' not in shown(found)
