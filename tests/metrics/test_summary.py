"""The figures of metrics.json from judged images; quantiles; the no-model row."""

import functools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from recon_ad.data import GOOD, Record
from recon_ad.evaluation.no_model import NoModel
from recon_ad.metrics import (
    UndefinedMetric,
    compact,
    empty_histogram,
    image_histogram,
    merge,
    upper_quantile,
)
from recon_ad.metrics.patches import PatchMeans
from recon_ad.metrics.summary import ImageResult, Pooled, mask_overlap, summarize


def judged(name, defect, score, threshold=0.5, *, truth=None, seed=0):
    """An image of 20x20 random scores, and its histogram."""
    values = np.random.default_rng(seed).random((20, 20)).astype(np.float32)
    pixels, overlap = None, (0, 0)
    if truth is not None:
        values = np.where(truth, values + 0.5, values).astype(np.float32)
        pixels = image_histogram(values, truth)
        overlap = mask_overlap(values > 0.9, truth)
    row = ImageResult(
        name, defect, defect != GOOD, score, score > threshold,
        None if pixels is None else compact(pixels), *overlap,
    )  # fmt: skip
    return row, pixels


def square(row, size=5):
    mask = np.zeros((20, 20), bool)
    mask[row : row + size, 3 : 3 + size] = True
    return mask


NOTHING = np.zeros((20, 20), bool)
PATCHES = PatchMeans(np.array([0.1, 0.2, 0.3]), np.array([0.25, 0.4]))


def judged_part(rows):
    pooled = {}
    for row, pixels in rows:
        if pixels is not None:
            pooled[row.defect] = merge(pooled.get(row.defect, empty_histogram()), pixels)
    good = pooled.pop(GOOD, empty_histogram())
    return [r for r, _ in rows], Pooled(good, pooled, {}, PATCHES)


def summary(rows):
    return summarize({"": judged_part(rows)}, seed=0, resamples=50)


GOODS = [judged(f"g{i}", GOOD, 0.1 * i, truth=NOTHING, seed=i) for i in range(7)]
HOLES = [judged(f"h{i}", "hole", 0.3 + 0.2 * i, truth=square(i), seed=10 + i) for i in range(4)]
CRACKS = [judged(f"c{i}", "crack", 0.55, truth=square(9, 2), seed=20 + i) for i in range(2)]


def test_figures_are_those_of_the_rows():
    figures = summary(GOODS + HOLES + CRACKS)
    rows = [r for r, _ in GOODS + HOLES + CRACKS]
    truth = [r.anomalous for r in rows]
    assert figures["image_auroc"] == pytest.approx(roc_auc_score(truth, [r.score for r in rows]))
    assert figures["image_fpr_calibrated"] == pytest.approx(1 / 7)  # only 0.6 is above 0.5
    assert figures["image_tpr_calibrated"] == pytest.approx(4 / 6)  # not the holes at 0.3 and 0.5
    assert figures["iou_calibrated"] == pytest.approx(
        sum(r.intersection for r in rows) / sum(r.union for r in rows)
    )
    assert figures["iou_mean_calibrated"] == pytest.approx(
        np.mean([r.intersection / r.union for r in rows if r.anomalous])
    )
    assert figures["patch_auroc"] == pytest.approx(5 / 6)  # of PATCHES
    assert not figures["missing"]
    for name, (low, high) in figures["intervals"].items():
        assert low <= figures[name] <= high, name


def test_defect_types_are_held_against_all_good_images():
    figures = summary(GOODS + HOLES + CRACKS)["per_defect"]
    alone = summary(GOODS + HOLES)
    assert figures["hole"]["n"] == 4
    for key in ("image_auroc", "pixel_auroc", "aupro_30", "iou_max_oracle"):
        assert figures["hole"][key] == alone[key]


@pytest.mark.parametrize(
    ("rows", "missing", "present"),
    [
        (GOODS, {"image_auroc", "pixel_auroc", "iou_calibrated", "image_tpr_calibrated"},
         {"image_fpr_calibrated"}),
        (HOLES, {"image_auroc", "image_fpr_calibrated"}, {"pixel_auroc", "iou_calibrated"}),
        ([*GOODS, judged("x", "hole", 0.9)], {"pixel_auroc", "iou_mean_calibrated", "aupro_30"},
         {"image_auroc"}),
    ],
    ids=["no defects", "no good images", "no masks"],
)  # fmt: skip
def test_what_the_data_cannot_give_is_none_with_a_reason(rows, missing, present):
    figures = summary(rows)
    for key in missing:
        assert figures[key] is None
        assert figures["missing"][key].startswith("no ")
    for key in present:
        assert figures[key] is not None
        assert key not in figures["missing"]


