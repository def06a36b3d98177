"""Prepared TFDS data sets as sources; they are prepared once, completely, or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import layouts
from helpers.sources import assert_picklable, assert_same, channels_of

from recon_ad.data.folder import folder_source
from recon_ad.data.tfds_builders import base
from recon_ad.errors import UserError


def test_a_missing_or_empty_mask_is_noted(source, manual):
    layouts.mvtec_ad(manual)
    layouts.mask(manual / "bottle/ground_truth/crack/000_mask.png")
    (note,) = source("mvtec_ad", config="bottle").notes
    assert note.startswith(
        "2 defective test images without a mask, or with an empty one: test/blob"
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
    command = [sys.executable, "-c", KILLED, str(tmp_path / "prepared"), str(manual)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "half\n"
        process.kill()
    assert list((tmp_path / "prepared").rglob("incomplete*"))
    with pytest.raises(UserError, match="not prepared yet"):
        source("kolektor_sdd", config="", manual_dir=None)
    got = source("kolektor_sdd", config="")
    assert (len(got.train), len(got.test)) == (5, 7)


def test_of_two_that_prepare_at_once_both_get_the_set(source, manual, monkeypatch):
    """Prepare as two hosts on one disk: the second finishes while the first is still working."""
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


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize(
    "name, damage",
    [("*train*", flip_a_bit), ("*train*", Path.unlink), ("dataset_info.json", Path.unlink)],
)
def test_damaged_prepared_files_are_named(source, manual, tmp_path, name, damage):
    layouts.kolektor_sdd(manual)
    source("kolektor_sdd", config="")
    folder = tmp_path / "prepared/kolektor_sdd" / base.VERSION
    (file,) = folder.glob(name)
    damage(file)
    with pytest.raises(UserError, match=f"^{folder}: .*remove"):
        source("kolektor_sdd", config="")


@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("mvtec", {"config": "bottle"}, 'unknown data set "mvtec": choose one of mvtec_ad, '),
        ("visa", {"config": "bottle"}, 'visa has no category "bottle": there are candle, '),
        ("mvtec_ad", {"config": ""}, 'no category "": there are bottle, .*, or give the name of'),
        ("mvtec_ad", {"config": "../bottle"}, 'no category "../bottle"'),
        ("nanotwice", {"config": "all"}, "nanotwice has no categories"),
        ("nanotwice", {"config": "", "channels": 0}, "channels is 0"),
        ("nanotwice", {"config": "", "manual_dir": None}, "not prepared yet: give the folder"),
        ("visa", {"config": "candle"}, "/manual: is empty: put the download of visa there"),
        ("nanotwice", {"config": "", "manual_dir": "gone"}, "^gone: does not exist: put"),
    ],
)
def test_unusable_arguments_end_in_a_sentence_that_helps(source, manual, name, arguments, expected):
    manual.mkdir()
    with pytest.raises(UserError, match=expected):
        source(name, **arguments)


def test_data_sources_import_neither_jax_nor_tensorflow():
    code = """
import sys, recon_ad.data
assert "tensorflow_datasets" not in sys.modules
import recon_ad.data.tfds_source
assert not {"jax", "tensorflow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_real_data_set_is_the_same_as_its_folder(source, real_data):
    mine = source("nanotwice", config="", manual_dir=real_data / "nanotwice")
    assert_same(mine, folder_source(real_data / "nanotwice" / "nanofibres"), every=10)
