"""The report: complete, escaped, self-contained, honest about what is missing."""

import base64
import hashlib
import os
import re
import weakref

import numpy as np
import pytest
from helpers.report_pages import EVIL, KEYS, Page, figures, full_report, panel, shown
from helpers.report_pages import realistic_report as realistic

from recon_ad.metrics.figures import FIGURES
from recon_ad.report import Report, Score, markup, pictures, render_report, wording, write_report


@pytest.fixture(scope="module")
def full():
    """The page of the full report."""
    return Page(render_report(full_report()))


def test_page_is_balanced_self_contained_and_accessible(full):
    assert {"html", "head", "title", "main", "nav", "footer"} <= set(full.tags)
    assert full.tags.count("script") == 1 and "link" not in full.tags
    for link in full.links:
        assert link.startswith(("data:image/", "#")), link[:80]
    assert {link[1:] for link in full.links if link[0] == "#"} <= set(full.ids)
    assert len(full.ids) == len(set(full.ids))
    assert "url(" not in full.style and "@import" not in full.style
    assert len(full.images) == 6 + 4  # three curves, scores, patches, training; four of the panel
    assert all(image["alt"] for image in full.images)
    assert full.tags.count("table") == full.tags.count("caption") == 5
    assert "prefers-color-scheme: dark" in full.style
    drawn = [i["src"].split(",")[1] for i in full.images if i["src"].startswith("data:image/svg")]
    assert len(drawn) == 6
    for data in drawn:
        svg = base64.b64decode(data).decode()
        assert not re.search(r'href="(?!#)', svg)
        assert "var(--ink)" in svg and "prefers-color-scheme:dark" in svg


def test_the_policy_lets_nothing_run_but_the_pages_own_script(full):
    script = re.search("<script>(.*)</script>", full.source, re.S)[1]
    assert "=>" in script and "</script" not in script
    policy = re.search('Content-Security-Policy" content="([^"]*)"', full.source)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r" on\w+=", full.source)


def test_what_needs_the_script_is_hidden_until_it_runs():
    source = render_report(realistic(rows=10, size=(40, 60)))
    for opened in re.findall(r"<(?:div|p)[^>]*(?:slider|filters|counts)[^>]*>", source):
        assert "hidden" in opened or "counts" in opened
    assert source.count('class="slider"') == 2 and source.count('id="filters"') == 1
    # The counts stand inside the slider's box.
    assert re.search(r'class="slider"[^>]*hidden[^>]*>(?:(?!</section>).)*class="counts"', source)
    assert "hidden" not in source[source.index("<table") : source.index("</table>")]


def test_every_figure_is_on_the_page_with_its_key_and_meaning(full):
    metrics = full_report().metrics
    assert sorted(FIGURES) == sorted(KEYS)
    for key, figure in FIGURES.items():
        assert key in full.text and figure.meaning in full.text
        assert wording.FORMS[figure.unit](metrics[key]).replace("\u00a0", " ") in full.text, key
    for words in (
        *("95 % interval 0.111 to 0.222", "± 0.0004 (histogram)", "0.333", "1,234", "0.444"),
        *("1 h 02 min", "64.3 / s", "versions.numpy 2.4", "64, 48"),
        *("the model learned only the mean image", "none: no good image is above"),
    ):
        assert words in full.text, words
    oracle = full.source[full.source.index('class="group oracle"') :]
    oracle = oracle[: oracle.index('class="group"')]
    assert "cannot be reached in production" in oracle
    for key in FIGURES:
        assert (f"<code>{key}</code>" in oracle) == ("oracle" in key or key == "image_f1_max")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), np.float64("nan")])
def test_a_figure_that_is_missing_shows_its_reason(value):
    page = shown(figures() | {"image_auroc": value, "missing": {"image_auroc": "no <good> images"}})
    assert "not available no <good> images" in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_without_figures_and_test_images_the_page_says_so():
    assert shown().text.count("not available no reason was recorded") == len(FIGURES)
    page = shown({"missing": {}}, panels={"Worst misses": []})
    assert "There are no test images" in page.text
    assert "distribution" not in page.ids and "curves" not in page.ids


def test_a_reason_under_a_table_is_said_once():
    no_model = {"mean_brightness": {"image_auroc": None, "pixel_auroc": None}}
    missing = {f"no_model.mean_brightness.{k}": "all <black>" for k in no_model["mean_brightness"]}
    page = shown(full_report().metrics | {"no_model": no_model, "missing": missing})
    assert page.text.count("all <black>") == 1
    assert all(key in page.text for key in missing)


def test_names_are_escaped_everywhere(tmp_path):
    metrics = {
        "per_defect": {EVIL: {"n": 3, "image_auroc": None, EVIL: 2}},
        "truths": {EVIL: {"pixel_auroc": 0.5}},
        "missing": {"image_auroc": EVIL, f"per_defect.{EVIL}.image_auroc": EVIL},
        "protocol": {EVIL: {EVIL: [EVIL]}},
        EVIL: None,
    }
    report = Report(
        EVIL, metrics, messages=[EVIL], scores=[Score(EVIL, EVIL, 1.0, True)], threshold=0.5,
        panels={EVIL: [panel(EVIL, defect=EVIL)], "empty": EVIL},
    )  # fmt: skip
    path = tmp_path / "report.html"
    write_report(path, report)
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert page.tags.count("script") == source.count("<script") == source.count("</script") == 1
    assert page.text.count("<script>alert(1)</script>") >= 12
    assert "\\udcff" in source and "\x00" not in source
    # No name stands in the script's data, but whatever does is escaped as well.
    assert markup.data({"a": "\"><script>'&"}) == ' data-a="&quot;&gt;&lt;script&gt;&#x27;&amp;"'


