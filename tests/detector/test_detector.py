"""The inference path: tiles, saving, damaged files, and inputs of every kind."""

import functools
import json
import operator
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.detectors import make_detector, pictures, plain_detector
from scipy import ndimage

from recon_ad.detector.bounds import FIELDS
from recon_ad.detector.directory import load
from recon_ad.detector.inference import UNCALIBRATED, Thresholds
from recon_ad.detector.older import MOVED
from recon_ad.errors import UserError
from recon_ad.ops.masks import clean_mask, count_regions


@pytest.fixture(scope="module")
def detector():
    return plain_detector()


close = functools.partial(np.testing.assert_allclose, atol=1e-6)


def image(height=50, width=70, channels=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def test_one_tile_is_the_core_and_the_tail_alone(detector):
    tile = image(32, 32)
    prediction = detector(tile)
    residual, reconstruction = detector.core(detector.variables, tile[None])
    close(prediction.reconstruction, reconstruction[0])
    expected = ndimage.gaussian_filter(
        np.asarray(residual[0], np.float64), 1.0, mode="constant"
    ) / ndimage.gaussian_filter(np.ones((32, 32)), 1.0, mode="constant")
    # SciPy also cuts its window off at 4 sigma; float32 is compared with float64.
    np.testing.assert_allclose(prediction.anomaly_map, expected, atol=1e-5)
    assert prediction.score == prediction.anomaly_map.max()
    np.testing.assert_array_equal(prediction.mask, prediction.anomaly_map > 0.04)
    assert prediction.label == (prediction.score > 0.05)


def test_overlapping_tiles_are_averaged_with_their_weights(detector):
    picture = image(32, 48)
    residual, _ = detector.residual_map(picture)
    tiles = np.stack([picture[:, c : c + 32] for c in (0, 16)])
    maps = np.asarray(detector.core(detector.variables, tiles)[0])
    column = np.sin(np.pi * (np.arange(32) + 0.5) / 32) ** 2
    total, weight = np.zeros((32, 48)), np.zeros(48)
    for c, values in zip((0, 16), maps, strict=True):
        total[:, c : c + 32] += values * column
        weight[c : c + 32] += column
    np.testing.assert_allclose(residual, total / weight, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "fields"),
    [((50, 70), {}), ((32, 32), {}), ((10, 9), {}), ((1, 1), {}), ((33, 200), {}), ((5, 64), {}),
     ((100, 90), {"data.resize": (32, 64)}), ((100, 90), {"data.resize": (40, 0)}),
     ((9, 30), {"data.resize": (32, 0)})],
)  # fmt: skip
def test_any_size_gives_maps_of_that_size(size, fields):
    prediction = plain_detector(**fields)(image(*size))
    assert prediction.anomaly_map.shape == prediction.mask.shape == size
    assert prediction.reconstruction.shape == (*size, 1)
    assert np.isfinite(prediction.anomaly_map).all()


def test_neither_the_batch_of_tiles_nor_the_type_of_numbers_matters(detector):
    picture, ranged = image(), plain_detector(**{"data.input_range": (100.0, 355.0)})
    for a_detector, given in (
        # Convolutions over another batch may add in another order.
        (plain_detector(**{"inference.batch_size": 3}), picture),
        (detector, picture.astype(np.float32) / 255),
        (detector, picture.astype(np.uint16) * 257),
        (ranged, picture.astype(np.int32) + 100),
    ):
        close(a_detector(given).anomaly_map, detector(picture).anomaly_map)
    with pytest.raises(UserError, match="outside the range from 100 to 355"):
        ranged(picture)


def test_batches_lists_and_plain_arrays(detector):
    a, b = image(seed=1), image(seed=2)
    alone = detector(a[..., 0])
    for several in (detector(np.stack([a, b])), detector([a, b]), detector([a[..., 0], b])):
        assert several.mask.shape == (2, 50, 70)
        np.testing.assert_array_equal(several.anomaly_map[0], alone.anomaly_map)
        marks = [one.marks for one in (detector(a), detector(b))]
        np.testing.assert_array_equal(several.marks, marks)
        assert several.score[1] == detector(b).score


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((5, 5, 3), np.uint8), "takes .height, width, 1"),
        (np.zeros((5, 5, 1), np.int64), "int64"),
        (np.full((5, 5), 255.0), "outside the range from 0 to 1: scale it"),
        (np.full((5, 5), np.nan), "NaN or infinite"),
        (np.zeros((0, 5), np.uint8), r"\[0, 5\]"),
        (np.zeros(5, np.uint8), r"\[5\]"),
        ([np.zeros((5, 5), np.uint8), np.zeros((6, 5), np.uint8)], "differ in size"),
        ([], "no image"),
    ],
)
def test_unusable_input_is_refused_with_what_to_give(detector, images, says):
    with pytest.raises(UserError, match=says):
        detector(images)


