"""Image files that the C++ program does not read, or that take long: rows with Python's reasons."""

import struct
import zlib

import numpy as np
import pytest
from helpers.cpp import by_cpp, by_python, noise, same_rows
from helpers.jpegs import cut, renumbered, taller, without_interval, without_scans
from helpers.layouts import saved
from helpers.png_files import PALETTE, RGB, chunk, odd_transparency, png
from PIL import Image

pytestmark = pytest.mark.slow


UNREAD = {
    "bitmap.bmp": "is a BMP file",
    "floats.tif": "is a TIFF file",
    "array.npy": "is a .npy file",
    "print.jpg": "is a CMYK image",
    "bitmap_inside.png": "is a BMP file",
}


def test_formats_that_it_does_not_read_are_rows_with_a_sentence(program, model, tmp_path):
    folder, gray = tmp_path / "images", noise()[..., 0]
    saved(folder / "bitmap.bmp", gray)
    saved(folder / "bitmap_inside.png", gray, format="BMP")
    saved(folder / "floats.tif", gray / np.float32(255))
    np.save(folder / "array.npy", gray)
    saved(folder / "print.jpg", Image.fromarray(noise(channels=3)).convert("CMYK"))
    saved(folder / "good.png", gray)
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    assert ours.status == 3
    for path, says in UNREAD.items():
        row = ours.rows[path]
        assert row["error"].startswith(f"{folder / path}: {says}") and row["score"] == ""
    assert ours.rows["good.png"]["error"] == ""


def test_png_files_that_python_refuses_are_refused_by_the_same_sentence(program, model, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, (content, _) in odd_transparency().items():
        (folder / f"{name}.png").write_bytes(content)
    wide = 1_000_001
    (folder / "wide.png").write_bytes(png(wide, 1, 16, RGB, bytes(6 * wide + 1)))
    (folder / "high.png").write_bytes(png(1, wide, 16, RGB, bytes(7 * wide)))
    colours = chunk(b"PLTE", bytes(6))
    (folder / "palette.png").write_bytes(png(2, 1, 8, PALETTE, b"\0\1\7", before=colours))
    (folder / "kernel.png").symlink_to("/proc/kmsg")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    theirs = by_python(model, folder, tmp_path / "theirs")
    assert len(ours.rows) == len(odd_transparency()) + 5
    for name, row in theirs.rows.items():
        assert row["error"] and ours.rows[name]["error"] == row["error"]


def test_jpegs_that_end_early_are_refused_by_the_same_sentence(program, model, tmp_path):
    folder, count = tmp_path / "images", 0
    colour = noise(61, 83, 3)
    for options in ({}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}):
        for image in (colour, colour[..., 0]):
            content = saved(folder / f"{count}_good.jpg", image, **options).read_bytes()
            damaged = [cut(content, kept=kept) for kept in (0, 0.5, 0.9)]
            damaged += [content[: -2 - n] + content[-2:] for n in (20, 40)]
            damaged += [taller(content), content[:-2]]
            if "progressive" in options:
                damaged += [without_scans(content, left=left) for left in (1, 3)]
            if "restart_marker_rows" in options:
                damaged += [without_interval(content), renumbered(content)]
            for i, made in enumerate(damaged):
                (folder / f"{count}_{i}.jpg").write_bytes(made)
            count += 1
    arithmetic = (folder / "0_good.jpg").read_bytes().replace(b"\xff\xc0", b"\xff\xc9")
    (folder / "arithmetic.jpg").write_bytes(arithmetic)
    ours = by_cpp(program, model, folder, tmp_path / "ours")
    theirs = by_python(model, folder, tmp_path / "theirs")
    for name, row in theirs.rows.items():
        assert ours.rows[name]["error"] == row["error"]
        assert bool(row["error"]) is not name.endswith("_good.jpg")


ENOUGH = 6 << 30  # bytes of address space, most of them OpenVINO's, which it never uses


