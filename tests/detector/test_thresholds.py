"""Conformal thresholds, and a detector's thresholds from held-out good images."""

import functools
import json

import numpy as np
import pytest
from helpers.detectors import plain_detector

from recon_ad.data import Record
from recon_ad.data.holdout import hold_out_all
from recon_ad.data.source import digest
from recon_ad.detector.directory import load
from recon_ad.detector.heldout import Judged, joined, read_kept
from recon_ad.detector.thresholds import calibrate, images_that_count
from recon_ad.errors import UserError


def normals(n):
    images = np.random.default_rng(0).integers(0, 256, (n, 40, 40, 1), np.uint8)
    return [Record(str(i), functools.partial(np.copy, image)) for i, image in enumerate(images)]


def held(records, how="some"):
    return hold_out_all(records, how=how)


def test_thresholds_agree_with_quantiles_of_all_scores_and_pixels():
    detector, records = plain_detector(), normals(7)
    maps = np.stack([detector.predict(record.load()).anomaly_map for record in records])
    scores = np.sort(maps.max(axis=(1, 2)))
    exact = np.quantile(maps, 0.999, method="inverted_cdf")
    # ⌈8 · 0.8⌉ = 7th; the largest one if so few images do not support the rate.
    for fpr, rank, supported in ((0.2, 6, 0.2), (0.3, 5, 0.3), (0.01, 6, 1 / 8)):
        calibrated = calibrate(detector, held(records, how="seven"), fpr=fpr)
        assert calibrated.thresholds.image == scores[rank]
        # The upper end of a histogram bin: never below, at most 2^-13 above.
        assert exact <= calibrated.thresholds.pixel <= exact * (1 + 2**-12)
        record = calibrated.record["calibration"]
        expected = {"images": 7, "pixels": 7 * 40 * 40, "heldout": "seven"}
        assert record == record | expected | {"fpr_supported": pytest.approx(supported)}


@pytest.mark.parametrize("fpr", [0.0, 1.0, -1.0])
def test_impossible_rates_are_refused(fpr):
    with pytest.raises(UserError, match="between 0 and 1"):
        calibrate(plain_detector(), held(normals(2)), fpr=fpr)


def test_thresholds_that_are_given_are_kept_and_reported():
    fields = {"calibration.thresholds.image": 0.5, "calibration.thresholds.pixel": 1.0}
    calibrated = calibrate(plain_detector(**fields), held(normals(3)), fpr=0.01)
    assert calibrated.thresholds == (0.5, 1.0)
    told = calibrated.record["calibration"]
    assert told["image_rule"] == told["pixel_rule"] == "given in the config"
    assert told["fpr_supported"] is None and not told["message"]


def test_sums_over_regions_are_brought_to_whole_images():
    summing = plain_detector(**{"inference.score": "sum"})
    whole = calibrate(summing, held(normals(3)), fpr=0.3)
    regions = calibrate(summing, held(normals(3))._replace(regions_per_image=4.0), fpr=0.3)
    assert regions.thresholds.image == pytest.approx(4 * whole.thresholds.image)


def test_copies_of_an_image_count_once(caplog):
    once = calibrate(plain_detector(), held(normals(3)), fpr=0.3)
    copied = calibrate(plain_detector(), held(normals(3) * 4), fpr=0.3)
    assert copied.thresholds == once.thresholds
    assert copied.record["calibration"]["images"] == 3
    assert "9 of the 12 images are duplicates" in caplog.text


def test_what_is_too_few_says_how_many_more(caplog):
    calibrated = calibrate(plain_detector(), held(normals(8)), fpr=0.01)
    message = calibrated.record["calibration"]["message"]
    assert message == (
        "The image threshold rests on 8 held-out normal images. That supports a false-positive "
        "rate of 0.11 and not the requested 0.01, which needs 99 images: give 91 more, or request "
        "0.12."
    )
    assert message in caplog.text
    of_groups = held(normals(8))._replace(blocks=(0, 0, 0, 0, 1, 1, 1, 1), grouped=True)
    entry = calibrate(plain_detector(), of_groups, fpr=0.1).record["calibration"]
    assert entry["fpr_supported"] == pytest.approx(1 / 3) and entry["independent_units"] == 2
    assert "2 groups of 8" in entry["message"] and "9 groups: give 7 more" in entry["message"]
    of_regions = held(normals(8))._replace(regions_per_image=4.0)
    entry = calibrate(plain_detector(), of_regions, fpr=0.01).record["calibration"]
    assert "8 held-out normal regions" in entry["message"]
    assert "regions: give more images" in entry["message"]


