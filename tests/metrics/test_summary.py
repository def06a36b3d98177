"""The values of metrics.json from judged images; quantiles; the baseline without a model."""

import functools
from collections import defaultdict

import numpy as np
import pytest
from helpers import metrics_reference as reference
from sklearn.metrics import f1_score, roc_auc_score

from recon_ad import metrics
from recon_ad.data import GOOD, Record
from recon_ad.evaluation.no_model import LEAST, NoModel
from recon_ad.metrics.auroc_interval import least_auroc
from recon_ad.metrics.patches import PatchMeans
from recon_ad.metrics.summary import ImageResult, Pooled, mask_overlap, summarize


def judged(name, defect, score, threshold=0.5, *, truth=None, seed=0):
    """Return an image of 20x20 random scores, and its histogram."""
    values = np.random.default_rng(seed).random((20, 20)).astype(np.float32)
    pixels, overlap = None, (0, 0)
    if truth is not None:
        values = np.where(truth, values + 0.5, values).astype(np.float32)
        pixels = metrics.image_histogram(values, truth)
        overlap = mask_overlap(values > 0.9, truth)
    row = ImageResult(
        name, defect, defect != GOOD, score, score > threshold,
        None if pixels is None else metrics.compact(pixels), *overlap,
    )  # fmt: skip
    return row, pixels


def square(row, size=5):
    mask = np.zeros((20, 20), bool)
    mask[row : row + size, 3 : 3 + size] = True
    return mask


NOTHING = np.zeros((20, 20), bool)
PATCHES = PatchMeans(np.array([0.1, 0.2, 0.3]), np.array([0.25, 0.4]))


def summary(rows):
    pooled = defaultdict(metrics.empty_histogram)
    for row, pixels in rows:
        if pixels is not None:
            pooled[row.defect] = metrics.merge(pooled[row.defect], pixels)
    good = pooled.pop(GOOD, metrics.empty_histogram())
    parts = [row for row, _ in rows], Pooled(good, pooled, {}, PATCHES)
    return summarize({"": parts}, seed=0, resamples=50)


GOODS = [judged(f"g{i}", GOOD, 0.1 * i, truth=NOTHING, seed=i) for i in range(7)]
HOLES = [judged(f"h{i}", "hole", 0.3 + 0.2 * i, truth=square(i), seed=10 + i) for i in range(4)]
CRACKS = [judged(f"c{i}", "crack", 0.55, truth=square(9, 2), seed=20 + i) for i in range(2)]


def test_figures_are_those_of_the_rows():
    figures = summary(GOODS + HOLES + CRACKS)
    rows = [r for r, _ in GOODS + HOLES + CRACKS]
    truth = [r.anomalous for r in rows]
    expected = {
        "image_auroc": roc_auc_score(truth, [r.score for r in rows]),
        "image_fpr_calibrated": 1 / 7,  # only 0.6 is above 0.5
        "image_tpr_calibrated": 4 / 6,  # not the holes at 0.3 and 0.5
        "iou_calibrated": sum(r.intersection for r in rows) / sum(r.union for r in rows),
        "iou_mean_calibrated": np.mean([r.intersection / r.union for r in rows if r.anomalous]),
        "patch_auroc": 5 / 6,  # from PATCHES
    }
    assert {key: figures[key] for key in expected} == pytest.approx(expected)
    # 2,800 good pixels are too few, and so are 7 and 6 images.
    presorted = {f"{kind}_{percent}_oracle" for kind in ("pg", "pb") for percent in (1, 2, 5)}
    assert set(figures["missing"]) == {"aupimo", "intervals.images", "intervals.pixels", *presorted}
    assert figures["missing"]["pg_5_oracle"].startswith("5 % of 6 defective images is less than")
    assert figures["missing"]["pb_2_oracle"].startswith("2 % of 7 good images is less than")
    assert set(figures["intervals"]) == {
        "image_auroc",
        "image_fpr_calibrated",
        "image_tpr_calibrated",
    }
    for name, (low, high) in figures["intervals"].items():
        assert low <= figures[name] <= high, name
    # Each type is compared with all good images.
    holes, alone = figures["per_defect"]["hole"], summary(GOODS + HOLES)
    assert holes["n"] == 4
    for key in ("image_auroc", "pixel_auroc", "aupro_30", "iou_max_oracle"):
        assert holes[key] == alone[key]


