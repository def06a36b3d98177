"""The report: complete, escaped, self-contained, honest about what is missing; and its pictures."""

import base64
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from recon_ad.data.source import GOOD as SOURCE_GOOD
from recon_ad.report import (
    Panel,
    Report,
    Score,
    content,
    panel_sheet,
    pictures,
    pro_curve,
    reconstruction_sheet,
    render_report,
    roc_curve,
    score_histogram,
    training_curve,
    wording,
    write_report,
)
from recon_ad.report.gallery import LADDER, encode_panels

KEYS = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "aupro_30",
    "iou_max_oracle",
    "recall_at_iou_max_oracle",
    "iou_calibrated",
    "iou_mean_calibrated",
    "image_fpr_calibrated",
    "image_tpr_calibrated",
    "train_seconds",
    "patches_per_second",
    "images_per_second",
)
VOID = {"meta", "img", "br", "link", "input", "hr"}
EVIL = "\"><script>alert(1)</script>'&$x_{$ \u202e\udcff\x00.png"


class Page(HTMLParser):
    """Collects what the tests ask for and fails on tags that do not balance."""

    def __init__(self, source: str):
        super().__init__()
        self.open, self.tags, self.links, self.images, self.words = [], [], [], [], []
        self.ids, self.style = [], ""
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.links += [attrs[key] for key in ("src", "href") if key in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag == "img":
            self.images.append(attrs)
        self.style += attrs.get("style", "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def decoded(source: str) -> np.ndarray:
    """A picture from its data address: uint8 [h, w, 3]."""
    head, data = source.split(",", 1)
    pixels = imread(io.BytesIO(base64.b64decode(data)), format=head.split("/")[1].split(";")[0])
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * 255).astype(np.uint8)
    return pixels[..., :3]


def panel(name="a.png", *, height=40, width=60, channels=3, reconstructs=True, **fields) -> Panel:
    rng = np.random.default_rng(0)
    image = rng.random((height, width, channels), dtype=np.float32)
    truth = np.zeros((height, width), bool)
    truth[5:12, 6:20] = True
    made = Panel(
        name=name,
        defect="scratch",
        score=1.234,
        threshold=0.987,
        image=image,
        reconstruction=image[::-1] if reconstructs else None,
        residual=rng.random((height, width), dtype=np.float32),
        truth=truth,
        mask=np.roll(truth, 2, 0),
    )
    return made._replace(**fields)


def figures() -> dict:
    """metrics.json with a different value for each key."""
    values = {key: 0.801 + 0.007 * i for i, key in enumerate(KEYS)}
    speed = {"train_seconds": 3725.0, "patches_per_second": 64.31, "images_per_second": 5.5}
    return values | speed


def scores(count: int) -> list[Score]:
    rng = np.random.default_rng(1)
    kinds = ["good", "scratch", "$\\frac{$", "_hidden", "漢字 " * 20]
    names = [kinds[i % len(kinds)] for i in range(count)]
    values = rng.gamma(3, 1, count)
    return [
        Score(f"{i}.png", kind, float(v), bool(v > 3))
        for i, (kind, v) in enumerate(zip(names, values, strict=True))
    ]


def full_report() -> Report:
    line = np.linspace(0, 1, 50)
    return Report(
        title="a run",
        metrics=figures()
        | {
            "intervals": {"image_auroc": [0.111, 0.222]},
            "bounds": {"pixel_auroc": 0.0004},
            "per_defect": {"scratch": {"n": 1234, "image_auroc": 0.333, "aupro_30": None}},
            "no_model": {"mean_brightness": {"image_auroc": 0.6}},
            "truths": {"A": {"pixel_auroc": 0.444}},
            "missing": {"per_defect.scratch.aupro_30": "scratch has no masks"},
            "protocol": {"seed": 7, "versions": {"numpy": "2.4"}, "resolution": [64, 48]},
        },
        threshold=3.0,
        messages=["the model learned only the mean image"],
        curves={"roc": (line, line**0.2), "pixel_roc": (line, line), "pro": (line, line**0.1)},
        scores=scores(40),
        training=[{"step": 10, "train_loss": 0.5, "heldout_loss": None}],
        panels={"Worst misses": [panel()], "Worst false alarms": "none: no good image is above"},
    )


def test_page_is_balanced_self_contained_and_accessible():
    page = Page(render_report(full_report()))
    assert {"html", "head", "title", "main", "nav", "footer"} <= set(page.tags)
    assert "script" not in page.tags and "link" not in page.tags
    for link in page.links:
        assert link.startswith(("data:image/", "#")), link[:80]
    assert {link[1:] for link in page.links if link[0] == "#"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "url(" not in page.style and "@import" not in page.style
    assert len(page.images) == 4 + 1 + 4  # three curves, scores, training: five; four of the panel
    assert all(image["alt"] for image in page.images)
    assert page.tags.count("table") == page.tags.count("caption") == 5
    assert "prefers-color-scheme: dark" in page.style


def test_curves_reach_out_to_nothing_and_follow_the_colour_scheme():
    page = Page(render_report(full_report()))
    drawn = [i["src"].split(",")[1] for i in page.images if "svg" in i["src"]]
    assert len(drawn) == 5
    for data in drawn:
        svg = base64.b64decode(data).decode()
        assert not re.search(r'href="(?!#)', svg)
        assert "var(--ink)" in svg and "prefers-color-scheme:dark" in svg


def test_every_figure_is_on_the_page_with_its_key_and_meaning():
    metrics = full_report().metrics
    source = Page(render_report(full_report())).text
    assert sorted(wording.FIGURES) == sorted(KEYS)
    for key, figure in wording.FIGURES.items():
        assert key in source and figure.meaning in source
        assert figure.form(metrics[key]).replace("\u00a0", " ") in source, key
    for words in (
        "95 % interval 0.111 to 0.222",
        "± 0.0004 (histogram)",
        "0.333",
        "1,234",
        "0.444",
        "1 h 02 min",
        "64.3 / s",
        "versions.numpy 2.4",
        "64, 48",
        "the model learned only the mean image",
        "none: no good image is above",
    ):
        assert words in source, words


def test_oracle_figures_are_said_to_be_out_of_reach():
    source = render_report(full_report())
    oracle = source[source.index('class="group oracle"') :]
    oracle = oracle[: oracle.index('class="group"')]
    assert "cannot be reached in production" in oracle
    for key in wording.FIGURES:
        assert (f"<code>{key}</code>" in oracle) == ("oracle" in key or key == "image_f1_max")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), np.float64("nan")])