def series(per_series, n=10):
    """Return images of n series; those of one series have about the same contrast."""
    rng = np.random.default_rng(0)
    images = []
    for i in range(n):
        for _ in range(per_series):
            noise = rng.integers(0, 16 * (i + 1), (40, 40, 1)).astype(np.uint8)
            images.append(Record(f"{len(images):03d}", functools.partial(np.copy, noise)))
    return images


def test_images_of_a_series_count_for_less():
    entry = calibrate(plain_detector(), held(series(5)), fpr=0.01).record["calibration"]
    assert entry["correlation"] > 0.8 and 10 <= entry["independent_units"] < 14
    assert entry["fpr_supported"] == pytest.approx(1 / (1 + entry["independent_units"]))
    assert "scores of neighbours are alike" in entry["message"]
    assert entry["decided_by"] == [max(
        zip(entry["scores"], entry["names"], strict=True)
    )[1]]  # fmt: skip


def test_categories_have_thresholds_of_their_own(tmp_path):
    records = [
        record._replace(category="ab"[i % 2], load=functools.partial(fading, record, 1 + i % 2))
        for i, record in enumerate(normals(12))
    ]
    detector = calibrate(plain_detector(), held(records), fpr=0.2)
    for category in "ab":
        alone = [record for record in records if record.category == category]
        expected = calibrate(plain_detector(), held(alone), fpr=0.2).thresholds
        assert detector.of_category(category).thresholds == expected
    assert detector.categories["a"] != detector.categories["b"]
    detector.save(tmp_path / "d")
    again = load(tmp_path / "d")
    assert again.categories == detector.categories
    with pytest.raises(UserError, match='"c": choose one of a, b'):
        again.of_category("c")
    with pytest.raises(UserError, match="calibrated on one alone"):
        plain_detector().of_category("a")
    image = records[0].load()
    assert all(
        again.of_category(c).predict(image).label == (score > again.categories[c].image)
        for c in "ab"
        for score in [np.float32(again.predict(image).score)]
    )


def fading(record, divisor):
    return record.load() // divisor


def test_more_images_add_to_those_before(tmp_path):
    detector, records = plain_detector(), normals(12)
    both = calibrate(detector, held(records), fpr=0.3)
    first = calibrate(detector, held(records[:7]), fpr=0.3)
    first.save(tmp_path / "d")
    before = read_kept(load(tmp_path / "d").record)
    added = calibrate(detector, held(records[5:]), fpr=0.3, earlier=before)  # two of them again
    entry = added.record["calibration"]
    assert entry["images"] == 12 and sorted(entry["scores"]) == sorted(
        both.record["calibration"]["scores"]
    )
    assert added.thresholds.image == both.thresholds.image
    # Kept pixel values are as fine as 2,048 bins over their highest percent.
    assert added.thresholds.pixel == pytest.approx(both.thresholds.pixel, rel=1e-3)
    assert added.thresholds.pixel >= both.thresholds.pixel


@pytest.mark.parametrize(
    "change",
    [{"scores": [1.0]}, {"scores": [np.nan, 1.0, 1.0]}, {"pixel_ends": {"": {}}}, {"shown": 3},
     {"pixel_ends": {"": {"bits": 22, "keys": [5, 4], "counts": [1, 1]}}},
     {"pixel_ends": {"": {"bits": 22, "keys": [1 << 23], "counts": [1]}}}],
)  # fmt: skip
def test_what_is_kept_and_damaged_is_refused(change):
    record = calibrate(plain_detector(), held(normals(3)), fpr=0.3).record
    assert read_kept(record).scores == record["calibration"]["scores"]
    with pytest.raises(UserError, match=r"damaged .*--replace"):
        read_kept({"calibration": record["calibration"] | change})
    assert read_kept({}) is None


