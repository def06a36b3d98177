"""TFDS data sets built from the file layouts of the downloads."""

import sys
from collections import Counter
from functools import partial

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import layouts
from PIL import Image

from recon_ad.data.source import GOOD
from recon_ad.data.tfds_builders import BUILDERS, base
from recon_ad.errors import UserError

TRAIN = [f"train/good/{i:03d}.png" for i in range(3)]
MVTEC_TEST = {
    "test/blob/000.png": ("blob", None),
    "test/crack/000.png": ("crack", (2,)),
    "test/crack/001.png": ("crack", (7,)),
    "test/good/000.png": (GOOD, None),
    "test/good/001.png": (GOOD, None),
}
GOOD_ONE = (GOOD, None)
# The writer, the config, the training names, and by test name the type and the mask's corners.
SETS = {
    "mvtec_ad": (layouts.mvtec_ad, "bottle", TRAIN, MVTEC_TEST),
    "mvtec_ad of one's own": (
        partial(layouts.mvtec_ad, category="my-part_2.b", rgb=False), "my-part_2.b", TRAIN,
        MVTEC_TEST,
    ),
    "mvtec_loco": (
        layouts.mvtec_loco, "pushpins", TRAIN, {
            "test/good/000.png": GOOD_ONE,
            "test/logical_anomalies/000.png": ("logical_anomalies", (2, 9)),
            "test/structural_anomalies/000.png": ("structural_anomalies", (5,)),
        },
    ),
    "mvtec_ad_2": (
        layouts.mvtec_ad_2, "can", [f"train/good/{i:03d}_regular.png" for i in range(3)], {
            "test_public/bad/000_regular.png": ("bad", (2,)),
            "test_public/bad/001_regular.png": ("bad", (3,)),
            "test_public/good/000_overexposed.png": GOOD_ONE,
        },
    ),
    "visa": (
        layouts.visa, "candle", [f"Data/Images/Normal/{i:04d}.JPG" for i in range(3)], {
            "Data/Images/Anomaly/000.JPG": ("melt", (2,)),
            "Data/Images/Anomaly/001.JPG": ("chunk of wax missing+melt", (3,)),
            "Data/Images/Normal/0003.JPG": GOOD_ONE,
        },
    ),
    "nanotwice": (
        layouts.nanotwice, "", ["Normal/ND00.tif", "Normal/ND01.tif"],
        {f"Anomalous/images/ITIA11{i:02d}.tif": ("defect", (2 + i,)) for i in range(3)},
    ),
    "woven_fabrics": (
        layouts.woven_fabrics, "texture_2", TRAIN,
        {f"test/defective/{i:03d}.png": ("defective", (2 + i,)) for i in range(2)},
    ),
    "woven_fabrics without folders of types": (
        partial(layouts.woven_fabrics, flat=True), "texture_2",
        [f"train/{i:03d}.png" for i in range(3)],
        {f"test/{i:03d}.png": ("defective", (2 + i,)) for i in range(2)},
    ),
    "kolektor_sdd": (
        layouts.kolektor_sdd, "",
        [f"kos{name}.jpg" for name in ("01/Part0", "01/Part2", *(f"25/Part{i}" for i in range(3)))],
        {
            "kos01/Part1.jpg": ("defect", (2,)),
            **{f"kos26/Part{i}.jpg": GOOD_ONE for i in range(3)},
            "kos50/Part0.jpg": GOOD_ONE, "kos50/Part1.jpg": ("defect", (2,)),
            "kos50/Part2.jpg": GOOD_ONE,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SETS)
def test_each_layout_becomes_records_with_its_pixels_types_and_masks(source, manual, case):
    write, config, train, test = SETS[case]
    write(manual)
    got = source(case.split()[0], config=config)
    assert [record.name for record in got.train if not record.validation] == train
    assert all(r.defect == GOOD and r.load_mask is None for r in got.train)
    assert [record.name for record in got.test] == list(test)
    root = manual / config if (manual / config / "train").is_dir() else manual
    root = root / config if case == "visa" else root
    for record in got.train + got.test:
        stored = np.asarray(Image.open(root / record.name))
        np.testing.assert_array_equal(record.load().squeeze(), stored, strict=True)
    for record in got.test:
        defect, corners = test[record.name]
        assert (record.defect, record.load_mask is not None) == (defect, corners is not None)
        if corners:
            np.testing.assert_array_equal(record.load_mask(), layouts.rectangles(*corners))
    assert "tensorflow" not in sys.modules


def test_every_category_has_a_config():
    counts = {"mvtec_ad": 15, "mvtec_loco": 5, "visa": 12, "woven_fabrics": 2}
    counts |= {"mvtec_ad_2": 8, "nanotwice": 0, "kolektor_sdd": 0}
    assert {name: len(builder.builder_configs) for name, builder in BUILDERS.items()} == counts


def test_nanotwice_and_a_category_of_visas_name_are_read_in_the_mvtec_layout_too(source, manual):
    layouts.mvtec_ad(manual / "bottles")
    layouts.mvtec_ad(manual, "nanofibres", rgb=False)
    assert len(source("nanotwice", config="").test) == 5
    layouts.mvtec_ad(manual, "candle")
    assert len(source("mvtec_ad", config="candle").train) == 3


def test_files_are_kept_as_they_are_and_tfds_reads_them_too(source, manual, tmp_path):
    layouts.mvtec_ad(manual, rgb=False)
    layouts.mask(manual / "bottle/ground_truth/good/000_mask.png", 2)  # not used
    source("mvtec_ad", config="bottle")
    builder = tfds.builder("mvtec_ad/bottle", data_dir=tmp_path / "prepared")
    skip = tfds.decode.SkipDecoding()
    for example in builder.as_data_source("test", decoders={"image": skip}):
        assert example["image"] == (manual / "bottle" / example["name"].decode()).read_bytes()
    examples = {e["name"].decode(): e for e in builder.as_data_source("test")}
    assert examples.keys() == MVTEC_TEST.keys()
    for name, (defect, corners) in MVTEC_TEST.items():
        example, label = examples[name], int(defect != GOOD)
        assert (example["label"], example["defect"].decode()) == (label, defect)
        assert (example["has_mask"], example["channels"]) == (corners is not None, 1)
    shapes = [examples["test/good/001.png"][key].shape for key in ("image", "mask")]
    assert shapes == [(21, 30, 3), (21, 30, 1)]
    marked = examples["test/crack/001.png"]["mask"][..., 0]
    np.testing.assert_array_equal(marked, 255 * layouts.rectangles(7))


def test_locos_validation_split_is_prepared_and_marked(source, manual, tmp_path):
    layouts.mvtec_loco(manual)
    got = source("mvtec_loco", config="pushpins")
    own = [record.name for record in got.train if record.validation]
    assert own == ["validation/good/000.png", "validation/good/001.png"] and not got.notes
    builder = tfds.builder("mvtec_loco/pushpins", data_dir=tmp_path / "prepared")
    splits = {split: info.num_examples for split, info in builder.info.splits.items()}
    assert splits == {"train": 3, "validation": 2, "test": 3}


def test_a_split_beyond_tfds_own_limit_of_memory_is_written(source, manual, monkeypatch):
    monkeypatch.setattr(base.shuffle, "MAX_MEM_BUFFER_SIZE", 10)
    layouts.kolektor_sdd(manual)
    assert len(source("kolektor_sdd", config="").train) == 5
    assert base.shuffle.MAX_MEM_BUFFER_SIZE == 10


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("mvtec_ad/cable", r"neither cable/train/good nor its archive: put mvtec_anomaly_det"),
        ("mvtec_loco/pushpins", r"neither pushpins/train/good .*mvtec_loco_anomaly_detection\."),
        (
            "mvtec_ad_2/can",
            r"neither can/train/good nor its archive: put mvtec_ad_2\.\* or can\.\*",
        ),
        ("visa/candle", r"neither split_csv/1cls.csv beside candle/Data .*VisA_20220922\.\*"),
        ("nanotwice/", r"neither folders Normal and Anomalous .*dfg05er_Data\.\*"),
        ("woven_fabrics/texture_1", r"neither texture_1/train .*textures\.\* or texture_1\.\*"),
        ("kolektor_sdd/", r"neither folders kos01 to kos50 .*KolektorSDD\.\*"),
    ],
)
def test_a_folder_with_something_else_says_what_is_to_be_there(source, manual, kind, expected):
    layouts.mvtec_ad(manual)
    name, config = kind.split("/")
    with pytest.raises(UserError, match=f"^{manual}: holds {expected}"):
        source(name, config=config)


