"""PNG files by hand: colours and entries of a palette that stand for transparency."""

import struct

import numpy as np
import pytest
from helpers.png_files import GRAY, RGB, chunk, png, with_clear_colour

from recon_ad.data.decode import decode_image, decode_mask


@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.parametrize(
    ("depth", "colour"), [*((depth, GRAY) for depth in (1, 2, 4, 8, 16)), (8, RGB), (16, RGB)]
)
def test_the_transparent_colour_is_black_and_no_other_is(tmp_path, depth, colour, beyond):
    content, expected = with_clear_colour(depth, colour, beyond=beyond * (depth < 16))
    (tmp_path / "a.png").write_bytes(content)
    got = decode_image(tmp_path / "a.png")
    np.testing.assert_array_equal(got, expected, strict=True)
    assert depth == 1 or got.any()
    got[0, 0] = 1  # the caller's own, writable array
    assert not decode_mask(tmp_path / "a.png")[:, ::3].any()


def test_a_transparent_colour_behind_the_pixels_says_nothing(tmp_path):
    content = png(2, 1, 8, GRAY, b"\0\5\7")
    end = chunk(b"IEND", b"")
    clear = chunk(b"tRNS", struct.pack(">H", 5))
    (tmp_path / "a.png").write_bytes(content.removesuffix(end) + clear + end)
    assert decode_image(tmp_path / "a.png")[0, :, 0].tolist() == [5, 7]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_entries_of_a_palette_have_alphas(tmp_path, depth):
    entries = chunk(b"PLTE", bytes([10, 10, 10, 200, 200, 200])) + chunk(b"tRNS", bytes([255, 51]))
    (tmp_path / "a.png").write_bytes(png(8 // depth, 1, depth, 3, b"\0\1", before=entries))
    assert decode_image(tmp_path / "a.png")[0, :, 0].tolist() == [10] * (8 // depth - 1) + [40]