def test_a_figure_that_is_missing_shows_its_reason(value):
    metrics = figures() | {"image_auroc": value, "missing": {"image_auroc": "no <good> images"}}
    page = Page(render_report(Report("t", metrics)))
    assert "not available no <good> images" in page.text
    assert not re.search(r"\b(nan|inf|None)\b", page.text)


def test_a_figure_that_is_absent_altogether_is_not_available():
    page = Page(render_report(Report("t", {})))
    assert page.text.count("not available no reason was recorded") == len(wording.FIGURES)


def test_a_reason_under_a_table_is_said_once():
    report = full_report()
    missing = {
        f"no_model.mean_brightness.{k}": "all <black>" for k in ("image_auroc", "pixel_auroc")
    }
    no_model = {"mean_brightness": {"image_auroc": None, "pixel_auroc": None}}
    page = Page(
        render_report(
            report._replace(metrics=report.metrics | {"no_model": no_model, "missing": missing})
        )
    )
    assert page.text.count("all <black>") == 1
    assert all(key in page.text for key in missing)


def test_names_are_escaped_everywhere(tmp_path):
    evil = {"n": 3, "image_auroc": None, EVIL: 2}
    report = Report(
        title=EVIL,
        metrics={
            "per_defect": {EVIL: evil},
            "truths": {EVIL: {"pixel_auroc": 0.5}},
            "missing": {"image_auroc": EVIL, f"per_defect.{EVIL}.image_auroc": EVIL},
            "protocol": {EVIL: {EVIL: [EVIL]}},
            EVIL: None,
        },
        messages=[EVIL],
        scores=[Score(EVIL, EVIL, 1.0, True)],
        threshold=0.5,
        panels={EVIL: [panel(EVIL, defect=EVIL)], "empty": EVIL},
    )
    path = tmp_path / "report.html"
    write_report(path, report)
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert "script" not in page.tags
    assert "<script" not in source
    assert page.text.count("<script>alert(1)</script>") >= 12
    assert "\\udcff" in source and "\x00" not in source


