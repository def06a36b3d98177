"""Strips and tiles of a TIFF that hold more, or less, than its tags need."""

import time
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from recon_ad.data.decode import decode_image
from recon_ad.errors import UserError

GRAY = np.random.default_rng(0).integers(0, 256, (40, 56), np.uint8)
WORDS = GRAY.astype(np.uint16) * 257
ENCODERS = {
    "zlib": zlib.compress, "zstd": imagecodecs.zstd_encode,
    "packbits": imagecodecs.packbits_encode, "lzw": imagecodecs.lzw_encode,
}  # fmt: skip


def write(path, image, compression, contents, **options):
    options = {"photometric": "minisblack", "compression": compression, "metadata": None} | options
    tifffile.imwrite(path, iter(contents), shape=image.shape, dtype=image.dtype, **options)


@pytest.mark.parametrize("rows", [40, 16, 7])
@pytest.mark.parametrize("more", [1, 56, 5000])
@pytest.mark.parametrize("compression", ENCODERS)
def test_more_than_the_tags_need_is_left_out(compression, more, rows, tmp_path):
    parts = [GRAY[i : i + rows].tobytes() + bytes(more) for i in range(0, 40, rows)]
    encoded = [ENCODERS[compression](part) for part in parts]
    write(tmp_path / "a.tif", GRAY, compression, encoded, rowsperstrip=rows)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif")[..., 0], GRAY)


def test_a_large_flat_strip_with_padding_is_decoded_at_once(tmp_path):
    flat = np.zeros((3000, 3000), np.uint8)
    encoded = b"\x81\x00" * (flat.size // 128 + 2)  # 128 zeros at a time
    write(tmp_path / "a.tif", flat, "packbits", [encoded], rowsperstrip=3000)
    begin = time.process_time()
    assert np.array_equal(decode_image(tmp_path / "a.tif")[..., 0], flat)
    assert time.process_time() - begin < 20  # minutes if the time grows with the square of a run


@pytest.mark.parametrize("compression", ["zstd", "packbits"])
def test_a_strip_that_holds_far_too_much_is_named(compression, tmp_path):
    if compression == "zstd":
        encoded = ENCODERS["zstd"](GRAY.tobytes() + bytes(3 << 20))
    else:  # 128 zeros at a time, since imagecodecs needs minutes
        encoded = ENCODERS["packbits"](GRAY.tobytes()) + b"\x81\x00" * ((3 << 20) // 128)
    write(tmp_path / "a.tif", GRAY, compression, [encoded], rowsperstrip=40)
    with pytest.raises(UserError, match="more than twice what its tags need"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_padded_differences_of_words_are_decoded(compression, tmp_path):
    image, differences = WORDS, WORDS.copy()
    differences[:, 1:] -= image[:, :-1]
    encoded = ENCODERS[compression](differences.tobytes() + bytes(100))
    write(tmp_path / "a.tif", image, compression, [encoded], rowsperstrip=40, predictor=True)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif")[..., 0], image)


@pytest.mark.parametrize("compression", ["zlib", "zstd", "packbits"])
def test_padding_does_not_hide_a_strip_that_is_cut(compression, tmp_path):
    parts = [GRAY[:20].tobytes() + bytes(99), GRAY[20:39].tobytes()]
    encoded = [ENCODERS[compression](part) for part in parts]
    write(tmp_path / "a.tif", GRAY, compression, encoded, rowsperstrip=20)
    with pytest.raises(UserError, match="cannot be decoded"):
        decode_image(tmp_path / "a.tif")


def ccitt(path, data, image):
    """Write a TIFF with a strip of CCITT group 3."""
    options = {"rowsperstrip": image.shape[0], "extratags": [(65000, "H", 1, 1, True)]}
    write(path, image.astype(np.uint8), "zlib", [data], **options)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        tags["BitsPerSample"].overwrite(1)
        tags["Compression"].overwrite(3)


def test_group_3_that_is_cut_within_the_code_for_the_end_of_a_row_is_refused(tmp_path):
    rng, tried = np.random.default_rng(0), 0
    for density in (0.5, 0.1, 0.02):
        image = rng.random((9, 40)) < density
        image[-2:] = True  # rows that are missing become 0
        Image.fromarray(image).save(tmp_path / "a.tif", compression="group3")
        with tifffile.TiffFile(tmp_path / "a.tif") as file:
            (start,), (size,) = file.pages[0].dataoffsets, file.pages[0].databytecounts
        data = (tmp_path / "a.tif").read_bytes()[start : start + size]
        ccitt(tmp_path / "b.tif", data, image)
        np.testing.assert_array_equal(decode_image(tmp_path / "b.tif")[..., 0], image * 255)
        for kept in range(size // 2, size - 3):
            if not data[kept - 1]:  # within such a code
                ccitt(tmp_path / "b.tif", data[:kept], image)
                tried += 1
                with pytest.raises(UserError, match="CCITT ends early"):
                    decode_image(tmp_path / "b.tif")
    assert tried > 5
