"""The report's script in a real browser: sliders, sorting, filters, narrow screens, no network."""

import time

import numpy as np
import pytest
from helpers.browser import Browser, chromium
from helpers.report_pages import EVIL, decoded, panel, realistic_report

from recon_ad.report import Report, Scale, Score, pictures, render_report, sliders, write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no chromium on this machine"),
]

ROWS = (
    "[...document.querySelectorAll('.images tbody tr')]"
    ".map(row => [...row.cells].map(cell => cell.innerText))"
)
# Resolves when no picture is left to redraw.
SETTLED = (
    "new Promise(done => { const look = () => document.querySelector('#pixel-threshold')?.ariaBusy "
    "=== 'true' ? setTimeout(look, 10) : done(true); look(); })"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def report():
    """Return a report with scores that round alike, and large ones."""
    made = realistic_report(rows=30, size=(150, 230))
    close = (0.25036, 0.25041, 0.250413, 12_345.2, 12_345.7, 98_765.0)
    return made._replace(
        scores=[*made.scores, *(Score(f"{v}", "good", v, v > made.threshold) for v in close)]
    )


@pytest.fixture(scope="module")
def written(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, report)
    return path


@pytest.fixture
def page(browser, written):
    """Yield the browser with the report open, and check at the end that there were no errors."""
    browser.open(written)
    yield browser
    assert faults(browser) == []


@pytest.fixture
def show(browser, tmp_path):
    """Write a report of rows (name, defect, score, whether anomalous) and open it."""

    def open_(rows=(), threshold=None, **fields):
        scores = [Score(*row) for row in rows]
        path = tmp_path / "r.html"
        write_report(path, Report("t", {}, threshold=threshold, scores=scores)._replace(**fields))
        browser.open(path)
        return browser

    return open_


def faults(browser):
    """Return errors of the console and the network, and requests that left the page."""
    wrong = ("Log.entryAdded", "Runtime.exceptionThrown")
    bad = [e for e in browser.events if e["method"] in wrong]
    sent = [e for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    urls = [e["params"]["request"]["url"] for e in sent]
    return bad + [url for url in urls if not url.startswith(("file:", "data:"))]


def focus(browser, selector):
    browser.run(f"document.querySelector({selector!r}).focus()")


def text(browser, selector):
    return browser.run(f"document.querySelector({selector!r}).innerText").replace("\u00a0", " ")


def click(browser, selector):
    browser.run(f"document.querySelector({selector!r}).click()")


def sort(browser, column):
    click(browser, f".images th:nth-child({column}) button")


def put(browser, control, *values):
    """Set a control to these values one after another, as a hand does."""
    browser.run(
        f"{{ const c = document.getElementById('{control}'); for (const v of {list(values)}) "
        "{ c.value = v; c.dispatchEvent(new Event('input', { bubbles: true })); } }"
    )


def move(browser, slider, *positions):
    """Move the slider as a drag does, and wait for the pictures."""
    put(browser, f"{slider}-input", *positions)
    browser.run(SETTLED)


def called(row, threshold):
    anomalous, good = row.score > threshold, row.defect == "good"
    wrong = {(True, True): " false alarm", (False, False): " missed"}
    return ("defective" if anomalous else "good") + wrong.get((anomalous, good), "")


def test_the_image_slider_decides_and_counts_anew_at_every_position(page, report):
    scale = sliders.image_scale([s.score for s in report.scores], report.threshold)
    texts = sliders.texts(scale)
    good = [s for s in report.scores if s.defect == "good"]
    bad = [s for s in report.scores if s.defect != "good"]
    for position in range(len(texts)):
        move(page, "image-threshold", position)
        threshold = scale.values[position]
        assert {r[0]: r[3] for r in page.run(ROWS)} == {
            s.name: called(s, threshold) for s in report.scores
        }
        alarms, found = (sum(s.score > threshold for s in kind) for kind in (good, bad))
        for count, words in {
            "false-alarms": f"{alarms} of {len(good)} good images",
            "true-alarms": f"{found} of {len(bad)} defective images",
            "misses": f"{len(bad) - found} of {len(bad)} defective images",
            "fpr": f"{100 * alarms / len(good):.1f} %",
            "tpr": f"{100 * found / len(bad):.1f} %",
        }.items():
            assert text(page, f"#count-{count}") == words
        # The row's digits distinguish its score from the threshold.
        for name, _, score, decision in page.run(ROWS):
            if position != scale.start:
                shown = float(score.replace(",", ""))
                assert (shown > threshold) == decision.startswith("defective"), name
        at = "" if position == scale.start else f" at {texts[position]}"
        assert text(page, ".images th:nth-child(4)") == f"decision{at}"
    sort(page, 4)
    move(page, "image-threshold", 4)
    decisions = [row[3] for row in page.run(ROWS)]
    assert decisions == sorted(decisions) and len(set(decisions)) > 2


def test_sliders_start_calibrated_obey_the_keyboard_and_go_back(page, report):
    before, now = page.run(ROWS), "#image-threshold .now"
    start = sliders.image_scale([s.score for s in report.scores], report.threshold).start
    calibrated = text(page, now)
    assert calibrated == f"{report.threshold:.3g}, the calibrated value"
    assert page.run("document.querySelector('#image-threshold button').disabled")
    focus(page, "#image-threshold-input")
    page.press("ArrowRight", times=3)
    assert page.run("document.activeElement.value") == str(start + 3)
    assert "above the calibrated" in text(page, now) and "fewer images" in text(page, now)
    assert page.run("document.activeElement.ariaValueText") == text(page, now)
    page.press("Home")
    assert "below the calibrated" in text(page, now) and "more images" in text(page, now)
    focus(page, "#image-threshold button")
    page.press("Enter")
    assert text(page, now) == calibrated and page.run(ROWS) == before
    assert page.run("document.activeElement.id") == "image-threshold-input"


def test_at_the_calibrated_threshold_the_detectors_own_decisions_stand(show):
    # A detector may decide in another precision than the page; its decision counts.
    rows = [("a", "good", 0.5, True), ("b", "dent", 0.7, False), ("c", "good", 0.1, False)]
    browser = show(rows, 0.6)
    shown = [["b", "dent", "0.700", "good missed"], ["a", "good", "0.500", "defective false alarm"]]
    assert browser.run(ROWS)[:2] == shown
    assert text(browser, "#count-false-alarms") == "1 of 2 good images"
    move(browser, "image-threshold", 1)
    assert browser.run(ROWS)[0][3] == "defective"


def test_columns_sort_by_click_and_key_numbers_as_numbers(show):
    rows = [("10.png", "good", 9.0), ("9.png", "dent", 10.0), ("a.png", "dent", 1200.0)]
    rows += [("b.png", "good", float("nan")), ("c.png", "dent", 2e-6)]
    browser = show([(*row, row[2] > 5) for row in rows], 5.0)

    def state():
        heads = "[...document.querySelectorAll('.images thead th')].map(h => h.ariaSort)"
        return [row[0][0] for row in browser.run(ROWS)], browser.run(heads)

    assert state() == (list("ba91c"), [None, None, "descending", None])
    focus(browser, ".images th:nth-child(3) button")
    browser.press("Enter")
    assert state() == (list("c19ab"), [None, None, "ascending", None])
    sort(browser, 1)
    assert state() == (list("91abc"), ["ascending", None, None, None])
    browser.press("Enter")  # the focus stayed on the score
    assert state() == (list("ba91c"), [None, None, "descending", None])
    sort(browser, 4)
    decided = ["defective", "defective", "defective false alarm", "good", "good missed"]
    assert [row[3] for row in browser.run(ROWS)] == decided


def test_filters_leave_the_images_that_fit(page, report):
    def choose(control, value):
        put(page, control, value)
        return {row[0] for row in page.run(ROWS)}

    everything = {s.name for s in report.scores}
    of = {kind: {s.name for s in report.scores if s.defect == kind} for kind in ("dent", "scratch")}
    options = page.run("[...document.getElementById('filter-truth').options].map(o => o.value)")
    assert options == ["", "dent", "good", "scratch"]
    assert choose("filter-truth", "dent") == of["dent"]
    missed = {s.name for s in report.scores if s.defect == "dent" and not s.anomalous}
    assert choose("filter-called", "missed") == missed
    assert text(page, "#filter-count") == f"{len(missed)} of {len(everything)} images"
    # The filter follows the slider: at the lowest threshold nothing is missed.
    move(page, "image-threshold", 0)
    assert page.run(ROWS) == []
    assert choose("filter-called", "") == of["dent"]
    choose("filter-truth", "")
    assert choose("filter-name", "SCRATCH/") == of["scratch"]
    assert choose("filter-name", "") == everything


def test_the_pixel_slider_redraws_the_outlines_as_the_page_draws_them(page, report):
    panels = [p for group in report.panels.values() for p in group]
    scale = panels[0].marks.scale
    read = (
        "[...document.querySelectorAll('.panel')].map(p => [p.querySelector('.outlines canvas')]"
        ".map(c => [c.hidden, c.toDataURL(), p.querySelector('.outlines img').hidden,"
        "p.querySelector('.outlines figcaption').textContent, c.ariaLabel])[0])"
    )
    captions = [shown[3] for shown in page.run(read)]
    for position in (0, scale.start - 2, scale.start + 1, len(scale.values) - 1):
        move(page, "pixel-threshold", position)
        for shown, one in zip(page.run(read), panels, strict=True):
            hidden, url, still_hidden, caption, label = shown
            mask = one.marks.level > position
            drawn = pictures.outlined(one.image, truth=one.truth, mask=mask)
            np.testing.assert_array_equal(decoded(url), drawn)
            assert still_hidden and not hidden
            count, regions = one.marks.pixels[position], one.marks.regions[position]
            words = f"marked {count:,} px in {regions:,} region" + "s" * (regions != 1)
            words = words if count else "nothing marked"
            assert caption.endswith(f"at {sliders.texts(scale)[position]}, {words}")
            assert label.endswith(words)
    assert any(one.marks.regions[scale.start + 1] == 1 for one in panels)
    click(page, "#pixel-threshold button")
    page.run(SETTLED)
    for shown, caption in zip(page.run(read), captions, strict=True):
        assert shown[0] and not shown[2] and shown[3] == caption


def test_a_slider_that_moves_on_while_pictures_load_ends_where_it_stands(page, report):
    scale = next(iter(report.panels.values()))[0].marks.scale
    move(page, "pixel-threshold", 0, 3, scale.start)
    assert page.run("[...document.querySelectorAll('canvas')].every(c => c.hidden)")
    move(page, "pixel-threshold", 0)
    assert page.run("[...document.querySelectorAll('canvas')].every(c => !c.hidden)")


def test_ten_thousand_rows_stay_quick(show):
    values = np.random.default_rng(0).gamma(3, 1, 10_000)
    rows = [(f"{i}.png", "good" if i % 4 else "dent", v, v > 5) for i, v in enumerate(values)]
    browser = show(rows, 5.0)
    assert len(browser.run(ROWS)) == 500
    assert text(browser, "#filter-count") == "10,000 of 10,000 images, 1 of 20 pages of 500"
    begun = time.perf_counter()
    for column in (1, 2, 3, 4):
        sort(browser, column)
        browser.run("document.body.offsetHeight")  # includes the layout in the wait
    put(browser, "image-threshold-input", 77)
    browser.run("document.body.offsetHeight")
    assert time.perf_counter() - begun < 5
    click(browser, "#page-on")
    assert "2 of 20 pages" in text(browser, "#filter-count")
    sort(browser, 3)
    shown = browser.run(ROWS)
    assert [row[0] for row in shown[:3]] == [rows[i][0] for i in np.argsort(-values)[:3]]
    assert faults(browser) == []


def test_evil_names_stay_text_and_foreign_scripts_do_not_run(browser, tmp_path):
    one = panel(EVIL, defect=EVIL)
    one = one._replace(mask=one.residual > 0.9)
    scale = Scale((0.5, 0.9, 0.95), 1)
    rows = [Score(EVIL, EVIL, 1.0, True), Score("b", "good", 0.1, False)]
    panels = {"g": [pictures.shrink_panel(one, scale=scale)]}
    report = Report(EVIL, {}, threshold=0.5, scores=rows, panels=panels, messages=[EVIL])
    foreign = "<script>window.foreign = 1</script><p onclick='foreign = 2'>x</p></main>"
    source = render_report(report).replace("</main>", foreign)
    (tmp_path / "r.html").write_text(source, encoding="utf-8")
    browser.open(tmp_path / "r.html")
    move(browser, "image-threshold", 0)
    move(browser, "pixel-threshold", 2)
    click(browser, "main > p")
    assert browser.run("typeof foreign") == "undefined"
    option = browser.run("document.getElementById('filter-truth').options[1].text")
    for name in (browser.run(ROWS)[0][0], option):
        assert name.startswith('"><script>alert(1)</script>')
    assert not browser.run("document.querySelector('canvas').hidden")


def test_pictures_are_on_the_first_screen_limited_in_height_and_grow_when_opened(
    browser, report, tmp_path
):
    write_report(tmp_path / "r.html", report)
    sizes = (
        "[...document.querySelectorAll('.panel:first-child .outlines img')]"
        ".map(i => i.getBoundingClientRect()).map(r => [r.top, r.width, r.height])"
    )
    browser.open(tmp_path / "r.html", width=1400, height=900)
    before = browser.run(sizes)
    assert before[0][0] < 500 and before[1][0] < 900
    click(browser, ".panel details summary")
    assert browser.run(sizes)[0][1] > 1.4 * before[0][1]
    tall = panel(height=1200, width=100, truth=None, mask=np.zeros((1200, 100), bool))
    write_report(tmp_path / "tall.html", Report("t", {}, panels={"g": [tall] * 6}))
    for width in (390, 1400):
        browser.open(tmp_path / "tall.html", width=width, height=900)
        assert 200 < browser.run(sizes)[0][2] <= 240
        assert browser.run("document.documentElement.scrollHeight") < 2000


def test_the_page_never_scrolls_sideways(browser, report, tmp_path):
    long = Score("folder/" + "x" * 90 + ".png", "good", 0.01, False)
    wide = report._replace(scores=[*report.scores, long], title="t" * 80)
    write_report(tmp_path / "r.html", wide)
    root = "document.documentElement"
    for width in (360, 700, 1280):
        browser.open(tmp_path / "r.html", width=width, height=800)
        move(browser, "image-threshold", 3)
        move(browser, "pixel-threshold", 3)
        assert browser.run(f"{root}.scrollWidth") == browser.run(f"{root}.clientWidth") <= width


def test_dark_and_printed_pages_show_what_they_should(page, report):
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.run(background)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.send("Emulation.setEmulatedMedia", **dark)
    assert page.run(background) != light
    page.send("Emulation.setEmulatedMedia", media="print", features=[])
    move(page, "image-threshold", 2)
    seen = "document.querySelector('{}').checkVisibility()"
    for control in ("#image-threshold-input", "#pixel-threshold button", "#filters"):
        assert not page.run(seen.format(control))
    # A printed table states the threshold of its decisions.
    assert page.run(seen.format("#image-threshold .now"))
    assert "decision at" in text(page, ".images thead")
    page.send("Emulation.setEmulatedMedia", media="", features=[])


def test_a_page_without_thresholds_has_no_sliders_and_no_faults(show):
    rows = [("a", "good", 1.0, False)]
    for given, threshold in ((rows, None), ([], None), (rows, float("inf"))):
        browser = show(given, threshold, panels={"g": [panel()]})
        assert browser.run("document.querySelectorAll('.slider').length") == 0
        assert len(browser.run(ROWS)) == len(given)
        assert faults(browser) == []