@pytest.mark.parametrize(
    ("model", "base", "words"),
    [
        (0.95, 0.95, "confounded or too easy"),
        (0.95, 0.90, "confounded or too easy"),
        (0.90, 0.99, "confounded or too easy"),
        (0.95, 0.03, "darker images being the defective ones"),
        (0.55, 0.52, "adds next to nothing"),
    ],
)
def test_a_model_that_no_model_matches_is_called_out(model, base, words):
    metrics = {"image_auroc": model, "no_model": {"mean_brightness": {"image_auroc": base}}}
    page = Page(render_report(Report("t", metrics)))
    # Among the first things to read, and beside the table.
    assert page.text.count(words) == 2


def test_a_model_that_is_well_ahead_is_not_called_out():
    metrics = {
        "image_auroc": 0.95,
        "pixel_auroc": 0.9,
        "no_model": {
            "mean_brightness": {"image_auroc": 0.5},
            "distance_to_mean_image": {"image_auroc": 0.89, "pixel_auroc": None},
        },
    }
    assert wording.no_model_warnings(metrics) == []
    assert "clearly ahead" in render_report(Report("t", metrics))


def test_decisions_are_the_detectors_and_mistakes_are_marked():
    rows = [("a", "good", 0.1, False), ("b", "good", 0.9, True), ("c", "dent", 0.2, False)]
    rows.append(("d", "dent", 12345.0, True))
    page = Page(render_report(Report("t", {}, threshold=0.5, scores=rows)))
    table = page.text[page.text.index("the highest score first") :]
    for words in ("a good 0.100 good", "b good 0.900 defective false alarm"):
        assert words in table
    assert "c dent 0.200 good missed" in table
    assert table.index(" d dent 12,345") < table.index(" b good") < table.index(" c dent")
    assert "1 of 2 defective images are found and 1 of 2 good images" in page.text


def test_a_score_that_is_no_number_is_said_to_be_none():
    rows = [Score("a", "good", float("nan"), False), Score("b", "dent", 1.0, True)]
    page = Page(render_report(Report("t", {}, threshold=float("inf"), scores=rows)))
    assert "a good not a number good" in page.text and "1 without a finite score" in page.text


def test_without_test_images_the_page_says_so():
    page = Page(render_report(Report("t", {"missing": {}}, panels={"Worst misses": []})))
    assert "There are no test images" in page.text
    assert "distribution" not in page.ids and "curves" not in page.ids


