"""Special PNG files: one transparent colour, and 16 bits in several channels."""

import struct

import imagecodecs
import numpy as np
import pytest
from helpers.png_files import GRAY, PALETTE, RGB, chunk, odd_transparency, png, with_clear_colour

from recon_ad.data import png as of_png
from recon_ad.data.decode import decode_image, decode_mask, image_size
from recon_ad.errors import UserError


@pytest.mark.parametrize(
    ("depth", "colour"), [*((depth, GRAY) for depth in (1, 2, 4, 8, 16)), (8, RGB), (16, RGB)]
)
def test_the_transparent_colour_is_black_and_no_other_is(tmp_path, depth, colour):
    content, expected = with_clear_colour(depth, colour)
    (tmp_path / "a.png").write_bytes(content)
    got = decode_image(tmp_path / "a.png")
    np.testing.assert_array_equal(got, expected, strict=True)
    assert depth == 1 or got.any()
    got[0, 0] = 1  # the caller's own, writable array
    assert not decode_mask(tmp_path / "a.png")[:, ::3].any()


ODD = odd_transparency()


@pytest.mark.parametrize("name", ODD)
def test_transparency_that_does_not_fit_is_refused(tmp_path, name):
    content, words = ODD[name]
    (tmp_path / "a.png").write_bytes(content)
    for read in (decode_image, decode_mask, image_size):
        with pytest.raises(UserError, match=f"chunk tRNS, its transparency: {words}"):
            read(tmp_path / "a.png")


COLOURS = chunk(b"PLTE", bytes([10, 10, 10, 200, 200, 200]))
HEADER = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, GRAY, 0, 0, 0))
MISPLACED = {
    "no palette": (PALETTE, b"", "chunk PLTE, its palette: it is missing"),
    "an empty palette": (PALETTE, chunk(b"PLTE", b""), "0 bytes are not 1 to 256 colours"),
    "half a colour": (PALETTE, chunk(b"PLTE", bytes(4)), "4 bytes are not 1 to 256 colours"),
    "two palettes": (PALETTE, 2 * COLOURS, "chunk PLTE, its palette: it occurs twice"),
    "two headers": (GRAY, HEADER, "chunk IHDR, its header: it has to be the first"),
    "an unknown chunk": (GRAY, chunk(b"CgBI", bytes(4)), "chunk CgBI: it is unknown"),
}


@pytest.mark.parametrize("name", MISPLACED)
def test_chunks_that_libpng_refuses_are_refused(tmp_path, name):
    colour, before, words = MISPLACED[name]
    content = png(2, 1, 8, colour, b"\0\0\1", before=before)
    with pytest.raises((imagecodecs.PngError, ValueError)):  # its text may be another error's
        imagecodecs.png_decode(content)
    (tmp_path / "a.png").write_bytes(content)
    for read in (decode_image, decode_mask, image_size):
        with pytest.raises(UserError, match=words):
            read(tmp_path / "a.png")


def test_a_text_before_the_header_is_refused(tmp_path):
    content = png(2, 1, 8, GRAY, b"\0\0\1")
    (tmp_path / "a.png").write_bytes(content[:8] + chunk(b"tEXt", b"a\0b") + content[8:])
    with pytest.raises(UserError, match="chunk IHDR, its header: it has to be the first"):
        decode_image(tmp_path / "a.png")


def test_a_file_without_pixels_is_refused(tmp_path):
    content = png(2, 1, 8, GRAY, b"\0\0\1")
    pixels = content[33 : -len(chunk(b"IEND", b""))]
    (tmp_path / "a.png").write_bytes(content.replace(pixels, b""))
    with pytest.raises(UserError, match="cannot be decoded"):
        decode_image(tmp_path / "a.png")


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


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_numbers_beyond_the_palette_are_refused(tmp_path, suffix):
    entries = chunk(b"PLTE", bytes([10, 20, 30, 200, 100, 200]))
    for top in (1, 2, 255):
        file = tmp_path / f"{top}{suffix}"
        if suffix == ".png":
            file.write_bytes(png(3, 1, 8, PALETTE, bytes([0, 0, 1, top]), before=entries))
        else:
            head = struct.pack(
                "<2sIIIIiiHHIIiiII", b"BM", 66, 0, 62, 40, 3, 1, 1, 8, 0, 4, 0, 0, 2, 0
            )
            colours = bytes([30, 20, 10, 0, 200, 100, 200, 0])
            file.write_bytes(head + colours + bytes([0, 1, top, 0]))
        if top == 1:
            assert decode_image(file)[0].tolist() == [[10, 20, 30]] + 2 * [[200, 100, 200]]
            continue
        for read in (decode_image, decode_mask):
            with pytest.raises(UserError, match=f"palette has 2 colours, and .* number {top}"):
                read(file)


def test_16_bits_in_several_channels_wider_than_libpng_takes_are_told(tmp_path):
    for width in (of_png.MAX_SIDE, of_png.MAX_SIDE + 1):
        rows = b"\0" + bytes(6 * width - 1) + b"\1"
        (tmp_path / f"{width}.png").write_bytes(png(width, 1, 16, RGB, rows))
    image = decode_image(tmp_path / f"{of_png.MAX_SIDE}.png")
    assert image.shape == (1, of_png.MAX_SIDE, 3) and image[0, -1].tolist() == [0, 0, 1]
    for read in (decode_image, image_size):
        with pytest.raises(UserError, match=r"has 1000001 × 1 pixels of 16 bits .* cut it"):
            read(tmp_path / f"{of_png.MAX_SIDE + 1}.png")
    gray = png(of_png.MAX_SIDE + 1, 1, 16, GRAY, bytes(2 * of_png.MAX_SIDE + 3))
    (tmp_path / "gray.png").write_bytes(gray)
    assert image_size(tmp_path / "gray.png") == (1, of_png.MAX_SIDE + 1)