def test_a_defective_image_among_the_good_ones_is_named(caplog):
    # Close to the output of an untrained network, apart from one white spot.
    images = [(120 + record.load() // 16).astype(np.uint8) for record in normals(9)]
    images[4][10:14, 10:14] = 255
    records = [Record(f"{i}.png", functools.partial(np.copy, x)) for i, x in enumerate(images)]
    entry = calibrate(plain_detector(), held(records), fpr=0.1).record["calibration"]
    assert entry["odd"] == ["4.png"]
    assert "1 of the 9 good images score far above the others: 4.png" in caplog.text


def test_copies_of_training_images_do_not_count():
    records = normals(4)
    known = [digest(record.load()) for record in records[:2]]
    entry = calibrate(plain_detector(), held(records), fpr=0.3, trained_on=known).record
    assert entry["calibration"]["names"] == ["2", "3"]
    with pytest.raises(UserError, match="copy of one that the detector was trained on"):
        calibrate(plain_detector(), held(records[:2]), fpr=0.3, trained_on=known)


def test_groups_are_the_same_in_earlier_and_later_images():
    names = ["s1_a.png", "s1_b.png", "s2_a.png"]
    one = Judged(names, ["1", "2", "3"], [""] * 3, [1.0, 2.0, 3.0], [0, 0, 1], {}, True)
    other = one._replace(names=["s2_b.png", "s3_a.png"], digests=["4", "5"], blocks=[0, 0])
    other = other._replace(categories=[""] * 2, scores=[4.0, 5.0])
    both = joined(one, other, group=r"s(\d)")
    assert both.grouped and both.blocks == [0, 0, 1, 1, 2]
    with pytest.raises(UserError, match="x: the name does not match"):
        joined(one, other._replace(names=["x", "s3_a.png"]), group=r"s(\d)")
    apart = joined(one, other._replace(grouped=False), group=r"s(\d)")
    assert not apart.grouped and apart.blocks == [0, 0, 1, 2, 2]


@pytest.mark.parametrize(
    ("change", "says"),
    [({"fpr_supported": "x"}, "fpr_supported"), ({"fpr_supported": 7.0}, "fpr_supported"),
     ({"by_category": [1]}, "by_category"), ({"by_category": {"a": [0.1]}}, "damaged"),
     ({"heldout": None}, "heldout"), ({"message": 3}, "message"), ({"images": 0}, "images"),
     ({"independent_units": -1.0}, "independent_units"), ({"scores": [1.0]}, "shown"),
     ({"scores": ["1", 1.0, 1.0]}, "a score is '1'"),
     ({"scores": [1e39, 1.0, 1.0]}, "a score is 1e"), ({"shown": ["", "", 3]}, "shown")],
)  # fmt: skip
def test_a_damaged_record_of_the_calibration_is_refused(change, says, tmp_path):
    detector = calibrate(plain_detector(), held(normals(3)), fpr=0.3)
    detector.save(tmp_path / "d")
    file = tmp_path / "d" / "detector.json"
    whole = json.loads(file.read_text())

    def check(record, says):
        file.write_text(json.dumps(whole | {"record": record}))
        with pytest.raises(UserError, match=says):
            load(tmp_path / "d")

    check({"calibration": detector.record["calibration"] | change}, says)
    check({"calibration": [1]}, "calibration")
    check({"learnt_from": 3}, "learnt_from")


def test_what_counts_already_is_left_out_and_named(caplog):
    records = normals(5)
    seen = plain_detector().with_record({"learnt_from": [digest(records[0].load())]})
    known = [digest(records[1].load())]
    assert [r.name for r in images_that_count(seen, records, known=known)] == ["2", "3", "4"]
    assert (
        "1 of the 5 images do not count, as the detector was already trained on them (0)"
        in caplog.text
    )
    assert "calibrated with them (1)" in caplog.text
    with pytest.raises(UserError, match="give others"):
        images_that_count(seen, records[:2], known=known)