def images():
    """Return rows of five images, their maps and their truths."""
    rows, maps, truths = [], [], []
    for i, defect in enumerate([GOOD, GOOD, "hole", "hole", "hole"]):
        rng = np.random.default_rng(i)
        truth = square(i) if defect != GOOD else NOTHING
        # Bins are 1/8 wide here, so that they cause an error.
        values = (2000 + rng.random((20, 20)) + 0.4 * truth).astype(np.float32)
        pixels = metrics.image_histogram(values, truth)
        overlap = mask_overlap(values > 2000.9, truth)
        row = ImageResult(str(i), defect, defect != GOOD, 0.0, False, pixels, *overlap)
        rows.append((row, pixels))
        maps.append(values)
        truths.append(truth)
    return rows, np.array(maps), np.array(truths)


def test_aupro_is_that_of_its_limit():
    rows, maps, truths = images()
    figures = summary(rows)
    for key, limit in (("aupro_30", 0.3), ("aupro_05", 0.05)):
        exact, bound = reference.aupro(maps, truths, limit), figures["bounds"][key]
        assert 1e-6 < abs(figures[key] - exact) <= bound < 0.2
    assert figures["aupro_05"] < figures["aupro_30"] - 0.1  # the other limit does not apply


def test_aupimo_is_that_of_good_and_defective_images():
    rng = np.random.default_rng(0)
    rows, good, defective = [], [], []
    for i in range(6):
        truth = np.zeros((250, 250), bool)
        truth[100 : 100 + 20 * (i % 2), 90:120] = True
        pixels = metrics.image_histogram(rng.random((250, 250)) + 0.3 * truth, truth)
        small = metrics.compact(pixels)
        (defective if i % 2 else good).append(small)
        row = ImageResult(str(i), (GOOD, "hole")[i % 2], i % 2 == 1, 0.0, False, small, 0, 0)
        rows.append((row, pixels))
    rows.append(judged("no mask", "hole", 0.9))
    figures = summary(rows)
    assert figures["aupimo"] == metrics.aupimo(good, defective) > 0.1
    assert figures["bounds"]["aupimo"] == metrics.aupimo_bound(good, defective)


def test_pixel_f1_is_that_of_all_pixels_of_all_images():
    rows, maps, truths = images()
    figures, truth = summary(rows), np.ravel(truths)
    # Values are counts, so that only a division is rounded.
    expected = f1_score(truth, np.ravel(maps) > 2000.9)
    assert figures["seg_f1_calibrated"] == pytest.approx(expected, abs=1e-12)
    best = max(f1_score(truth, np.ravel(maps) >= t) for t in np.unique(maps))
    missed = best - figures["seg_f1_max_oracle"]
    assert 1e-6 < missed <= figures["bounds"]["seg_f1_max_oracle"] < 0.2


@pytest.mark.parametrize(
    ("rows", "missing", "present"),
    [
        (GOODS, {"image_auroc", "pixel_auroc", "iou_calibrated", "image_tpr_calibrated",
                 "seg_f1_calibrated", "seg_f1_max_oracle", "aupimo"},
         {"image_fpr_calibrated"}),
        (HOLES, {"image_auroc", "image_fpr_calibrated", "aupimo"},
         {"pixel_auroc", "iou_calibrated"}),
        ([*GOODS, judged("x", "hole", 0.9)], {"pixel_auroc", "iou_mean_calibrated", "aupro_30"},
         {"image_auroc"}),
    ],
    ids=["no defects", "no good images", "no masks"],
)  # fmt: skip
def test_what_the_data_cannot_give_is_none_with_a_reason(rows, missing, present):
    figures = summary(rows)
    for key in missing:
        assert figures[key] is None and figures["missing"][key].startswith("no ")
    for key in present:
        assert figures[key] is not None and key not in figures["missing"]


@pytest.mark.parametrize("kind", ["positive", "mixed", "tied", "one"])
def test_upper_quantile_is_never_below_the_exact_one_and_hardly_above(kind):
    rng = np.random.default_rng(0)
    values = {
        "positive": np.exp(rng.normal(-5, 3, (50, 40))),
        "mixed": rng.normal(0, 1, (50, 40)),
        "tied": rng.integers(0, 5, (50, 40)) / 7.0,
        "one": np.full((1, 1), 0.3),
    }[kind].astype(np.float32)
    histogram = metrics.image_histogram(values, np.zeros(values.shape, bool))
    for share in (0.001, 0.5, 0.9, 0.999, 1.0):
        exact = float(np.quantile(values, share, method="inverted_cdf"))
        ours = metrics.upper_quantile(histogram, share)
        assert np.mean(values <= ours) >= share
        assert exact <= ours <= exact + abs(exact) * 2**-13 + 1e-37
    with pytest.raises(metrics.UndefinedMetric, match="no pixels"):
        metrics.upper_quantile(metrics.empty_histogram(), 0.5)


