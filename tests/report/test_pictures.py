"""The report's pictures and curves: nothing vanishes or misleads, whatever the numbers."""

import io
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from helpers.paths import ROOT
from helpers.report_pages import (
    EVIL,
    decoded,
    inspected,
    panel,
    scores,
    shown,
    shrunk,
    without_specks,
)
from matplotlib.image import imread
from PIL import Image
from scipy import ndimage

from recon_ad.data.source import GOOD as SOURCE_GOOD
from recon_ad.report import Scale, content, pictures, plots, sheets, wording
from recon_ad.report.gallery import LADDER, encode_panels
from recon_ad.report.pictures import shrink_panel

UNIT = pictures.HeatScale(0.0, 1.0)


def test_thirty_large_panels_stay_below_ten_megabytes():
    rng = np.random.default_rng(0)
    # Grain in every pixel, as from sensors, makes pictures large.
    image = (0.5 + 0.1 * rng.standard_normal((700, 1024, 1))).astype(np.float32)
    truth = np.zeros((700, 1024), bool)
    truth[300:310, 400:500] = True
    fields = {"image": image, "reconstruction": image, "residual": np.abs(image[..., 0])}
    one = panel(**fields, truth=truth, mask=truth)
    page = shown(panels={"Typical cases": [one] * 30})
    assert len(page.source.encode()) < 10e6 and len(page.images) == 120
    side = int(re.search(r"at most (\d+) pixels on the longer side", page.text)[1])
    assert max(decoded(page.images[0]["src"]).shape) == side <= 512 and "shrunk" in page.text


def test_pictures_get_smaller_until_they_fit():
    panels = [shrink_panel(panel(height=300, width=600))]
    sizes = []
    for limit in (10**8, 400_000, 150_000, 60_000, 10):
        encoded, encoding = encode_panels(panels, scale=UNIT, limit=limit)
        total = sum(len(picture.data) for picture in encoded[0].values())
        assert total <= limit or encoding == LADDER[-1]
        assert (limit == 10**8) == (encoding == LADDER[0])
        sizes.append(total)
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 5


