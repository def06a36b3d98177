"""Files of very many small pieces are refused at once, and long files are not."""

import struct
import zlib

import numpy as np
import pytest
import tifffile
from helpers.png_files import chunk
from PIL import Image

from recon_ad.data import jpeg, tiff, tiff_tags
from recon_ad.data.decode import decode_image
from recon_ad.errors import UserError


def saved(file):
    """Write an image of noise in the format of the suffix."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 17), np.uint8)).save(file)
    return file


@pytest.mark.parametrize(
    ("suffix", "piece", "at"),
    [
        (".png", chunk(b"prIv", b""), 33),  # behind the header
        (".png", chunk(b"prIv", b""), -12),  # in front of the end
        (".jpg", b"\xff\xfe\x00\x02", 2),
        (".jpg", b"\xff\xfe\x00\x02", -2),
        (".jpg", b"\x00", 20),  # behind the first segment
    ],
)
def test_a_file_of_very_many_tiny_pieces_is_refused(tmp_path, suffix, piece, at):
    file = saved(tmp_path / f"a{suffix}")
    content, whole = file.read_bytes(), decode_image(file)
    file.write_bytes(content[:at] + 9_000 * piece + content[at:])
    np.testing.assert_array_equal(decode_image(file), whole)
    file.write_bytes(content[:at] + 20_000 * piece + content[at:])
    with pytest.raises(UserError, match=r"bytes consist of [0-9]{5} chunks or segments"):
        decode_image(file)


@pytest.mark.parametrize("kind", [b"iCCP", b"iTXt", b"zTXt"])
def test_a_png_of_very_many_compressed_chunks_is_refused(tmp_path, kind):
    file = saved(tmp_path / "a.png")
    content, whole = file.read_bytes(), decode_image(file)
    packed = chunk(kind, b"a\0\0" + zlib.compress(b"text"))
    file.write_bytes(content[:-12] + 1000 * packed + content[-12:])
    np.testing.assert_array_equal(decode_image(file), whole)
    file.write_bytes(content[:-12] + 1001 * packed + content[-12:])
    with pytest.raises(UserError, match="more than 1000 chunks iCCP, iTXt and zTXt"):
        decode_image(file)


def test_segments_behind_a_marker_without_a_length_count(tmp_path):
    file = saved(tmp_path / "a.jpg")
    content, whole = file.read_bytes(), decode_image(file)
    comments = 16_383 * b"\xff\xfe\0\2" + b"\xff\0"  # 0xFFFE bytes, were that a length
    for marker in (b"\xff\xd9", b"\xff\xf0"):
        file.write_bytes(content[:2] + marker + comments + content[2:])
        with pytest.raises(UserError, match="consist of 10001 chunks or segments"):
            decode_image(file)
    exif = b"\xff\xe1\0\x16Exif\0\0II*\0\x08" + bytes(9)  # of a directory without entries
    file.write_bytes(content[:2] + 256 * exif + content[2:])
    np.testing.assert_array_equal(decode_image(file), whole)
    file.write_bytes(content[:2] + 257 * exif + content[2:])
    with pytest.raises(UserError, match="more than 256 segments of Exif data"):
        decode_image(file)


def test_a_jpeg_of_thousands_of_scans_is_refused(tmp_path):
    file = tmp_path / "a.jpg"
    # Of one colour, so that to refine it once more needs no more bits.
    Image.new("RGB", (40, 24), (200, 90, 30)).save(file, progressive=True)
    content, whole = file.read_bytes(), decode_image(file)
    last = content.rfind(b"\xff\xda")
    file.write_bytes(content[:-2] + 20 * content[last:-2] + content[-2:])
    np.testing.assert_array_equal(decode_image(file), whole)
    file.write_bytes(content[:-2] + 2000 * content[last:-2] + content[-2:])
    with pytest.raises(UserError, match="it has more than 100 scans"):
        decode_image(file)
    # A comment that looks like scans, as a preview within the header does.
    comment = 200 * b"\xff\xda"
    segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    file.write_bytes(content[:2] + segment + content[2:])
    np.testing.assert_array_equal(decode_image(file), whole)


def test_a_large_jpeg_has_fewer_scans(tmp_path, monkeypatch):
    file = tmp_path / "a.jpg"
    Image.new("L", (24, 16)).save(file, progressive=True)  # 6 scans
    monkeypatch.setattr(jpeg, "MAX_SCANNED", 6 * 24 * 16)
    assert decode_image(file).shape == (16, 24, 1)
    monkeypatch.setattr(jpeg, "MAX_SCANNED", 6 * 24 * 16 - 1)
    with pytest.raises(UserError, match="it has more than 5 scans"):
        decode_image(file)


def test_a_jpeg_of_very_many_restart_intervals_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "a.jpg"
    Image.new("L", (8 * 3, 8 * 2)).save(file, restart_marker_blocks=1)
    monkeypatch.setattr(jpeg, "MAX_INTERVALS", 6)
    assert decode_image(file).shape == (16, 24, 1)
    monkeypatch.setattr(jpeg, "MAX_INTERVALS", 5)
    with pytest.raises(UserError, match="it has more than 5 restart intervals"):
        decode_image(file)


def test_a_jpeg_of_two_headers_is_refused(tmp_path):
    file = saved(tmp_path / "a.jpg")
    content = file.read_bytes()
    at = content.index(b"\xff\xc0")
    header = content[at : at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")]
    # Behind the pixels, where no decoder looks.
    file.write_bytes(content[:-2] + header + content[-2:])
    with pytest.raises(UserError, match="it has two headers"):
        decode_image(file)


def test_a_file_of_many_longer_pieces_is_decoded(tmp_path):
    file = saved(tmp_path / "a.png")
    content, whole = file.read_bytes(), decode_image(file)
    file.write_bytes(content[:33] + 20_000 * chunk(b"prIv", bytes(256)) + content[33:])
    np.testing.assert_array_equal(decode_image(file), whole)


def test_a_tiff_of_very_many_strips_or_values_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "a.tif"
    image = np.zeros((3, 17), np.uint8)
    with tifffile.TiffWriter(file) as writer:
        for _ in range(2):  # a page for each channel
            writer.write(image, photometric="minisblack", rowsperstrip=1, metadata=None)
    monkeypatch.setattr(tiff, "MAX_SEGMENTS", 6)
    assert decode_image(file).shape == (3, 17, 2)
    monkeypatch.setattr(tiff, "MAX_SEGMENTS", 5)
    with pytest.raises(UserError, match="has 6 strips or tiles, more than the 5"):
        decode_image(file)
    monkeypatch.setattr(tiff, "MAX_SEGMENTS", 6)
    monkeypatch.setattr(tiff, "MAX_VALUES", 2 * image.size - 1)
    with pytest.raises(UserError, match="has 102 values in all samples of its pages, more than"):
        decode_image(file)
    monkeypatch.setattr(tiff_tags, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="tag StripOffsets makes its tags longer than 100 bytes"):
        decode_image(file)


def runs(width, height, content):
    """Return a gray BMP of run lengths."""
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(content), 0, 0, 256, 256)
    start = 14 + len(head) + len(palette)
    mark = b"BM" + struct.pack("<IHHI", start + len(content), 0, 0, start)
    return mark + head + palette + content


def test_a_bmp_of_run_lengths_is_decoded_and_no_gigapixel_is_promised(tmp_path):
    file = tmp_path / "a.bmp"
    end = b"\0\1"
    content = b"\2\7\1\5\0\0" + b"\1\3\2\4\0\0"  # from the lowest row on
    file.write_bytes(runs(3, 2, content + end))
    np.testing.assert_array_equal(decode_image(file)[..., 0], [[3, 4, 4], [7, 7, 5]])
    # Of lines that end at once, which Pillow fills pixel by pixel.
    file.write_bytes(runs(1 << 20, 1000, 1000 * b"\1\1\0\0" + end))
    with pytest.raises(UserError, match="with 1048576000 pixels, more than the 8388608"):
        decode_image(file)
    file.write_bytes(runs(3, 2, content + 1_000_000 * b"\0\0" + end))
    with pytest.raises(UserError, match="more run lengths than pixels"):
        decode_image(file)
