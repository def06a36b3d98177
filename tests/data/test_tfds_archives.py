"""Downloaded archives give the same as their folders; damaged ones are reported by name."""

import re
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
from helpers import layouts
from helpers.sources import assert_same

from recon_ad.data.tfds_builders import BUILDERS, base
from recon_ad.data.tfds_source import tfds_source
from recon_ad.errors import UserError


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.xz"])
@pytest.mark.parametrize(
    "name, config, archive, top",
    [
        ("mvtec_ad", "bottle", "mvtec_anomaly_detection", ""),
        ("mvtec_ad", "bottle", "bottle", "bottle"),
        ("visa", "candle", "VisA_20220922", ""),
        ("kolektor_sdd", "", "KolektorSDD", ""),
        ("nanotwice", "", "dfg05er_Data", ""),
    ],
)
def test_archives_give_what_their_folders_give(
    tmp_path, manual, name, config, archive, top, suffix
):
    archive += suffix
    folder = getattr(layouts, name)(tmp_path / "unpacked")
    layouts.packed(folder / top, manual / archive)
    read = partial(tfds_source, name, config=config)
    packed = read(data_dir=tmp_path / "a", manual_dir=manual)
    plain = read(data_dir=tmp_path / "b", manual_dir=folder)
    assert_same(packed, plain)
    assert [p.name for p in manual.iterdir()] == [archive]
    # Neither the unpacked files nor TFDS's unfinished work is left.
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
    manual.mkdir()
    with zipfile.ZipFile(manual / "KolektorSDD.zip", "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder))
        for evil in ("../../evil.jpg", f"{tmp_path}/evil.jpg"):
            archive.writestr(evil, b"")
    assert len(source("kolektor_sdd", config="").train) == 5
    assert not list(tmp_path.rglob("evil.jpg"))


def flip(file: Path, at: int | None = None, count: int = 50) -> None:
    """Invert bytes, in the middle by default."""
    content = bytearray(file.read_bytes())
    at = len(content) // 2 if at is None else at
    content[at : at + count] = bytes(byte ^ 255 for byte in content[at : at + count])
    file.write_bytes(content)


def header(file: Path) -> int:
    """Return the position of the header of the eighth member of a .tar."""
    with tarfile.open(file) as archive:
        return archive.getmembers()[7].offset


def content_in_zip(file: Path) -> int:
    """Return the position of the first file's content in a .zip."""
    with zipfile.ZipFile(file) as archive:
        member = next(info for info in archive.infolist() if not info.is_dir())
    return member.header_offset + 30 + len(member.filename)


def set_in_zip(file: Path, flags: int, method: int) -> None:
    """Set fields in every member's headers."""
    headers = re.compile(rb"(PK\x03\x04..|PK\x01\x02....)....", re.DOTALL)
    file.write_bytes(headers.sub(lambda h: h[1] + bytes([flags, 0, method, 0]), file.read_bytes()))


@pytest.mark.parametrize(
    "suffix, damage",
    [
        *((suffix, layouts.cut) for suffix in (".zip", ".tar", ".tar.gz", ".tar.xz")),
        *((suffix, flip) for suffix in (".zip", ".tar.gz", ".tar.xz")),
        *((s, lambda f: f.write_text("<p>Log in</p>" * 99)) for s in (".zip", ".tar", ".tar.xz")),
        (".tar", lambda f: f.write_bytes(f.read_bytes()[: header(f)])),  # whole members, no end
        (".tar", lambda f: flip(f, header(f) + 4, 1)),
        (".zip", lambda f: flip(f, content_in_zip(f), 1)),  # an invalid block
        (".zip", partial(set_in_zip, flags=1, method=8)),  # a password
        (".zip", partial(set_in_zip, flags=0, method=9)),  # Deflate64
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