@pytest.mark.parametrize("kind", ["positive", "mixed", "tied", "one"])
def test_upper_quantile_is_never_below_the_exact_one_and_hardly_above(kind):
    rng = np.random.default_rng(0)
    values = {
        "positive": np.exp(rng.normal(-5, 3, (50, 40))),
        "mixed": rng.normal(0, 1, (50, 40)),
        "tied": rng.integers(0, 5, (50, 40)) / 7.0,
        "one": np.full((1, 1), 0.3),
    }[kind].astype(np.float32)
    histogram = image_histogram(values, np.zeros(values.shape, bool))
    for share in (0.001, 0.5, 0.9, 0.999, 1.0):
        exact = float(np.quantile(values, share, method="inverted_cdf"))
        ours = upper_quantile(histogram, share)
        assert np.mean(values <= ours) >= share
        assert exact <= ours <= exact + abs(exact) * 2**-13 + 1e-37
    with pytest.raises(UndefinedMetric, match="no pixels"):
        upper_quantile(empty_histogram(), 0.5)


def record(name, value, side=8):
    return Record(name, functools.partial(np.full, (side, side, 1), value, np.uint8))


def no_model(train, test):
    """The figures for good images and test images of one value each; white where defective."""
    baseline = NoModel([record(str(i), *given) for i, given in enumerate(train)])
    for value, anomalous, truth in test:
        image = np.full((8, 8, 1), value, np.uint8)
        if truth is not None:
            image[truth] = 255
        baseline.add(image, anomalous=anomalous, truth=truth)
    return baseline.figures()


TRUTH, CLEAN = np.zeros((2, 8, 8), bool)
TRUTH[2:4, 2:4] = True


@pytest.mark.parametrize("bad", [50, 150])
def test_brightness_betrays_a_confounded_set_in_either_direction(bad):
    test = [(100, False, CLEAN), (101, False, CLEAN), (bad, True, None), (bad, True, None)]
    row, missing = no_model([(100,), (100,)], test)
    assert row["mean_brightness"]["image_auroc"] == 1
    assert row["distance_to_mean_image"]["image_auroc"] == 1
    assert set(missing) == {"no_model.distance_to_mean_image.pixel_auroc"}


def test_distance_to_the_mean_image_finds_bright_pixels_where_there_is_one():
    test = [(100, False, CLEAN), (100, True, TRUTH)]
    row, missing = no_model([(90,), (110,)], test)
    assert row["distance_to_mean_image"]["pixel_auroc"] == 1 and not missing
    row, missing = no_model([(90,), (110, 9)], test)
    assert row["distance_to_mean_image"] == {"image_auroc": None, "pixel_auroc": None}
    assert "differ in size" in missing["no_model.distance_to_mean_image.image_auroc"]


def test_a_defect_outside_the_region_of_interest_does_not_divide_by_nothing():
    row, pixels = HOLES[0]
    outside = row._replace(intersection=0, union=0)
    figures = summary([*GOODS, (outside, pixels), HOLES[1]])
    expected = HOLES[1][0].intersection / HOLES[1][0].union
    assert figures["iou_mean_calibrated"] == pytest.approx(expected)
    alone = summary([*GOODS, (outside, pixels)])
    assert alone["iou_mean_calibrated"] is None and "iou_mean_calibrated" in alone["missing"]


def test_the_no_model_row_looks_at_the_region_of_interest_only():
    rng = np.random.default_rng(0)
    roi = np.zeros((64, 64), bool)
    roi[16:48, 16:48] = True
    inside = rng.integers(0, 256, (64, 64, 1), dtype=np.uint8)

    def image(background):
        return np.where(roi[..., None], inside, np.uint8(background))

    model = NoModel([Record("a", lambda: image(100))])
    for background in (100, 140):
        for _ in range(3):
            truth = np.zeros((64, 64), bool)
            truth[:20] = background == 140
            model.add(image(background), anomalous=background == 140, truth=truth, valid=roi)
    figures, _ = model.figures()
    assert figures["mean_brightness"]["image_auroc"] == 0.5
    assert figures["distance_to_mean_image"]["image_auroc"] == 0.5
    assert figures["distance_to_mean_image"]["pixel_auroc"] == 0.5


def test_the_no_model_row_is_that_of_double_precision():
    rng = np.random.default_rng(1)
    train = rng.integers(0, 256, (7, 600, 40, 3), dtype=np.uint8)
    test = rng.integers(0, 256, (6, 600, 40, 3), dtype=np.uint8)
    model = NoModel([Record(str(i), functools.partial(train.__getitem__, i)) for i in range(7)])
    for i, picture in enumerate(test):
        model.add(picture, anomalous=i % 2 == 0, truth=None)
    distances = (((test - train.mean(axis=0)) / 255) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(model._distance, distances, rtol=1e-5)  # 16 bits of the mean image
    np.testing.assert_allclose(model._brightness, test.mean(axis=(1, 2, 3)) / 255, rtol=1e-7)