def test_small_files_that_take_long_are_the_rows_that_python_gives(program, model, tmp_path):
    folder, gray = tmp_path / "images", noise()[..., 0]
    exif = Image.Exif()
    exif[0x0112] = 6
    mark, header = b"Exif\0\0", exif.tobytes().removeprefix(b"Exif\0\0")
    png = saved(folder / "a.png", gray).read_bytes()
    jpegs = [saved(folder / "b.jpg", gray).read_bytes()]
    jpegs.append(saved(folder / "dpi.jpg", gray, dpi=(72, 72)).read_bytes())
    for marks in (0, 1, 2, 50000):
        content = mark * marks + header
        (folder / f"{marks}.png").write_bytes(png[:33] + chunk(b"eXIf", content) + png[33:])
        parts = [content[i : i + 60000] for i in range(0, len(content), 60000)]
        segments = [b"\xff\xe1" + struct.pack(">H", len(p) + 8) + mark + p for p in parts]
        for i, jpeg in enumerate(jpegs):
            # After the JFIF header, which must be the first segment.
            (folder / f"{marks}_{i}.jpg").write_bytes(jpeg[:20] + b"".join(segments) + jpeg[20:])
    jpeg = saved(folder / "c.jpg", gray, progressive=True).read_bytes()
    first = jpeg.index(b"\xff\xda")
    second = jpeg.index(b"\xff\xc4", first)  # the tables of the second scan
    for scans in (50, 150):
        repeated = jpeg[first:second] * scans
        (folder / f"{scans}_scans.jpg").write_bytes(jpeg[:first] + repeated + jpeg[second:])
    size = jpeg.index(b"\xff\xc2") + 5
    large = jpeg[:size] + struct.pack(">HH", 15_000, 15_000) + jpeg[size + 4 : first]
    comments = 8 * (b"\xff\xfe" + struct.pack(">H", 60_000) + bytes(59_998))  # as many pixels need
    scans = jpeg[first:second] * 50 + jpeg[second:]
    (folder / "large_scans.jpg").write_bytes(large + comments + scans)
    ours = by_cpp(program, model, folder, tmp_path / "ours", memory=ENOUGH)
    theirs = by_python(model, folder, tmp_path / "theirs")
    assert ours.status == theirs.status == 3
    same_rows(ours, theirs)
    errors = {path: row["error"] for path, row in ours.rows.items() if row["error"]}
    assert list(errors) == [
        "150_scans.jpg", "2.png", "2_1.jpg", "50000.png", "50000_1.jpg", "large_scans.jpg",
    ]  # fmt: skip
    for name, most in (("150_scans.jpg", 100), ("large_scans.jpg", 47)):
        assert (
            errors[name] == theirs.rows[name]["error"] and f"more than {most} scans" in errors[name]
        )


def test_a_header_that_promises_too_much_is_a_row_and_takes_no_memory(program, model, tmp_path):
    folder = tmp_path / "images"
    jpeg = saved(folder / "good.jpg", noise()[..., 0]).read_bytes()
    frame = jpeg.index(b"\xff\xc0") + 5
    (folder / "bomb.jpg").write_bytes(jpeg[:frame] + b"\x7f\xff" * 2 + jpeg[frame + 4 :])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1 << 15, 1 << 15, 16, 6, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (folder / "bomb.png").write_bytes(bomb)
    # Data that deflate shrinks most and a JPEG of one gray level have the smallest possible files.
    saved(folder / "black.png", np.zeros((1500, 1500), np.uint8))
    saved(folder / "black.jpg", np.zeros((1500, 1500), np.uint8), progressive=True, optimize=True)
    ours = by_cpp(program, model, folder, tmp_path / "ours", memory=ENOUGH)
    assert ours.status == 3, ours.error
    errors = {path: row["error"] for path, row in ours.rows.items() if row["error"]}
    assert list(errors) == ["bomb.jpg", "bomb.png"]
    assert all("(image file is truncated)" in error for error in errors.values())
