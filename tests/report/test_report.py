"""The report: complete, escaped, self-contained, and honest about missing parts."""

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
from recon_ad.report.key_figures import CARDS


@pytest.fixture(scope="module")
def full():
    """Return the page of the full report."""
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
    assert full.tags.count("table") == full.tags.count("caption")
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
    # The counts are inside the slider's box.
    assert re.search(r'class="slider"[^>]*hidden[^>]*>(?:(?!</section>).)*class="counts"', source)
    assert "hidden" not in source[source.index("<table") : source.index("</table>")]


def test_every_figure_is_on_the_page_with_its_key_and_meaning(full):
    metrics = full_report().metrics
    assert sorted(FIGURES) == sorted(KEYS)
    for key, figure in FIGURES.items():
        assert key in full.text and figure.meaning in full.text
        assert wording.FORMS[figure.unit](metrics[key]).replace("\u00a0", " ") in full.text, key
    for words in (
        *("95 % interval 0.111 to 0.222", "± 0.0006, as scores", "0.333", "1,234", "0.444"),
        *("1 h 02 min", "64.3 / s", "versions.numpy 2.4", "64, 48"),
        *("the model learned only the mean image", "none: no good image is above"),
    ):
        assert words in full.text, words
    assert "0.0004" not in full.text  # which three decimals do not show
    oracle = full.text[full.text.index("cannot be reached in production") :]
    oracle = oracle[: oracle.index("Speed")]
    for key in FIGURES:
        assert (f" {key} " in oracle) == ("oracle" in key or key == "image_f1_max")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), np.float64("nan")])
def test_a_figure_that_is_missing_is_no_card_and_its_reason_is_told(value):
    page = shown(figures() | {"image_auroc": value, "missing": {"image_auroc": "no <good> images"}})
    assert "no <good> images: image_auroc" in page.text
    assert page.source.count('class="card"') == len(CARDS) - 1
    assert not re.search(r"\b(nan|inf|None|not available)\b", page.text)


def test_without_figures_and_test_images_the_page_says_so():
    assert "no reason was recorded: image_tpr_calibrated , image_fpr_calibrated" in shown().text
    assert "card" not in shown().source.partition("</style>")[2]
    page = shown({"missing": {}}, panels={"Worst misses": []})
    assert "Without test images" in page.text
    assert "distribution" not in page.ids and "curves" not in page.ids


def test_a_reason_under_a_table_is_said_once():
    no_model = {
        "mean_brightness": {"image_auroc": 0.5},
        "distance_to_mean_image": {"image_auroc": None, "pixel_auroc": None},
    }
    missing = {
        f"no_model.distance_to_mean_image.{k}_auroc": "all <black>" for k in ("image", "pixel")
    }
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
    # No name is in the script's data, but everything there is escaped as well.
    assert markup.data({"a": "\"><script>'&"}) == ' data-a="&quot;&gt;&lt;script&gt;&#x27;&amp;"'


@pytest.mark.parametrize(
    ("model", "base", "least", "method", "words", "others"),
    [
        (0.95, 0.94, 0.8, "cae", ["can be separated"], ["worse than", "almost nothing"]),
        (0.90, 0.99, 0.9, "cae", ["can be separated", "worse than no model"], []),
        # By chance the brightness of a few images may be in order.
        (0.90, 0.99, 0.4, "cae", ["worse than no model", "use method=knn"], ["confounded"]),
        (0.10, 0.42, 0.2, "knn", ["worse than no model", "larger images"], ["method=knn"]),
        (0.55, 0.52, 0.4, "cae", ["adds almost nothing"], ["worse than", "confounded"]),
        (0.62, 0.60, 0.55, "cae", ["adds almost nothing"], ["confounded"]),
        (0.95, 0.89, 0.7, "cae", [], ["worse than", "confounded", "almost nothing"]),
    ],
)
def test_no_model_blames_the_model_or_the_test_images(model, base, least, method, words, others):
    row = {"image_auroc": base, "image_auroc_least": least}
    metrics = {
        "image_auroc": model, "pixel_auroc": 0.9, "no_model": {"mean_brightness": row},
        "protocol": {"method": method},
    }  # fmt: skip
    page = shown(metrics)
    for word in words:  # near the beginning, and beside the table
        assert page.text.count(word) == 2, word
    for word in others:
        assert word not in page.text
    assert ("clearly ahead" in page.text) == (not words)


