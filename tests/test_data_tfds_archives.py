"""Archives as downloaded give what their folders give; damaged ones are named."""

import tarfile
import zipfile
from functools import partial
from pathlib import Path

import layouts
import numpy as np
import pytest

from recon_ad.data.tfds_builders import BUILDERS, base
from recon_ad.data.tfds_source import tfds_source
from recon_ad.errors import UserError


@pytest.fixture
def manual(tmp_path) -> Path:
    return tmp_path / "manual"


@pytest.fixture
def source(tmp_path, manual):
    return partial(tfds_source, data_dir=tmp_path / "prepared", manual_dir=manual)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize(
    "name, config, write, archive, top",
    [
        ("mvtec_ad", "bottle", layouts.mvtec_ad, "mvtec_anomaly_detection", ""),
        ("mvtec_ad", "bottle", layouts.mvtec_ad, "bottle", "bottle"),
        ("visa", "candle", layouts.visa, "VisA_20220922", ""),
        ("kolektor_sdd", "", layouts.kolektor_sdd, "KolektorSDD", ""),
        ("nanotwice", "", layouts.nanotwice, "dfg05er_Data", ""),
    ],
)
def test_archives_give_what_their_folders_give(
    tmp_path, manual, name, config, write, archive, top, suffix
):
    folder = write(tmp_path / "unpacked")
    layouts.packed(folder / top, manual / f"{archive}{suffix}")
    read = partial(tfds_source, name, config=config)
    packed = read(data_dir=tmp_path / "a", manual_dir=manual)
    plain = read(data_dir=tmp_path / "b", manual_dir=folder)
    for mine, theirs in zip(packed.train + packed.test, plain.train + plain.test, strict=True):
        assert (mine.name, mine.defect) == (theirs.name, theirs.defect)
        np.testing.assert_array_equal(mine.load(), theirs.load())
    assert sorted(p.name for p in manual.iterdir()) == [f"{archive}{suffix}"]
    # Neither what was unpacked nor what TFDS had begun is left.
    left = [p.name for p in (tmp_path / "a" / name).rglob("*") if p.is_dir()]
    assert sorted(left) == sorted([base.VERSION, *([".config", config] if config else [])])


def test_of_an_archive_only_the_category_is_unpacked(tmp_path, manual, source, monkeypatch):
    folder = layouts.mvtec_ad(layouts.mvtec_ad(tmp_path / "a" / "set", "bottle"), "cable")
    layouts.packed(folder.parent, manual / "mvtec_anomaly_detection.tar.xz")
    unpacked = []
    layout = BUILDERS["mvtec_ad"].LAYOUT

    def splits(root, category):
        unpacked.extend(root.parent.iterdir())
        return layout.splits(root, category)

    monkeypatch.setattr(BUILDERS["mvtec_ad"], "LAYOUT", layout._replace(splits=splits))
    assert len(source("mvtec_ad", config="bottle").train) == 3
    assert [path.name for path in unpacked] == ["bottle"]


def test_members_that_lead_out_of_the_folder_are_not_unpacked(tmp_path, manual, source):
    folder = layouts.kolektor_sdd(tmp_path / "a")
    members = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}
    manual.mkdir()
    evil = {"../../evil.jpg": b"", f"{tmp_path}/evil.jpg": b""}
    layouts.zip_of(manual / "KolektorSDD.zip", members | evil)
    assert len(source("kolektor_sdd", config="").train) == 5
    assert not list(tmp_path.rglob("evil.jpg"))


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2 + 100])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 50] = bytes(byte ^ 255 for byte in content[middle : middle + 50])
    file.write_bytes(content)


def cut_between(file: Path) -> None:
    """Leaves whole members only, without the end mark."""
    with tarfile.open(file) as archive:
        kept = archive.getmembers()[7].offset
    file.write_bytes(file.read_bytes()[:kept])


def flip_header(file: Path) -> None:
    with tarfile.open(file) as archive:
        at = archive.getmembers()[7].offset
    content = bytearray(file.read_bytes())
    content[at + 4] ^= 255
    file.write_bytes(content)


def spoil_in_zip(file: Path) -> None:
    """The first file in it begins with a block of a type that there is not."""
    with zipfile.ZipFile(file) as archive:
        member = next(info for info in archive.infolist() if not info.is_dir())
    content = bytearray(file.read_bytes())
    content[member.header_offset + 30 + len(member.filename)] = 255
    file.write_bytes(content)


def set_in_zip(file: Path, *, field: int, value: int) -> None:
    """Sets a 16-bit field of every member, at this offset of the local header."""
    content = bytearray(file.read_bytes())
    for signature, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
        start = content.find(signature)
        while start >= 0:
            at = start + field + shift
            content[at : at + 2] = value.to_bytes(2, "little")
            start = content.find(signature, start + 4)
    file.write_bytes(content)


@pytest.mark.parametrize(
    "suffix, damage",
    [
        *((suffix, cut) for suffix in (".zip", ".tar", ".tar.gz", ".tar.xz")),
        *((suffix, flip) for suffix in (".zip", ".tar.gz", ".tar.xz")),
        *((s, lambda f: f.write_text("<p>Log in</p>" * 99)) for s in (".zip", ".tar", ".tar.xz")),
        (".tar", cut_between),
        (".tar", flip_header),
        (".zip", spoil_in_zip),
        (".zip", partial(set_in_zip, field=6, value=1)),  # a password
        (".zip", partial(set_in_zip, field=8, value=9)),  # Deflate64
    ],
)
def test_a_damaged_archive_is_named(source, manual, tmp_path, suffix, damage):
    file = layouts.packed(layouts.kolektor_sdd(tmp_path / "a"), manual / f"KolektorSDD{suffix}")
    damage(file)
    with pytest.raises(UserError, match=f"^{file}: cannot be unpacked .* fetch it again"):
        source("kolektor_sdd", config="")
    assert not list((tmp_path / "prepared").rglob("*.array_record*"))


@pytest.mark.parametrize("suffix", [".zip", ".tar.xz"])
def test_an_archive_of_another_set_is_named(source, manual, tmp_path, suffix):
    file = layouts.packed(layouts.mvtec_ad(tmp_path / "a"), manual / f"KolektorSDD{suffix}")
    with pytest.raises(UserError, match=f"^{file}: has no folders kos01"):
        source("kolektor_sdd", config="")