def test_outside_the_region_of_interest_nothing_scores_or_counts(detector):
    picture = image()
    roi = np.zeros((50, 70), bool)
    roi[10:40, 20:60] = True
    whole, inside = detector.predict(picture), detector.predict(picture, roi=roi)
    residual, _ = detector.residual_map(picture)
    assert not inside.mask[~roi].any() and not inside.anomaly_map[~roi].any()
    assert inside.score == inside.anomaly_map[roi].max()
    # The tail ignores pixels outside; the core's tiles do see them.
    spoiled = np.where(roi, residual, 1e6).astype(np.float32)
    decisions = (detector.decide(values, roi=roi) for values in (residual, spoiled))
    jax.tree.map(np.testing.assert_array_equal, *decisions)
    everything = detector.predict(picture, roi=np.ones((50, 70), bool))
    np.testing.assert_array_equal(everything.anomaly_map, whole.anomaly_map)


@pytest.mark.parametrize("roi", [np.ones((5, 5), bool), np.zeros((50, 70), bool)])
def test_a_region_of_interest_that_does_not_fit_is_named(detector, roi):
    with pytest.raises(UserError, match="region of interest has shape"):
        detector.predict(image(), roi=roi)


def test_masks_are_opened_and_small_regions_dropped_as_scipy_does():
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(60, 80)), 1.5) > 0.05
    y, x = np.ogrid[-2:3, -2:3]
    for opening, disk in ((0, [[True]]), (2, x**2 + y**2 <= 4)):
        # Pixels beyond the border do not cause a region that touches it to be dropped.
        opened = ndimage.binary_dilation(ndimage.binary_erosion(mask, disk, border_value=1), disk)
        labels, count = ndimage.label(opened, np.ones((3, 3)))  # diagonal neighbours are connected
        areas = np.bincount(labels.ravel())
        least = int(np.sort(areas)[count // 2])  # the area of some region
        large = areas >= least
        large[0] = False
        kept = clean_mask(mask, opening=opening, min_area=least)
        np.testing.assert_array_equal(kept, large[labels])
        assert 0 < count_regions(kept) == large.sum() < count


def test_a_saved_detector_says_the_same(detector, tmp_path):
    detector.save(tmp_path / "d")
    again = load(tmp_path / "d")
    assert again.thresholds == detector.thresholds
    jax.tree.map(np.testing.assert_array_equal, detector(image()), again(image()))
    files = {path.name for path in (tmp_path / "d").iterdir()}
    assert files == {"detector.json", "variables.safetensors", "MODEL_CARD.md"}


def test_detectors_of_one_config_compile_once(tmp_path):
    # A new one: `plain_detector` is kept longer than what its method has compiled.
    detector = make_detector(thresholds=Thresholds(0.05, 0.04))
    detector.save(tmp_path / "saved")
    saved = load(tmp_path / "saved")
    detector(image())
    known = detector.core._cache_size(), detector.tail._cache_size()
    assert saved.core is detector.core and saved.tail is detector.tail
    saved(image())
    assert (saved.core._cache_size(), saved.tail._cache_size()) == known
    other = make_detector(**{"method.width": 0.5, "inference.score": "mean"})
    assert other.core is not saved.core and other.tail is not saved.tail


def test_a_detector_of_format_6_opens(tmp_path):
    detector = make_detector("dae", thresholds=Thresholds(0.05, 0.04))
    detector.save(tmp_path / "d")
    path = tmp_path / "d/detector.json"
    described = json.loads(path.read_text())
    config = described["config"]
    del config["method"]["width"], config["data"]["side"], config["vit_recon"]
    del config["optim"]["average"]
    for old, (section, new) in MOVED.items():
        config["method"][old] = config[section].pop(new)
    for section in {section for section, _ in MOVED.values()}:
        assert not config.pop(section)
    path.write_text(json.dumps(described | {"format": 6}))
    again = load(tmp_path / "d")
    assert (again.config.method.width, again.config.data.side) == (1.0, 512)
    assert (again.config.vit_recon.recipe, again.config.optim.average) == ("ours", 0)
    assert tuple(again.config.dae.widths) == tuple(detector.config.dae.widths)
    assert again.predict(pictures()[1]).score == detector.predict(pictures()[1]).score


def test_an_uncalibrated_detector_calls_nothing_anomalous(detector, tmp_path):
    detector.with_thresholds(UNCALIBRATED, {}).save(tmp_path / "d")
    again = load(tmp_path / "d")
    assert again.thresholds == UNCALIBRATED
    prediction = again(image())
    assert not prediction.label and not prediction.mask.any()


CALIBRATED = {
    "heldout": "images", "message": "", "images": 9, "regions_per_image": 1, "fpr_supported": 0.1,
}  # fmt: skip
# The place in detector.json and its new value, by the damage.
DAMAGED = {
    "another format": ("format", 99),
    "no thresholds": ("thresholds", ...),
    "a threshold that is a word": ("thresholds", "image", "x"),
    "no tensors named": ("tensors", None),
    "another tensor's shape": ("tensors", "params/decoder/deconv1/bias", [1]),
    "empty config": ("config", {}),
    "other channels": ("channels", 2),
    "another patch size": ("config", "data", "patch_size", 64),
    "an unknown score": ("config", "inference", "score", "foo"),
    "an unknown method": ("config", "method", "name", "foo"),
    "a threshold that is no number": ("thresholds", "image", float("nan")),
    "an infinite threshold": ("thresholds", "pixel", float("inf")),
    "a threshold that is true": ("thresholds", "image", True),
    "half a tile at a time": ("config", "inference", "batch_size", 1.5),
    "half a stride": ("config", "inference", "stride", 1.5),
    "a smoothing beyond all images": ("config", "inference", "sigma", 1e9),
    "a border of half a pixel": ("config", "inference", "border", 1.5),
    "a size in half pixels": ("config", "data", "resize", [32.5, 32.5]),
    "no batch": ("config", "inference", "batch_size", 0),
    "no digest": ("variables_sha256", None),
    "a weight without end": ("config", "residual", "squared", float("inf")),
    "a tile of a kilometre": ("config", "data", "patch_size", 10**9),
}


# The place in detector.json, its new value and its name in the message, by the damage.
NAMED = {
    **{f"part {value!r}": ("has_part", value, "has_part is") for value in (None, 0, [], {}, "no")},
    **{f"record {value!r}": ("record", value, "record is") for value in (None, [], "")},
    **{f"format {value!r}": ("format", value, "format ") for value in (8.0, "8", True, None, [])},
    **{
        f"window {value!r}": ("config", "ssim", "window", value, "config.ssim.window is")
        for value in (0, -1, 2.5, "11", 8, True)
    },
    "a digest of 5": ("variables_sha256", 5, "variables_sha256 is 5"),
    "channels as text": ("channels", "1", "channels is '1'"),
    "channels as a fraction": ("channels", 1.0, "channels is 1.0"),
    "a threshold as text": ("thresholds", "image", "1", "image is '1'"),
    "no thresholds": ("thresholds", [], "thresholds is"),
    "categories in a list": ("categories", [], "categories is"),
    "a category in a list": ("categories", {"a": [1]}, "a has .1., no thresholds"),
    "a category's threshold": ("categories", {"a": {"image": "1", "pixel": 1}}, "a: image is '1'"),
    "a size as text": ("config", "inference", "stride", "16", "config.inference.stride is"),
    "a number as text": ("config", "inference", "sigma", "1", "config.inference.sigma is"),
    "true as text": ("config", "part", "align", "false", "config.part.align is"),
    "a range as text": ("config", "data", "input_range", "01", "config.data.input_range is"),
    "text that is true": ("config", "method", "name", True, "config.method.name is"),
    "a number that is true": ("config", "residual", "squared", True, "residual.squared is True"),
    "regions": ("record", "calibration", {**CALIBRATED, "regions_of_interest": "false"},
                "regions_of_interest is neither"),
    "a rate as text": ("record", "calibration", {**CALIBRATED, "fpr_wanted": "x"},
                       "rate fpr_wanted is 'x'"),
    "a number in the record": ("record", "calibration", {**CALIBRATED, "pixels": float("nan")},
                               "record.calibration.pixels is nan"),
    "digests that are none": ("record", {"learnt_from": [1, [2], None]}, "not a list of digests"),
    "a training in a list": ("record", {"training": []}, "training is not an object"),
    "a tensor of null": ("tensors", "more", None, "json: more differ"),
    "a long number": ("channels", 10**4000, "channels is 1000000000.*0000, not from 1"),
    "a long threshold": ("thresholds", "image", 10**4000, "image threshold is 1000|do not fit"),
    "a long field": ("config", "inference", "batch_size", 10**4000, "batch_size is 1000|not fit"),
    "a weight beyond all maps": ("config", "residual", "squared", 1e30, "has the weights"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAMED)
def test_a_field_of_another_type_is_named(detector, tmp_path, kind):
    *where, last, value, words = NAMED[kind]
    detector.with_record({"calibration": CALIBRATED}).save(tmp_path / "d")
    load(tmp_path / "d")
    described = tmp_path / "d/detector.json"
    content = json.loads(described.read_text())
    functools.reduce(operator.getitem, where, content)[last] = value
    described.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path / "d")
    assert str(caught.value).startswith(str(tmp_path))
    assert len(str(caught.value)) < len(str(tmp_path)) + 400


@pytest.mark.parametrize(
    ("where", "words"),
    [
        *((name, f"{name} is missing") for name in FIELDS),
        ("thresholds.image", "thresholds: image is missing"), ("config.data", "config.data.* is"),
        ("config.method.name", "name is missing"), ("config.ssim", "config.ssim"),
        ("config.inference.sigma", "sigma is missing"), ("config.residual", "residual.* is"),
        ("record.calibration.heldout", "calibration.heldout is not text"),
    ],
)  # fmt: skip
def test_a_field_that_is_missing_is_named(detector, tmp_path, where, words):
    detector.with_record({"calibration": CALIBRATED}).save(tmp_path / "d")
    path = tmp_path / "d/detector.json"
    content = json.loads(path.read_text())
    *sections, last = where.split(".")
    del functools.reduce(operator.getitem, sections, content)[last]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path / "d")
    assert "Error" not in str(caught.value)


TEXTS = {"not json": "{", "deep json": "[" * 10**5 + "]" * 10**5, "a long number": "9" * 5000}
BROKEN = ["no folder", "no tensors", "cut tensors", "a flipped bit", "weights of NaN", *TEXTS]


def test_a_detector_that_is_replaced_while_it_is_read_is_the_new_one(
    detector, tmp_path, monkeypatch
):
    path = tmp_path / "d"
    detector.save(path)
    later = [detector.with_record({"notes": ["new"]})]
    read = Path.read_bytes

    def replaced_meanwhile(file):
        if later and file.suffix == ".safetensors":
            later.pop().save(path)
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", replaced_meanwhile)
    assert load(path).record["notes"] == ["new"] and not later


@pytest.mark.parametrize("kind", [*BROKEN, *DAMAGED])
def test_damaged_detectors_are_refused_by_name(detector, tmp_path, kind):
    detector.save(tmp_path / "d")
    tensors, described = (tmp_path / "d" / f for f in ("variables.safetensors", "detector.json"))
    if kind == "no folder":
        shutil.rmtree(tmp_path / "d")
    elif kind == "no tensors":
        tensors.unlink()
    elif kind == "cut tensors":
        tensors.write_bytes(tensors.read_bytes()[:-100])
    elif kind == "a flipped bit":
        content = bytearray(tensors.read_bytes())
        content[-3] ^= 1
        tensors.write_bytes(content)
    elif kind == "weights of NaN":
        broken = detector.with_record({})
        broken.variables = jax.tree.map(lambda x: x * np.nan, detector.variables)
        broken.save(tmp_path / "d")
    elif kind in TEXTS:
        described.write_text(TEXTS[kind])
    else:
        *where, last, value = DAMAGED[kind]
        content = json.loads(described.read_text())
        inner = functools.reduce(operator.getitem, where, content)
        inner[last] = value
        if value is ...:
            del inner[last]
        described.write_text(json.dumps(content))
    with pytest.raises(UserError, match=str(tmp_path)):
        load(tmp_path / "d")