def test_shrinking_takes_block_means_and_maxima_at_any_ratio():
    rng = np.random.default_rng(0)
    values, image = rng.random((7, 10)), rng.random((7, 10, 3))
    values[0, 0] = np.nan
    small, mean = pictures.shrink_max(values, (3, 4)), pictures.shrink_mean(image, (3, 4))
    rows, columns = [0, 2, 4, 7], [0, 2, 5, 7, 10]
    for i in range(3):
        for j in range(4):
            block = np.s_[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
            assert small[i, j] == np.nanmax(values[block])
            np.testing.assert_allclose(mean[i, j], image[block].mean((0, 1)), rtol=1e-12)


def test_shrinking_a_panel_takes_little_memory_beside_it():
    rng = np.random.default_rng(0)
    image = rng.random((1400, 2000, 3), dtype=np.float32)
    mask = np.indices((1400, 2000))[0] // 20 == 35
    one = panel(image=image, reconstruction=image, residual=image[..., 0], truth=mask, mask=mask)
    tracemalloc.start()
    small = shrink_panel(one)
    # The minimum is the first half of the shrinking: all rows joined, no column yet.
    assert tracemalloc.get_traced_memory()[1] < image.nbytes
    tracemalloc.stop()
    assert small.size == (1400, 2000) and small.marked == small.defective == 40_000
    held = [x for x in small if isinstance(x, np.ndarray)]
    assert len(held) == 5 and all(x.shape[:2] == (358, 512) and x.base is None for x in held)


def test_marks_are_the_detectors_at_every_threshold():
    one = inspected(3, defect="dent", size=(300, 1100), threshold=0.03)
    scale = Scale((0.02, 0.025, 0.03, 0.05, 9.0), 2)
    small = shrunk(one, scale)
    np.testing.assert_array_equal(small.residual, pictures.shrink_max(one.residual, (140, 512)))
    np.testing.assert_array_equal(small.truth, pictures.shrink_max(one.truth, (140, 512)))
    for place, threshold in enumerate(scale.values):
        mask = without_specks(one.residual > threshold)
        marked = small.marks.level > place
        np.testing.assert_array_equal(marked, pictures.shrink_max(mask, (140, 512)))
        assert small.marks.pixels[place] == mask.sum()
        assert small.marks.regions[place] == ndimage.label(mask, np.ones((3, 3)))[1]
    assert small.marks.regions[0] > small.marks.regions[2] > small.marks.regions[4] == 0
    plain = shrink_panel(one._replace(mask=one.residual > 0.03), scale=scale)
    assert plain.marks.pixels[1] == (one.residual > 0.025).sum() > small.marks.pixels[1]
    assert (small.marked, small.regions) == (small.marks.pixels[2], small.marks.regions[2])


def test_marks_that_contradict_the_panels_mask_are_refused():
    one = inspected(3, defect="dent", size=(60, 90), threshold=0.03)
    for values, words in (
        ((0.02, 0.03, 0.031), r"'dent/003\.png': its mask and those at other thresholds"),
        (tuple(range(128)), "127 steps at most, not 128"),
    ):
        with pytest.raises(ValueError, match=words):
            shrink_panel(one, scale=Scale(values, 0))
    scales = [Scale((0.02, 0.03), 1), Scale((0.03, 0.04), 0)]
    with pytest.raises(ValueError, match="2 different pixel scales"):
        shown(panels={"g": [shrunk(one, scale) for scale in scales]})


@pytest.mark.parametrize("long_side", [512, 300, 128])
def test_the_embedded_map_holds_levels_and_truth(long_side):
    one = inspected(3, defect="dent", size=(300, 1100), threshold=0.03)
    small = shrunk(one, Scale((0.02, 0.03, 0.05), 1))
    small = pictures.shrink_further(small, long_side=long_side)
    (made,), _ = encode_panels([small], scale=UNIT)
    data, shape = made["levels"]
    stored = np.asarray(Image.open(io.BytesIO(data)))
    assert stored.dtype == np.uint8 and stored.shape == shape and max(shape) == long_side
    np.testing.assert_array_equal(stored & 127, small.marks.level)
    np.testing.assert_array_equal(stored >> 7, small.truth)
    np.testing.assert_array_equal(small.marks.level > 1, small.mask)
    assert small.truth.any() and small.mask.any()


def test_outlines_of_equal_masks_lie_side_by_side():
    mask = np.zeros((60, 80), bool)
    mask[20:40, 20:50] = True
    grey = np.full((60, 80, 3), 128, np.uint8)
    drawn, alone = (pictures.outlined(grey, truth=truth, mask=mask) for truth in (mask, None))
    ours = {pictures.TRUTH_COLOUR, pictures.TRUTH_GAP, pictures.MASK_COLOUR}
    assert {tuple(colour) for colour in drawn.reshape(-1, 3)} == {(128, 128, 128)} | ours
    ring, alone_ring = ((p == pictures.MASK_COLOUR).all(2) for p in (drawn, alone))
    np.testing.assert_array_equal(ring, alone_ring)
    assert (drawn[23:37, 23:47] == 128).all()
    # A single pixel of a shrunk picture is also visible.
    pixel = np.indices((350, 512)).sum(axis=0) == 0
    pixel = np.roll(pixel, (166, 388), (0, 1))
    seen = pictures.outlined(np.zeros((350, 512, 3), np.uint8), truth=pixel, mask=pixel)
    for colour in (pictures.TRUTH_COLOUR, pictures.MASK_COLOUR):
        assert (seen == colour).all(2).sum() >= 9
    # A mask over the whole image still has an edge.
    full = pictures.outlined(grey, truth=None, mask=np.ones((60, 80), bool))
    assert tuple(full[0, 40]) == tuple(full[30, 79]) == pictures.MASK_COLOUR


def test_pixels_that_are_no_numbers_stand_out():
    image = np.full((2, 2, 3), 2.0, np.float32)
    image[0, 0, 0] = np.nan
    seen = pictures.rgb(image)
    assert tuple(seen[0, 0]) == pictures.NOT_FINITE_IMAGE and tuple(seen[1, 1]) == (255,) * 3
    heat = pictures.heat(np.array([[np.nan, np.inf, 1.0, 0.0]]), scale=UNIT)[0]
    assert tuple(heat[0]) == pictures.NOT_FINITE_RESIDUAL
    assert tuple(heat[1]) == tuple(heat[2]) and heat[2].sum() > heat[3].sum()


def ramp(*ends, **fields):
    """Return a panel whose residual rises linearly, with its median in the middle."""
    residual = np.linspace(*ends, 2400).reshape(40, 60)
    return shrink_panel(panel(residual=residual, truth=None, **fields))


def test_the_colour_scale_has_good_pixels_at_its_foot_and_the_threshold_in_its_middle():
    flat, nothing, glaring = (ramp(value, value) for value in (0.5, 0.0, 100.0))
    good, defect = ({"defect": d, "pixel_threshold": 20.0} for d in ("good", "scratch"))
    for panels, expected in (
        # Distances of features: never near 0, even for good ones.
        ([ramp(12.0, 18.0, **good), ramp(12.0, 60.0, **defect)], (15.0, 25.0)),
        ([ramp(12.0, 60.0, **defect)], (36.0, 60.0)),  # the threshold is below its median
        ([ramp(-3.0, -1.0, defect="good", pixel_threshold=1.0)], (-2.0, 4.0)),
        ([ramp(0.0, 1.0, pixel_threshold=np.inf)], (0.5, 1.0)),
        # Without a threshold one glaring panel does not set the scale.
        ([*[flat] * 5, ramp(0.5, 0.9), nothing, glaring], (0.5, 0.6)),
        ([flat], (0.0, 1.0)),
        ([shrink_panel(panel(residual=np.full((40, 60), np.inf)))], (0.0, 1.0)),
        ([], (0.0, 1.0)),
    ):
        assert pictures.heat_scale(panels) == pytest.approx(expected, abs=0.01)
    low, high = pictures.heat(np.array([[-2.0, -0.5]]), scale=pictures.HeatScale(-2.0, -0.5))[0]
    assert high.sum() > low.sum()


def test_the_median_of_good_pixels_leaves_out_what_is_defective_or_not_finite():
    residual = np.full((1100, 700), 2.0)
    truth = np.zeros(residual.shape, bool)
    truth[:800], residual[:800], residual[800:900] = True, 9.0, np.nan
    assert shrink_panel(panel(height=1100, width=700, residual=residual, truth=truth,
                              mask=truth)).typical == 2.0  # fmt: skip
    everywhere = np.ones((40, 60), bool)
    assert np.isnan(shrink_panel(panel(truth=everywhere)).typical)


@pytest.mark.parametrize(
    ("size", "card", "wide"),
    [((40, 40), 19.5, False), ((90, 30), 10.5, False), ((20, 80), 18, True)],
)
def test_portraits_stand_in_narrow_cards_and_wide_pictures_below_each_other(size, card, wide):
    one = panel(height=size[0], width=size[1], truth=None, mask=np.zeros(size, bool))
    page = shown(panels={"g": [one] * 7})
    assert f"--card:{card}" in page.source and ('class="panels wide"' in page.source) == wide
    row = 2 if card > 13 else 3
    assert f"{7 - row} more" in page.text and len(page.images) == 28


@pytest.mark.parametrize(("channels", "reconstructs"), [(1, True), (3, True), (5, False)])
def test_panels_of_any_channel_count_are_shown(channels, reconstructs):
    one = panel(channels=channels, reconstructs=reconstructs, truth=None)
    page = shown(panels={"g": [one]})
    _, _, image, *made = (decoded(i["src"]) for i in page.images)
    source = one.image if channels == 3 else one.image[..., :1]
    np.testing.assert_array_equal(image, np.broadcast_to(np.rint(source * 255), image.shape))
    np.testing.assert_array_equal(made, [image[::-1]] * reconstructs)
    assert ("econstruction" in page.text) == reconstructs
    assert ("first channel" in page.text) == (channels == 5)
    assert "no truth mask" in page.text


COUNTS = [(0, None), (1, 3.0), (1, -50.0), (4, float("inf")), (400, 3.0), (3000, None)]


@pytest.mark.parametrize(("count", "threshold"), COUNTS)
def test_score_histogram_draws_every_image(count, threshold):
    rows = scores(count)
    values, kinds = np.array([row.score for row in rows]), [row.defect for row in rows]
    svg = plots.score_histogram(values, kinds, threshold=threshold)
    assert svg.rstrip().endswith("</svg>") and len(svg) < 1_000_000
    dots = len(re.findall(r"<use [^>]*(?:#2f7fc1|#d9701e)", svg))
    assert dots == count if count <= 400 else "<image " in svg


def test_score_histogram_of_one_class_and_of_constant_scores():
    for values in ([0.25] * 5, [0.0] * 3, [np.nan, 1.0], [np.nan] * 2):
        for kind in ("good", "dent"):
            kinds = [kind] * len(values)
            assert "</svg>" in plots.score_histogram(np.array(values), kinds, threshold=0.25)
    with pytest.raises(ValueError, match="3 scores need as many"):
        plots.score_histogram(np.zeros(3), ["good"])


def test_figures_use_no_colour_that_a_dark_page_would_swallow():
    line = np.linspace(0, 1, 5)
    tiny = plots.score_histogram(np.array([1e-5, 2e-5]), ["good", "dent"], threshold=1.5e-5)
    once = plots.training_curve([{"step": 0, "train_loss": 1.0, "heldout_loss": 0.9}])
    log = plots.score_histogram(np.array([1.0, 2.0, 900.0]), ["good"] * 3)
    for svg in (tiny, once, log, plots.roc_curve(line, line), plots.pro_curve(line, line)):
        # Elements without a colour are black in SVG; clip paths and shared shapes are not visible.
        seen = re.sub(r"<defs>.*?</defs>", "", svg, flags=re.S)
        assert not re.search(r"#000000|: black", seen)
        assert not re.search(r'<g (style="(?!fill)[^"]*" )?transform', seen)


def test_score_histogram_pools_rare_defect_types_and_widens_for_outliers():
    kinds = [f"kind {i}" for i in range(40)]
    few, many = (plots.score_histogram(np.arange(1.0, n + 1), kinds[:n]) for n in (10, 40))
    height = re.compile(r'height="([\d.]+)pt"')
    assert height.search(many)[1] == height.search(few)[1]
    outlier = plots.score_histogram(np.array([0.1, 0.2, 0.15, 90.0]), ["good"] * 4)
    assert "logarithmic" in outlier and "logarithmic" not in few


@pytest.mark.parametrize("counts", [(5000, 40), (0, 3), (3, 0), (0, 0)])
def test_patch_histogram_draws_each_class_as_shares_of_its_own(counts):
    rng = np.random.default_rng(0)
    normal, defective = (rng.gamma(5, 1, n) * f for n, f in zip(counts, (1, 2), strict=True))
    svg = plots.patch_histogram({"normal": np.append(normal, np.nan), "defective": defective})
    fills = re.findall(r"fill: (#2f7fc1|#d9701e); opacity: 0.35", svg)
    assert len(fills) == sum(n > 0 for n in counts)
    # Ten times as many equal patches have the same shares.
    svg_alike = plots.patch_histogram({"normal": np.tile(defective, 10), "defective": defective})
    outlines = re.findall(r'd="([^"]*)"[^>]*stroke: (?:#2f7fc1|#d9701e)', svg_alike)
    assert len(outlines) == 2 * (counts[1] > 0) and len(set(outlines)) <= 1
    heights = set(re.findall(r"[\d.]+ ([\d.]+) \n", "".join(outlines)))
    assert len(heights) >= 3 * (counts[1] > 3)
    skewed = np.append(normal, 1e4) + 0.1
    log = plots.patch_histogram({"normal": skewed, "defective": defective + 0.1})
    assert ("logarithmic" in log) == (counts[0] > 0 or counts[1] > 0)
    assert "logarithmic" not in svg


def test_curves_keep_corners_and_drop_what_nobody_sees():
    rise, flat = np.linspace(0, 1, 50_000), np.zeros(50_000)
    for draw in (plots.roc_curve, plots.pro_curve):
        assert len(draw(np.append(flat, rise), np.append(rise / 2, flat + 0.5))) < 200_000
        for points in ([], [0.0], [0.0, 0.3], [0.0, np.nan, 1.0]):
            assert "</svg>" in draw(np.array(points), np.array(points))
    step = plots.roc_curve(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0]))
    assert re.search(r'd="M [\d.]+ [\d.]+ \nL [\d.]+ [\d.]+ \nL [\d.]+ [\d.]+ \n"', step)


