"""Prepared TFDS data sets become sources; preparation happens once, whole, or not at all."""

import subprocess
import sys
import time

import pytest
from helpers import layouts
from helpers.sources import (
    assert_patches_are_cut_from,
    assert_picklable,
    assert_same,
    channels_of,
)

from recon_ad.data.folder import folder_source
from recon_ad.data.tfds_builders import base
from recon_ad.data.tfds_source import tfds_source
from recon_ad.errors import UserError


def test_a_missing_or_empty_mask_is_noted(source, manual):
    layouts.mvtec_ad(manual)
    layouts.mask(manual / "bottle/ground_truth/crack/000_mask.png")
    (note,) = source("mvtec_ad", config="bottle").notes
    assert note == (
        "2 defective test images without a mask, or with an empty one: test/blob/000.png, "
        "test/crack/000.png."
    )


@pytest.mark.parametrize(
    "channels, mixed, expected", [(None, False, 1), (None, True, 3), (1, True, 1), (3, False, 3)]
)
def test_all_images_are_read_with_the_same_channels(source, manual, channels, mixed, expected):
    layouts.nanotwice(manual)
    if mixed:
        layouts.picture(manual / "Normal/ND02.tif", rgb=True)
    got = source("nanotwice", config="", channels=channels)
    assert channels_of(got) == {expected}
    noted = [note for note in got.notes if "1 of 3 training images are RGB" in note]
    assert len(noted) == (mixed and channels is None)


def test_a_set_is_prepared_once_and_then_listed_without_download_or_decoding(
    source, manual, tmp_path, monkeypatch
):
    layouts.kolektor_sdd(manual)
    first = source("kolektor_sdd", config="")
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "prepared").rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr("recon_ad.data.tfds_source.decode_image", None)
        again = source("kolektor_sdd", config="", manual_dir=None)
    assert len(again.train) == 5
    assert_same(again, first)
    assert_picklable(first)
    assert files == {p: p.stat().st_mtime_ns for p in files}


def test_patches_are_cut_from_a_prepared_set(source, manual):
    root = layouts.mvtec_ad(manual) / "bottle"
    for file in (root / "train" / "good").iterdir():
        layouts.picture(file, (64, 64), rgb=True)
    assert_patches_are_cut_from(source("mvtec_ad", config="bottle").train)


KILLED = """
import sys, time
from recon_ad.data.tfds_builders import base
from recon_ad.data.tfds_source import tfds_source
decode = base.decode_image
def stuck(path):
    if "kos26" in path.parts:
        print("half", file=sys.__stdout__, flush=True)
        time.sleep(100)
    return decode(path)
base.decode_image = stuck
tfds_source("kolektor_sdd", config="", data_dir=sys.argv[1], manual_dir=sys.argv[2])
"""


@pytest.mark.slow  # kills a process
def test_a_killed_preparation_is_done_again_from_the_start(source, manual, tmp_path):
    layouts.packed(layouts.kolektor_sdd(tmp_path / "a"), manual / "KolektorSDD.zip")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "prepared"), str(manual)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert list((tmp_path / "prepared").rglob("incomplete*"))
    with pytest.raises(UserError, match="not prepared yet"):
        source("kolektor_sdd", config="", manual_dir=None)
    got = source("kolektor_sdd", config="")
    assert (len(got.train), len(got.test)) == (5, 7)


def test_of_two_that_prepare_at_once_both_get_the_set(source, manual, monkeypatch):
    """As two hosts on one disk: the second is done while the first is still at it."""
    layouts.kolektor_sdd(manual)
    others = []
    decode = base.decode_image

    def first_of_two(path):
        if not others:
            others.append(None)
            others.append(source("kolektor_sdd", config=""))
        return decode(path)

    monkeypatch.setattr(base, "decode_image", first_of_two)
    mine = source("kolektor_sdd", config="")
    assert_same(mine, others[1])


@pytest.mark.parametrize("damage", ["bytes", "no file", "no info"])
def test_damaged_prepared_files_are_named(source, manual, tmp_path, damage):
    layouts.kolektor_sdd(manual)
    source("kolektor_sdd", config="")
    folder = tmp_path / "prepared/kolektor_sdd" / base.VERSION
    (file,) = folder.glob("*train*")
    if damage == "bytes":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 255
        file.write_bytes(content)
    elif damage == "no file":
        file.unlink()
    else:
        (folder / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=f"^{folder}: .*remove"):
        source("kolektor_sdd", config="")


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("mvtec", {"config": "bottle"}, 'no data set "mvtec": there are mvtec_ad, mvtec_loco, '),
        ("visa", {"config": "bottle"}, 'visa has no category "bottle": there are candle, '),
        ("visa", {"config": ""}, 'visa has no category ""'),
        ("mvtec_ad", {"config": ""}, 'no category "": there are bottle, .*, or give the name of'),
        ("mvtec_ad", {"config": "../bottle"}, 'no category "../bottle"'),
        ("nanotwice", {"config": "all"}, "nanotwice has no categories"),
        ("nanotwice", {"config": "", "channels": 0}, "channels is 0"),
        ("nanotwice", {"config": "", "manual_dir": None}, "not prepared yet: give the folder"),
        ("nanotwice", {"config": "", "manual_dir": "gone"}, "^gone: there is no such folder: put"),
    ],
)
def test_unusable_arguments_end_in_a_sentence_that_helps(source, name, arguments, expected):
    with pytest.raises(UserError, match=expected):
        source(name, **arguments)


def test_an_empty_folder_is_no_download(source, manual):
    manual.mkdir()
    with pytest.raises(UserError, match=f"^{manual}: is empty: put the download of visa there"):
        source("visa", config="candle")


def test_data_sources_import_neither_jax_nor_tensorflow():
    code = """
import sys, recon_ad.data
assert "tensorflow_datasets" not in sys.modules
import recon_ad.data.tfds_source
assert not {"jax", "tensorflow"} & set(sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


REAL = [
    ("nanotwice", "", "nanotwice", "nanofibres"),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("mvtec_ad", "grid", "mvtec_ad", "grid"),
            ("mvtec_ad", "magnetic_tile", "mtd", "magnetic_tile"),
            ("mvtec_ad", "ball_screw", "bsdata", "ball_screw"),
        )
    ),
]


@pytest.mark.parametrize("name, config, folder, category", REAL)
def test_real_data_sets_are_the_same_as_their_folders(
    real_data, tmp_path, name, config, folder, category
):
    if not (real_data / folder / category).is_dir():
        pytest.skip(f"no {category} in {real_data}")
    mine = tfds_source(name, config=config, data_dir=tmp_path, manual_dir=real_data / folder)
    theirs = folder_source(real_data / folder, category=category)
    assert_same(mine, theirs, every=40)
    start = time.process_time()
    tfds_source(name, config=config, data_dir=tmp_path, manual_dir=None)
    assert time.process_time() - start < 5  # 0.15 s for 892 images