def rewritten(*lines):
    return lambda manual: (manual / "split_csv/1cls.csv").write_text("\n".join(lines))


BOTTLE, CANDLE = ("mvtec_ad", "bottle"), ("visa", "candle")


@pytest.mark.parametrize(
    "kind, harm, expected",
    [
        (BOTTLE, lambda m: layouts.cut(m / "bottle/test/good/001.png"), "001.png: .*trunc"),
        (
            BOTTLE,
            lambda m: layouts.mask(m / "bottle/ground_truth/crack/001_mask.png", size=(30, 20)),
            "001_mask.png: the mask has 30 × 20 pixels .*test/crack/001.png has 20 × 30",
        ),
        (
            BOTTLE,
            lambda m: layouts.saved(m / "bottle/test/good/001.png", np.zeros((9, 9), np.uint16)),
            "001.png: has 1 channels of uint16.* as a folder",
        ),
        (
            BOTTLE, lambda m: [p.unlink() for p in (m / "bottle/train/good").iterdir()],
            "bottle: has no good image to train on",
        ),
        (CANDLE, lambda m: (m / "candle/Data/Images/Normal/0002.JPG").unlink(), "0002"),
        (CANDLE, rewritten("object,image"), "1cls.csv: has no column split"),
        (
            CANDLE,
            rewritten("object,split,label,image,mask", "candle,validation,normal,candle/x.JPG,"),
            "1cls.csv: candle/x.JPG is in split 'validation' with label 'normal'",
        ),
        (
            ("kolektor_sdd", ""), lambda m: (m / "kos26/Part1_label.bmp").unlink(),
            "Part1.jpg: has no Part1_label.bmp beside it",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_kept(source, manual, tmp_path, kind, harm, expected):
    name, config = kind
    getattr(layouts, name)(manual)
    harm(manual)
    with pytest.raises(UserError, match=expected):
        source(name, config=config)
    assert not (tmp_path / "prepared" / name / config / base.VERSION).exists()
    assert not list((tmp_path / "prepared").rglob("*.array_record*"))


def test_visa_without_names_of_defects_calls_them_anomalies(source, manual):
    layouts.visa(manual)
    (manual / "candle/image_anno.csv").unlink()
    got = source("visa", config="candle")
    assert Counter(r.defect for r in got.test) == {GOOD: 1, "anomaly": 2}