def test_pro_curve_marks_the_limit_and_shades_up_to_it():
    line = np.linspace(0, 1, 11)
    svg = plots.pro_curve(line, line, limit=0.25)
    dashed = re.search(r'd="M ([\d.]+) [\d.]+ \nL \1 [\d.]+ \n"[^>]*stroke-dasharray', svg)
    shaded = re.search(r'<g id="FillBetween\w*".*?</g>\s*</g>', svg, re.S)
    assert dashed and shaded
    reach = max(float(x) for x in re.findall(r"[ML] ([\d.]+) ", shaded[0]))
    assert reach == pytest.approx(float(dashed[1]), abs=0.01)


def test_training_curve_leaves_out_what_is_no_number():
    rows = [
        {"step": 0, "train_loss": float("nan"), "heldout_loss": None},
        {"step": 10, "train_loss": 1.0, "heldout_loss": 0.5},
        {"step": 20, "train_loss": 0.001},
    ]
    svg = plots.training_curve(rows)
    assert "logarithmic" in svg
    assert len(re.findall(r"<use [^>]*#2f7fc1", svg)) == 2 + 1  # two losses, one in the legend
    assert len(re.findall(r"<use [^>]*#d9701e", svg)) == 1 + 1
    assert "</svg>" in plots.training_curve([])