def test_figures_that_say_less_than_they_seem_to_do_say_so():
    decided = {"good": 14, "defective": 28, "promised": 0.02, "promise_broken": True}
    metrics = figures() | {"decisions": decided, "image_auroc": 1.0, "image_f1_max": 56 / 70}
    metrics["intervals"] = {"image_auroc": [0.92, 1.0], "image_ap": [1.0, 1.0]}
    metrics["intervals"]["pixel_auroc"] = [0.99912, 0.99938]
    page = shown(metrics)
    assert page.text.count("no overlap among these 42 images") == 2  # its card and its row
    assert "no better than calling every image defective" in page.text
    assert not re.search(r"\b1\.0+ to 1|0\.999 to 0\.999 ", page.text)
    assert "the same in every resample" in page.text
    assert "95 % interval 0.920 to 1.000" in page.text and "0.9991 to 0.9994" in page.text
    page = shown(metrics | {"image_auroc": 0.99, "image_f1_max": 0.81})
    assert "no overlap" not in page.text and "calling every image" not in page.text


def test_the_verdict_comes_first_in_counts_with_its_promise():
    rows = [Score(str(i), "good", float(i), i > 8) for i in range(10)]
    rows += [Score(f"d{i}", "dent", 9.5, True) for i in range(3)]
    metrics = {"decisions": {"good": 10, "defective": 3, "promised": 0.05, "promise_broken": False}}
    page = shown(metrics, threshold=8.5, scores=rows, panels={"Worst misses": [panel()]})
    places = [
        page.text.index(words)
        for words in (
            "3 of 3 defective images found", "1 of 10 good images stopped", "5.0 %", "Worst misses"
        )
    ]  # fmt: skip
    assert places == sorted(places) and places[-1] < page.text.index("Key figures", places[-1])
    assert page.source.count('class="count fine"') == 2
    broken = {"decisions": metrics["decisions"] | {"promise_broken": True}}
    assert shown(broken, scores=rows).source.count('class="count fine"') == 1
    alone = shown(metrics, scores=rows[:10])
    assert "images found" not in alone.text and "No test image is defective" in alone.text


@pytest.mark.parametrize(
    ("resolution", "shown_as"),
    [("native", "at their original resolution"), ("96 × 96 px", "at 96 × 96 px")],
)
def test_the_protocol_is_in_words_and_its_fields_are_folded(resolution, shown_as):
    content = {
        "method": "knn", "pretrained": {"weights": "folder/encoder"}, "resolution": resolution,
        "crop": [128, 64], "score_rule": "max of the smoothed map", "smoothing_sigma_px": 4.0,
        "good_images_not_for_testing": 50, "test_images": 42,
        "calibration": {"heldout": "10 of 50 images", "fpr_supported": 0.091,
                        "image_threshold": 12.5},
    }  # fmt: skip
    page = shown({"protocol": content})
    for words in (
        "The method is knn, on features of a pretrained network (encoder).",
        f"inspected {shown_as}, in tiles of 128 × 64 pixels",
        "the highest value of its map. The map, smoothed by 4 pixels, shows",
        "set by 10 of 50 images", "is 12.5: good images like those", "at most 9.1 % of cases",
    ):  # fmt: skip
        assert words in page.text, words
    folded = page.source[page.source.index("<summary>Every setting") :]
    assert "calibration.fpr_<wbr>supported" in folded and "0.091" in folded


@pytest.mark.parametrize("losses", [[], [0.5], [None, 0.5]])
def test_a_curve_of_one_measurement_is_not_drawn(losses):
    rows = [{"step": i, "train_loss": loss} for i, loss in enumerate(losses)]
    page = shown(figures(), training=rows)
    assert "training" not in page.ids
    speed = FIGURES["patches_per_second"].meaning
    assert (speed in page.text) == (0.5 in losses)  # a method that learns nothing has no speed


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
    assert "1 of 2 defective images found" in page.text
    assert "1 of 3 good images stopped" in page.text
    for threshold in (0.5, float("inf")):  # the latter as where nothing was held out
        page = shown(threshold=threshold, scores=rows)
        assert "e good not a number good" in page.text and "1 without a finite score" in page.text


def test_what_rounds_to_the_threshold_gets_the_digits_that_tell_the_two_apart():
    rows = [("a", "good", 0.25036, False), ("b", "good", 0.25041, True), ("c", "dent", 9.0, True)]
    one = panel(score=0.25036, threshold=0.2503871)
    groups = {"g": [one, one._replace(score=0.2503871)]}
    page = shown(threshold=0.2503871, scores=rows, panels=groups)
    assert "score is above 0.25039." in page.text
    assert "a good 0.25036 good" in page.text and "b good 0.25041 defective" in page.text
    assert "c dent 9.00 defective" in page.text
    assert "score 0.25036 ≤ threshold 0.25039" in page.text
    # An equal score is not above.
    assert "score 0.250 ≤ threshold 0.250" in page.text


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
    assert "AUROC –, no <truth>." in shown(metrics, patches=patches).text
    for none in (None, {"normal": np.array([np.nan]), "defective": np.array([])}):
        assert "patches" not in shown(metrics, patches=none).ids


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