@pytest.mark.parametrize(
    ("model", "base", "words"),
    [
        (0.95, 0.90, "confounded or too easy"),
        (0.90, 0.99, "confounded or too easy"),
        (0.10, 0.42, "does worse than that"),
        (0.55, 0.52, "adds next to nothing"),
        (0.95, 0.89, "clearly ahead"),
    ],
)
def test_a_model_that_no_model_matches_is_called_out(model, base, words):
    without = {"image_auroc": base, "pixel_auroc": None}
    metrics = {"image_auroc": model, "pixel_auroc": 0.9, "no_model": {"mean_brightness": without}}
    ahead = words == "clearly ahead"
    # Among the first things to read, and beside the table.
    assert shown(metrics).text.count(words) == 2 - ahead
    assert len(wording.no_model_warnings(metrics)) == 1 - ahead


def test_decisions_are_the_detectors_and_mistakes_are_marked():
    rows = [("a", "good", 0.1, False), ("b", "good", 0.9, True), ("c", "dent", 0.2, False)]
    rows += [("d", "dent", 12345.0, True), ("e", "good", float("nan"), False)]
    page = shown(threshold=0.5, scores=rows)
    table = page.text[page.text.index("the highest score first") :]
    found = [
        table.index(words)
        for words in (
            *(" e good not a number good", " d dent 12,345", " b good 0.900 defective false alarm"),
            *(" c dent 0.200 good missed", " a good 0.100 good"),
        )
    ]
    assert found == sorted(found)
    assert "1 of 2 defective images are found and 1 of 3 good images" in page.text
    for threshold in (0.5, float("inf")):  # the latter as where nothing was held out
        page = shown(threshold=threshold, scores=rows)
        assert "e good not a number good" in page.text and "1 without a finite score" in page.text


def test_what_rounds_to_the_threshold_gets_the_digits_that_tell_the_two_apart():
    rows = [("a", "good", 0.25036, False), ("b", "good", 0.25041, True), ("c", "dent", 9.0, True)]
    one = panel(score=0.25036, threshold=0.2503871)
    groups = {"g": [one, one._replace(score=0.2503871)]}
    page = shown(threshold=0.2503871, scores=rows, panels=groups)
    assert "At the threshold 0.25039," in page.text
    assert "a good 0.25036 good" in page.text and "b good 0.25041 defective" in page.text
    assert "c dent 9.00 defective" in page.text
    assert "score 0.25036, not above the threshold 0.25039" in page.text
    # Equal is not above.
    assert "score 0.250, not above the threshold 0.250" in page.text


def test_panels_are_taken_once_and_one_at_a_time():
    alive = []

    def made():
        for index in range(4):
            assert not any(reference() is not None for reference in alive)
            one = panel(f"{index}.png", residual=np.full((40, 60), 0.5, np.float32))
            alive.append(weakref.ref(one.residual))
            yield one
            del one

    assert len(shown(panels={"g": made()}).images) == 16 and len(alive) == 4


def test_patches_are_shown_with_their_auroc_or_why_there_is_none():
    patches = {"normal": np.array([0.1, 0.2, np.nan]), "defective": np.array([0.4])}
    words = "2 normal (1 more without a finite residual are left out) and 1 defective patches"
    page = shown({"patch_auroc": 0.8765}, patches=patches)
    assert f"{words} of the test images: AUROC 0.876." in page.text
    metrics = {"patch_auroc": None, "missing": {"patch_auroc": "no <truth>"}}
    assert "AUROC not available, no <truth>." in shown(metrics, patches=patches).text
    assert "patches" not in shown(metrics).ids


def test_ten_thousand_images_make_a_page_of_few_megabytes():
    values = np.random.default_rng(0).gamma(3, 1, 10_000)
    kinds = ["good", "scratch", "dent"]
    rows = [Score(f"folder/{i:05d}.png", kinds[i % 3], v, v > 5) for i, v in enumerate(values)]
    source = shown(threshold=5.0, scores=rows).source
    assert len(source) < 4e6
    steps = re.search(r'id="image-threshold"[^>]*data-steps="([^"]*)"', source)[1].split()
    assert len(steps) == 10_001 and len(set(steps)) == 10_001


def test_writing_replaces_the_old_file_or_leaves_it_and_nothing_else(tmp_path, monkeypatch):
    def full_disk(source, target):
        raise OSError("no space left")

    path = tmp_path / "report.html"
    path.write_text("old")
    bad = panel("b.png", mask=np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match=r"'b.png': mask must be bool \(40, 60\)"):
        write_report(path, Report("a run", {}, panels={"g": [panel(), bad]}))
    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space left"):
        patched.setattr(os, "replace", full_disk)
        write_report(path, Report("a run", {}))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.html"]
    write_report(str(path), Report("a run", {}))
    assert "a run" in path.read_text(encoding="utf-8") and os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", np.zeros((40, 60, 3), np.int32)),
        ("image", np.zeros((40, 60), np.float32)),
        ("reconstruction", np.zeros((40, 60, 1), np.float32)),
        ("residual", np.zeros((40, 61), np.float32)),
        ("truth", np.zeros((40, 60), np.uint8)),
        ("mask", np.zeros((60, 40), bool)),
    ],
)
def test_a_panel_that_does_not_fit_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"'a.png': {field} must be"):
        pictures.check_panel(panel(**{field: value}))