def test_writing_replaces_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(str(path), full_report())
    assert "a run" in path.read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("failing", ["rendering", "writing"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    path = tmp_path / "report.html"
    path.write_text("old")
    report = full_report()
    if failing == "rendering":
        broken = panel("b.png", mask=np.zeros((3, 3), bool))
        report = report._replace(panels={"Worst misses": [panel(), broken]})
        error, match = ValueError, r"'b.png': mask must be bool \(40, 60\)"
    else:

        def full_disk(source, target):
            raise OSError("no space left")

        monkeypatch.setattr(os, "replace", full_disk)
        error, match = OSError, "no space left"
    with pytest.raises(error, match=match):
        write_report(path, report)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", np.zeros((40, 60, 3), np.uint8)),
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


def test_thirty_large_panels_stay_below_ten_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    # Grain in every pixel, as sensors have it, is what makes pictures large.
    image = (0.5 + 0.1 * rng.standard_normal((700, 1024, 1))).astype(np.float32)
    truth = np.zeros((700, 1024), bool)
    truth[300:310, 400:500] = True
    one = panel(image=image, reconstruction=image, residual=np.abs(image[..., 0]), truth=truth)
    one = one._replace(mask=truth)
    write_report(tmp_path / "r.html", Report("t", {}, panels={"Typical cases": [one] * 30}))
    assert (tmp_path / "r.html").stat().st_size < 10e6
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert len(page.images) == 120
    side = int(re.search(r"at most (\d+) pixels on the longer side", page.text)[1])
    assert max(decoded(page.images[0]["src"]).shape) == side <= 512


def test_pictures_get_smaller_until_they_fit():
    panels = [panel(height=300, width=600)]
    sizes = []
    for limit in (10**8, 400_000, 150_000, 60_000, 10):
        encoded, encoding = encode_panels(panels, top=1.0, limit=limit)
        total = sum(len(picture.data) for picture in encoded[0].values())
        assert total <= limit or encoding == LADDER[-1]
        sizes.append(total)
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 5
    assert encode_panels(panels, top=1.0, limit=10**8)[1] == LADDER[0]


def test_a_defect_of_one_pixel_survives_shrinking():
    residual = np.zeros((700, 1024), np.float32)
    residual[333, 777] = 5.0
    truth = residual > 0
    one = panel(
        image=np.full((700, 1024, 1), 0.5, np.float32),
        reconstruction=None,
        residual=residual,
        truth=truth,
        mask=truth,
    )
    page = Page(render_report(Report("t", {}, panels={"g": [one]})))
    image, heat, outlines = (decoded(i["src"]) for i in page.images)
    assert image.shape == heat.shape == outlines.shape == (350, 512, 3)
    assert tuple(heat[333 // 2, 777 // 2]) == tuple(pictures.heat(np.ones((1, 1)), top=1.0)[0, 0])
    assert (outlines == pictures.MASK_COLOUR).all(2).sum() >= 9
    assert (outlines == pictures.TRUTH_COLOUR).all(2).sum() >= 9
    assert "shrunk" in page.text


def test_shrinking_takes_block_means_and_maxima_at_any_ratio():
    rng = np.random.default_rng(0)
    values = rng.random((7, 10))
    values[0, 0] = np.nan
    small = pictures.shrink_max(values, (3, 4))
    rows, columns = [0, 2, 4, 7], [0, 2, 5, 7, 10]
    image = rng.random((7, 10, 3))
    mean = pictures.shrink_mean(image, (3, 4))
    for i in range(3):
        for j in range(4):
            block = np.s_[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            assert small[i, j] == np.nanmax(values[block])
            np.testing.assert_allclose(mean[i, j], image[block].mean((0, 1)), rtol=1e-12)


def test_outlines_of_equal_masks_lie_side_by_side():
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:50] = True
    grey = np.full((60, 80, 3), 128, np.uint8)
    drawn = pictures.outlined(grey, truth=mask, mask=mask)
    shown = {tuple(colour) for colour in drawn.reshape(-1, 3)}
    ours = {pictures.TRUTH_COLOUR, pictures.TRUTH_GAP, pictures.MASK_COLOUR}
    assert shown == {(128, 128, 128)} | ours
    alone = pictures.outlined(grey, truth=None, mask=mask)
    ring = (alone == pictures.MASK_COLOUR).all(2)
    np.testing.assert_array_equal((drawn == pictures.MASK_COLOUR).all(2), ring)
    assert (drawn[23:37, 23:47] == 128).all()
    # A mask over the whole image still has an edge.
    full = pictures.outlined(grey, truth=None, mask=np.ones((60, 80), bool))
    assert tuple(full[0, 40]) == tuple(full[30, 79]) == pictures.MASK_COLOUR


def test_pixels_that_are_no_numbers_stand_out():
    image = np.full((2, 2, 3), 2.0, np.float32)
    image[0, 0, 0] = np.nan
    shown = pictures.rgb(image)
    assert tuple(shown[0, 0]) == pictures.NOT_FINITE_IMAGE and tuple(shown[1, 1]) == (255,) * 3
    heat = pictures.heat(np.array([[np.nan, np.inf, 0.0]]), top=1.0)
    assert tuple(heat[0, 0]) == pictures.NOT_FINITE_RESIDUAL
    assert heat[0, 1].sum() > heat[0, 2].sum()


def test_one_glaring_panel_does_not_set_the_colour_scale():
    quiet = [panel(residual=np.full((40, 60), 0.5, np.float32))] * 5
    loud = panel(residual=np.full((40, 60), 100.0, np.float32))
    assert pictures.heat_top([*quiet, loud]) == 0.5
    assert pictures.heat_top([panel(residual=np.zeros((40, 60), np.float32))]) == 1.0
    assert pictures.heat_top([panel(residual=np.full((40, 60), np.inf, np.float32))]) == 1.0
    assert pictures.heat_top([]) == 1.0


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_panels_of_any_channel_count_are_shown(channels):
    one = panel(channels=channels, truth=None)
    page = Page(render_report(Report("t", {}, panels={"g": [one]})))
    image, made, *_ = (decoded(i["src"]) for i in page.images)
    source = one.image if channels == 3 else one.image[..., :1]
    np.testing.assert_array_equal(image, np.broadcast_to(np.rint(source * 255), image.shape))
    np.testing.assert_array_equal(made, image[::-1])
    assert ("first channel" in page.text) == (channels == 5)
    assert "no truth mask" in page.text


def test_a_method_without_reconstructions_says_so():
    page = Page(render_report(Report("t", {}, panels={"g": [panel(reconstructs=False)]})))
    assert "makes no reconstruction" in page.text and len(page.images) == 3


@pytest.mark.parametrize("count", [0, 1, 4, 400, 3000])
@pytest.mark.parametrize("threshold", [None, 3.0, float("inf"), -50.0])
def test_score_histogram_draws_every_image(count, threshold):
    rows = scores(count)
    values = np.array([row.score for row in rows])
    svg = score_histogram(values, [row.defect for row in rows], threshold=threshold)
    assert svg.rstrip().endswith("</svg>") and len(svg) < 1_000_000
    dots = len(re.findall(r"<use [^>]*(?:#2f7fc1|#d9701e)", svg))
    if count <= 400:
        assert dots == count
    else:
        assert "<image " in svg


def test_score_histogram_of_one_class_and_of_constant_scores():
    for values in (np.full(5, 0.25), np.zeros(3), np.array([np.nan, 1.0]), np.full(2, np.nan)):
        for kind in ("good", "dent"):
            assert "</svg>" in score_histogram(values, [kind] * values.size, threshold=0.25)
    with pytest.raises(ValueError, match="3 scores need as many"):
        score_histogram(np.zeros(3), ["good"])


def test_figures_use_no_colour_that_a_dark_page_would_swallow():
    line = np.linspace(0, 1, 5)
    tiny = score_histogram(np.array([1e-5, 2e-5]), ["good", "dent"], threshold=1.5e-5)
    once = training_curve([{"step": 0, "train_loss": 1.0, "heldout_loss": 0.9}])
    log = score_histogram(np.array([1.0, 2.0, 900.0]), ["good"] * 3)
    assert "logarithmic" in log
    for svg in (tiny, once, log, roc_curve(line, line), pro_curve(line, line)):
        # What has no colour of its own is black in SVG; clip paths and shared shapes are not seen.
        seen = re.sub(r"<defs>.*?</defs>", "", svg, flags=re.S)
        assert not re.search(r"#000000|: black", seen)
        assert not re.search(r'<g (style="(?!fill)[^"]*" )?transform', seen)


def test_score_histogram_pools_rare_defect_types_and_widens_for_outliers():
    kinds = [f"kind {i}" for i in range(40)]
    few = score_histogram(np.arange(1.0, 11.0), kinds[:10])
    many = score_histogram(np.arange(1.0, 41.0), kinds)
    height = re.compile(r'height="([\d.]+)pt"')
    assert float(height.search(many)[1]) == float(height.search(few)[1])
    assert "logarithmic" in score_histogram(np.array([0.1, 0.2, 0.15, 90.0]), ["good"] * 4)
    assert "logarithmic" not in few


def test_curves_keep_corners_and_drop_what_nobody_sees():
    fpr = np.concatenate([np.zeros(50_000), np.linspace(0, 1, 50_000)])
    tpr = np.concatenate([np.linspace(0, 0.5, 50_000), np.full(50_000, 0.5)])
    for svg in (roc_curve(fpr, tpr), pro_curve(fpr, tpr)):
        assert len(svg) < 200_000
    step = roc_curve(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))
    assert re.search(r'd="M [\d.]+ [\d.]+ \nL [\d.]+ [\d.]+ \nL [\d.]+ [\d.]+ \n"', step)


def test_pro_curve_marks_the_limit_and_shades_up_to_it():
    line = np.linspace(0, 1, 11)
    svg = pro_curve(line, line, limit=0.25)
    dashed = re.search(r'd="M ([\d.]+) [\d.]+ \nL \1 [\d.]+ \n"[^>]*stroke-dasharray', svg)
    shaded = re.search(r'<g id="FillBetween\w*".*?</g>\s*</g>', svg, re.S)
    assert dashed and shaded
    reach = max(float(x) for x in re.findall(r"[ML] ([\d.]+) ", shaded[0]))
    assert reach == pytest.approx(float(dashed[1]), abs=0.01)


@pytest.mark.parametrize("draw", [roc_curve, pro_curve])
@pytest.mark.parametrize("points", [[], [0.0], [0.0, 0.3], [0.0, np.nan, 1.0]])
def test_short_curves_are_drawn(draw, points):
    assert "</svg>" in draw(np.array(points), np.array(points))


def test_training_curve_leaves_out_what_is_no_number():
    rows = [
        {"step": 0, "train_loss": float("nan"), "heldout_loss": None},
        {"step": 10, "train_loss": 1.0, "heldout_loss": 0.5},
        {"step": 20, "train_loss": 0.001},
    ]
    svg = training_curve(rows)
    assert "logarithmic" in svg
    assert len(re.findall(r"<use [^>]*#2f7fc1", svg)) == 2 + 1  # two losses, one in the legend
    assert len(re.findall(r"<use [^>]*#d9701e", svg)) == 1 + 1
    assert "</svg>" in training_curve([])


def test_panel_sheet_has_a_row_for_each_panel():
    shape = imread(io.BytesIO(panel_sheet([panel()])), format="png").shape
    two = [panel(EVIL * 9), panel(reconstructs=False, truth=None)]
    twice = imread(io.BytesIO(panel_sheet(two)), format="png").shape
    assert shape[1] == twice[1] and 1.6 * shape[0] < twice[0] < 2.1 * shape[0]
    with pytest.raises(ValueError, match="at least one panel"):
        panel_sheet([])


def test_reconstruction_sheet_puts_pairs_side_by_side():
    rng = np.random.default_rng(0)
    inputs = rng.random((5, 8, 6, 1), dtype=np.float32)
    made = rng.random((5, 8, 6, 1), dtype=np.float32)
    sheet = reconstruction_sheet(inputs, made, pairs_per_row=2, gap=1)
    assert sheet.shape == (3 * 8 + 2 * 3, 2 * (6 + 1 + 6) + 3, 3)
    # The fourth pair: second row, second column.
    np.testing.assert_array_equal(sheet[11:19, 16:22], pictures.rgb(inputs[3]))
    np.testing.assert_array_equal(sheet[11:19, 23:29], pictures.rgb(made[3]))
    assert (sheet[22:, 16:] == 255).all()
    assert reconstruction_sheet(inputs[:1], made[:1]).shape == (8, 14, 3)
    with pytest.raises(ValueError, match="needs one patch"):
        reconstruction_sheet(inputs[:0], made[:0])


def test_drawing_leaves_pyplot_and_jax_alone():
    code = (
        "import sys, numpy as np; from recon_ad.report import *; x = np.linspace(0, 1, 5);"
        "roc_curve(x, x); assert not {'jax', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_good_means_the_same_as_in_the_data():
    assert content.GOOD == SOURCE_GOOD


@pytest.mark.parametrize(
    ("form", "value", "words"),
    [
        (wording.ratio, 1, "1.000"),
        (wording.ratio, 0.99951, "0.9995"),
        (wording.ratio, 0.999999, "> 0.9999"),
        (wording.ratio, 0.95, "0.950"),
        (wording.percent, 0.0417, "4.2\u00a0%"),
        (wording.significant, 0.0001234, "0.000123"),
        (wording.significant, 123.4, "123"),
        (wording.significant, 1234567.0, "1,234,567"),
        (wording.significant, 0.0, "0.00"),
        (wording.score, float("nan"), "not a number"),
        (wording.duration, 3.21, "3.21 s"),
        (wording.duration, 754.2, "12 min 34 s"),
        (wording.duration, 7200.0, "2 h 00 min"),
    ],
)
def test_numbers_are_written_sensibly(form, value, words):
    assert form(value) == words