def test_panel_sheet_has_a_row_for_each_panel():
    two = [panel(EVIL * 9), panel(reconstructs=False, truth=None)]
    made = (sheets.panel_sheet(panels) for panels in ([panel()], two))
    shape, twice = (imread(io.BytesIO(png), format="png").shape for png in made)
    assert shape[1] == twice[1] and 1.6 * shape[0] < twice[0] < 2.1 * shape[0]
    bare = sheets.panel_sheet([panel(reconstructs=False)])
    assert imread(io.BytesIO(bare), format="png").shape[1] < 0.85 * shape[1]
    with pytest.raises(ValueError, match="at least one panel"):
        sheets.panel_sheet([])


def test_reconstruction_sheet_puts_pairs_side_by_side():
    inputs, made = np.random.default_rng(0).random((2, 5, 8, 6, 1), dtype=np.float32)
    sheet = sheets.reconstruction_sheet(inputs, made, pairs_per_row=2, gap=1)
    assert sheet.shape == (3 * 8 + 2 * 3, 2 * (6 + 1 + 6) + 3, 3)
    # The fourth pair: second row, second column.
    np.testing.assert_array_equal(sheet[11:19, 16:22], pictures.rgb(inputs[3]))
    np.testing.assert_array_equal(sheet[11:19, 23:29], pictures.rgb(made[3]))
    assert (sheet[22:, 16:] == 255).all()
    assert sheets.reconstruction_sheet(inputs[:1], made[:1]).shape == (8, 14, 3)
    with pytest.raises(ValueError, match="needs one patch"):
        sheets.reconstruction_sheet(inputs[:0], made[:0])


def test_drawing_leaves_pyplot_and_jax_alone():
    code = (
        "import sys, numpy as np; from recon_ad.report import *; x = np.linspace(0, 1, 5);"
        "roc_curve(x, x); assert not {'jax', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_good_means_the_same_as_in_the_data():
    assert content.GOOD == SOURCE_GOOD


@pytest.mark.parametrize(
    ("form", "value", "words"),
    [
        (wording.ratio, 1, "1.000"),
        (wording.ratio, 0.99951, "0.9995"),
        (wording.ratio, 0.999999, "> 0.9999"),
        (wording.percent, 0.0417, "4.2\u00a0%"),
        (wording.significant, 0.0001234, "0.000123"),
        (wording.significant, 123.4, "123"),
        (wording.significant, 0.0, "0.00"),
        (wording.significant, 999_999.9, "1,000,000"),
        (wording.significant, 2.5e9, "2.50e+09"),
        (wording.score, float("nan"), "not a number"),
        (wording.duration, 3.21, "3.21 s"),
        (wording.duration, 754.2, "12 min 34 s"),
        (wording.duration, 7200.0, "2 h 00 min"),
    ],
)
def test_numbers_are_written_sensibly(form, value, words):
    assert form(value) == words