TRUTH, CLEAN = np.zeros((2, 8, 8), bool)
TRUTH[2:4, 2:4] = True
CASES = {
    "darker": (
        (8, 8),
        [(100, CLEAN), (101, CLEAN), (50, None)],
        (1, 1, None),
        "no anomalous items",
    ),
    "brighter": ((8, 8), [(100, CLEAN), (150, None)], (1, 1, None), "no anomalous items"),
    "bright pixels": ((8, 8), [(100, CLEAN), (100, TRUTH)], (1, 1, 1), ""),
    "sizes": ((8, 9), [(100, CLEAN), (100, TRUTH)], (1, None, None), "the images differ in size"),
}


def counts(test):
    """Return the numbers of good and defective images among these."""
    defective = sum(truth is not CLEAN for _, truth in test)
    return len(test) - defective, defective


@pytest.mark.parametrize(("sides", "test", "figures", "reason"), CASES.values(), ids=CASES)
def test_brightness_and_distance_betray_a_confounded_set(sides, test, figures, reason):
    train = [
        Record("good", functools.partial(np.full, (side, side, 1), value, np.uint8))
        for value, side in zip((90, 110), sides, strict=True)
    ]
    model = NoModel(train)
    for value, truth in test:
        image = np.full((8, 8, 1), value, np.uint8)
        image[TRUTH & (truth is TRUTH)] = 255
        model.add(image, anomalous=truth is not CLEAN, truth=truth)
    row, missing = model.figures()
    found = {f"{name}.{key}": value for name, keys in row.items() for key, value in keys.items()}
    least = {key: found.pop(key) for key in [*found] if key.endswith(LEAST)}
    assert tuple(found.values()) == figures
    for key, value in least.items():
        figure = found[key.removesuffix("_least")]
        assert value == (None if figure is None else least_auroc(figure, *counts(test)))
    assert missing == {f"no_model.{key}": reason for key in found if found[key] is None}


def test_a_defect_outside_the_region_of_interest_does_not_divide_by_nothing():
    row, pixels = HOLES[0]
    outside = row._replace(intersection=0, union=0)
    figures = summary([*GOODS, (outside, pixels), HOLES[1]])
    expected = HOLES[1][0].intersection / HOLES[1][0].union
    assert figures["iou_mean_calibrated"] == pytest.approx(expected)
    alone = summary([*GOODS, (outside, pixels)])
    assert alone["iou_mean_calibrated"] is None and "iou_mean_calibrated" in alone["missing"]


@pytest.mark.parametrize("everywhere", [True, False])
def test_the_no_model_row_is_that_of_double_precision(everywhere):
    rng = np.random.default_rng(1)
    train, test = (rng.integers(0, 256, (n, 600, 40, 3), dtype=np.uint8) for n in (7, 6))
    truth = rng.random((600, 40)) < 0.1
    valid = everywhere | (np.indices(truth.shape)[1] < 20)  # of the region of interest
    test[:, truth & valid] = 255
    model = NoModel([Record(str(i), functools.partial(train.__getitem__, i)) for i in range(7)])
    for i, picture in enumerate(test):
        model.add(picture, anomalous=i % 2 == 0, truth=truth, valid=None if everywhere else valid)
    distances = (((test - train.mean(axis=0)) / 255) ** 2).mean(axis=3)[:, valid]
    # 16 bits for the mean image.
    np.testing.assert_allclose(model._distance, distances.mean(axis=1), rtol=1e-5)
    bright = test.mean(axis=3)[:, valid].mean(axis=1) / 255
    np.testing.assert_allclose(model._brightness, bright, rtol=1e-7)
    expected = roc_auc_score(np.tile(truth[valid], 6), distances.ravel())
    pixels = model.figures()[0]["distance_to_mean_image"]["pixel_auroc"]
    assert pixels == pytest.approx(expected, abs=1e-5) and pixels > 0.6
