"""Decoding: exact arrays for every format, and one clear sentence for whatever cannot be read."""

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from recon_ad.data.arrays import to_unit
from recon_ad.data.decode import MAX_PIXELS, decode_image, decode_mask, image_size
from recon_ad.errors import UserError

RNG = np.random.default_rng(0)  # of these constants only
GRAY = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
RGB = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (13, 17), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
FLOATS = RNG.random((13, 17, 3)).astype(np.float32)
LOSSLESS = [
    ("a.png", {}),
    ("a.bmp", {}),
    ("a.tif", {}),
    ("a.tiff", {"compression": "tiff_lzw"}),
    ("a.TIF", {"compression": "tiff_deflate"}),
]


def save(path: Path, image: np.ndarray | Image.Image, **options) -> Path:
    if path.suffix == ".npy":
        np.save(path, image, **options)
        return path
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image.save(path, **options)
    return path


def save_by_opencv(path: Path, pixels: np.ndarray) -> Path:
    """Writes 16 bits or floats in several channels, which Pillow cannot."""
    path.write_bytes(cv2.imencode(path.suffix, pixels[..., [2, 1, 0, 3][: pixels.shape[2]]])[1])
    return path


def refused(path: Path, reason: str, decode=decode_image, **options) -> None:
    """Asks for one sentence that begins with the path and gives the reason."""
    with pytest.raises(UserError, match=reason) as caught:
        decode(path, **options)
    assert re.match(f"{re.escape(str(path))}(: | has | holds )", str(caught.value))
    assert "\n" not in str(caught.value)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, text: bytes = b"") -> bytes:
    """A PNG by hand, for what Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text)) if text else b""
    body = (
        chunk(b"IHDR", header) + comment + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("name, options", LOSSLESS)
@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_lossless_formats_decode_to_the_exact_array(tmp_path, name, options, pixels):
    file = save(tmp_path / name, pixels, **options)
    got = decode_image(file)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, pixels.reshape(13, 17, -1))
    assert image_size(str(file)) == (13, 17)
    got[0, 0] = 0  # the caller's own, writable array


@pytest.mark.parametrize("pixels", [GRAY, RGB], ids=["gray", "rgb"])
def test_jpeg_decodes_to_what_its_decoder_gives(tmp_path, pixels):
    smooth = np.kron(pixels, np.ones((8, 8, 1)[: pixels.ndim], np.uint8))
    file = save(tmp_path / "a.JPG", smooth, quality=95, format="JPEG")
    got = decode_image(file)
    np.testing.assert_array_equal(got, np.asarray(Image.open(file)).reshape(got.shape))
    # Colour is stored at half the resolution, so only gray comes back nearly as it was.
    if pixels.ndim == 2:
        assert np.abs(got[..., 0].astype(int) - smooth).max() < 30


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_one_bit_images_decode_to_black_and_white(tmp_path, name):
    file = save(tmp_path / name, Image.fromarray(GRAY > 127))
    np.testing.assert_array_equal(decode_image(file)[..., 0], np.where(GRAY > 127, 255, 0))


def test_gray_becomes_rgb_by_repetition_and_rgb_gray_by_luma(tmp_path):
    gray, rgb = save(tmp_path / "gray.png", GRAY), save(tmp_path / "rgb.png", RGB)
    np.testing.assert_array_equal(decode_image(gray, channels=3), np.stack([GRAY] * 3, -1))
    np.testing.assert_array_equal(decode_image(gray, channels=1)[..., 0], GRAY)
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(decode_image(rgb, channels=1), luma[..., None], atol=0.51)
    np.testing.assert_array_equal(decode_image(rgb, channels=3), RGB)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path, name, orientation):
    stored = np.zeros((16, 48), np.uint8)
    stored[:8, :24] = 255  # the quadrant that a viewer shows elsewhere
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = save(tmp_path / name, stored, exif=exif)
    # EXIF 2.32, tag 274: where the stored row 0 and column 0 are to be shown.
    shown = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.T,
        6: stored[::-1].T,
        7: stored[::-1, ::-1].T,
        8: stored[:, ::-1].T,
    }[orientation]
    got = decode_image(file)[..., 0]
    np.testing.assert_array_equal(got > 127, shown > 127)
    assert image_size(file) == shown.shape


@pytest.mark.parametrize("size", [(3672, 5496), (20, 20000), (1, 1)])
def test_extreme_sizes_decode(tmp_path, size):
    file = save(tmp_path / "a.png", np.full(size, 7, np.uint8), compress_level=1)
    got = decode_image(file)
    assert got.shape == (*size, 1) and got.min() == got.max() == 7


def test_an_image_beyond_pillows_own_limit_gives_no_warning(tmp_path):
    # 100 megapixels: Pillow alone would warn, which is an error here.
    file = tmp_path / "a.png"
    file.write_bytes(png(10000, 10000, 1, 0, b""))
    assert image_size(file) == (10000, 10000)


ODD_EXIF = """
import sys, warnings
from PIL import Image
from recon_ad.data.decode import decode_image
print(decode_image(sys.argv[1]).shape)
print("alone", file=sys.stderr, flush=True)
warnings.resetwarnings()
Image.open(sys.argv[1]).getexif()
"""


def test_odd_exif_fields_print_nothing(tmp_path):
    # In a process of its own, since pytest replaces the warning filters.
    broken = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\0\0\0\x1a\0\0\0\0\0\0\0"
    file = save(tmp_path / "a.jpg", GRAY, exif=broken)
    command = [sys.executable, "-c", ODD_EXIF, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed, by_pillow = done.stderr.split("alone\n")
    assert (done.stdout, printed) == ("(13, 17, 1)\n", "")
    assert "UserWarning" in by_pillow  # else this file tests nothing


def encoded(name: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.kron(RGB, np.ones((8, 8, 1), np.uint8))).save(buffer, name, **options)
    return buffer.getvalue()


BROKEN = {
    "zero.png": (b"", "0 bytes"),
    "text.png": (b"this is a text, not an image\n" * 20, "not an image"),
    "short.png": (encoded("PNG")[:400], "truncated"),
    "short.jpg": (encoded("JPEG")[:1500], "truncated"),
    "short.bmp": (encoded("BMP")[:4000], "truncated"),
    "short.tif": (encoded("TIFF")[:4000], "truncated"),
    "noise.png": (encoded("PNG")[:100] + b"\xaa" * 5000, "cannot be decoded"),
    "bomb.png": (png(2, 1, 8, 0, bytes(3), bytes(2**21)), "cannot be decoded"),
    "huge.png": (png(2**20, 2**20, 8, 0, b""), "cannot be decoded"),
    "large.png": (png(MAX_PIXELS // 1024, 1025, 8, 0, b""), "pixels, more than"),
}


@pytest.mark.parametrize("name", BROKEN)
# Between one and two gigapixels Pillow warns before the limit is looked at.
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_broken_files_are_named_in_one_sentence(tmp_path, name):
    data, reason = BROKEN[name]
    file = tmp_path / name
    file.write_bytes(data)
    for decode in (decode_image, decode_mask):
        refused(file, reason, decode)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore")  # decode's own filter, which pytest replaces
def test_damaged_files_decode_or_are_named_and_nothing_else(tmp_path, name):
    rng = np.random.default_rng(0)
    whole = np.frombuffer(encoded(name), np.uint8)
    named = 0
    for _ in range(100):
        data = whole.copy()
        data[rng.integers(0, min(len(data), 300), 3)] = rng.integers(0, 256, 3)
        file = tmp_path / "damaged"
        file.write_bytes(data.tobytes())
        try:
            decode_image(file)
        except UserError as error:
            assert str(error).startswith(f"{file}: ")
            named += 1
    assert named > 10


@pytest.mark.parametrize("decode", [decode_image, image_size])
def test_what_is_no_file_is_named(tmp_path, decode):
    refused(tmp_path / "gone.png", "there is no such file", decode)
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png", "is a folder with the name of an image", decode)
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    refused(tmp_path / "link.png", r"is a link to .*gone\.png, which does not", decode)
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "is not a regular file", decode)


def colour(mode: str) -> Image.Image:
    return Image.fromarray(RGB).convert(mode)


UNSUPPORTED = {
    "cmyk.jpg": (colour("CMYK"), "a CMYK image"),
    "lab.tif": (colour("LAB"), "a CIELAB image"),
    "wide.tif": (Image.fromarray(GRAY.astype(np.int32)), "an image of 32-bit integers"),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_pixels_are_named_and_not_converted(tmp_path, name):
    image, what = UNSUPPORTED[name]
    file = save(tmp_path / name, image)
    for channels in (None, 1, 3):
        refused(file, f"{what}.* save it as", channels=channels)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "swapped.tif", "alpha.png"])
def test_sixteen_bit_gray_keeps_all_bits(tmp_path, name):
    file = tmp_path / name
    if name == "swapped.tif":  # the other byte order
        save(file, Image.frombytes("I;16B", (17, 13), DEEP.astype(">u2").tobytes()))
    elif name == "alpha.png":  # opaque, and gray all the same
        pixels = np.dstack([DEEP, np.full_like(DEEP, 65535)]).astype(">u2")
        file.write_bytes(png(17, 13, 16, 4, b"".join(b"\0" + row.tobytes() for row in pixels)))
    else:
        save(file, DEEP)
    got = decode_image(file)
    assert got.dtype == np.uint16 and got.dtype.isnative and got.shape[2] == 1
    np.testing.assert_array_equal(got[..., 0], DEEP)
    np.testing.assert_array_equal(decode_image(file, channels=3), np.stack([DEEP] * 3, -1))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.filterwarnings("ignore")  # decode's own filter, which pytest replaces
def test_sixteen_bit_colour_keeps_all_bits_although_pillow_would_halve_them(tmp_path, suffix):
    file = save_by_opencv(tmp_path / f"a{suffix}", DEEP_RGB)
    got = decode_image(file)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, DEEP_RGB)
    luma = DEEP_RGB @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(decode_image(file, channels=1)[..., 0], luma, atol=0.51)
    assert image_size(file) == (13, 17)
    file.write_bytes(file.read_bytes()[:-300])
    refused(file, r"truncated|be decoded")


def test_sixteen_bit_png_by_hand(tmp_path):
    file = tmp_path / "deep.png"
    file.write_bytes(png(2, 1, 16, 2, b"\0" + bytes(range(12))))
    np.testing.assert_array_equal(
        decode_image(file), np.arange(12, dtype=np.uint8).view(">u2").reshape(1, 2, 3)
    )


def test_sixteen_bit_transparency_is_laid_over_black(tmp_path):
    alpha = np.full((13, 17, 1), 65535, np.uint16)
    alpha[:5] = 32768
    file = save_by_opencv(tmp_path / "a.png", np.concatenate([DEEP_RGB, alpha], axis=-1))
    np.testing.assert_allclose(decode_image(file), DEEP_RGB * (alpha / 65535), atol=0.51)


@pytest.mark.filterwarnings("ignore")  # as above
def test_floating_point_tiff_is_read_as_it_is(tmp_path):
    gray = save(tmp_path / "gray.tif", FLOATS[..., 0])
    np.testing.assert_array_equal(decode_image(gray)[..., 0], FLOATS[..., 0])
    colour = save_by_opencv(tmp_path / "colour.tif", FLOATS)
    np.testing.assert_array_equal(decode_image(colour), FLOATS)
    assert image_size(colour) == (13, 17)
    colour.write_bytes(colour.read_bytes()[:-200])
    refused(colour, "not an image that can be decoded")


@pytest.mark.parametrize("value, reason", [(np.nan, "NaN or infinite"), (1.5, "outside the range")])
def test_floats_that_are_no_intensities_are_named(tmp_path, value, reason):
    wrong = FLOATS[..., 0].copy()
    wrong[3, 4] = value
    for name in ("a.tif", "a.npy"):
        refused(save(tmp_path / name, wrong), reason)


def test_an_input_range_says_what_black_and_white_are(tmp_path):
    twelve = DEEP // 16
    file = save(tmp_path / "a.png", twelve)
    got = decode_image(file, input_range=(0, 4095))
    assert got.dtype == np.uint16
    np.testing.assert_allclose(to_unit(got)[..., 0], twelve / 4095, atol=0.51 / 65535)
    refused(file, "outside the range from 0 to 255", input_range=(0, 255))
    scaled = save(tmp_path / "a.tif", FLOATS[..., 0] * 20 - 10)
    got = decode_image(scaled, input_range=(-10, 10))
    np.testing.assert_allclose(got[..., 0], FLOATS[..., 0], atol=1e-6)
    wide = save(tmp_path / "wide.npy", twelve.astype(np.int32))
    refused(wide, "says nothing of black and white")
    got = decode_image(wide, input_range=(0, 4095))
    np.testing.assert_array_equal(got, decode_image(file, input_range=(0, 4095)))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_transparency_is_laid_over_black(tmp_path, name):
    rgba = save(tmp_path / name, np.dstack([RGB, ALPHA]))
    np.testing.assert_allclose(decode_image(rgba), RGB * (ALPHA[..., None] / 255), atol=0.51)
    opaque = save(tmp_path / f"o{name}", np.dstack([RGB, np.full_like(ALPHA, 255)]))
    np.testing.assert_array_equal(decode_image(opaque), RGB)
    gray = save(tmp_path / "la.png", Image.fromarray(np.dstack([GRAY, ALPHA])))
    np.testing.assert_allclose(decode_image(gray)[..., 0], GRAY * (ALPHA / 255), atol=0.51)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_a_palette_becomes_its_colours(tmp_path, name):
    picture = colour("P")
    file = save(tmp_path / name, picture)
    np.testing.assert_array_equal(decode_image(file), np.asarray(picture.convert("RGB")))


def test_a_gray_palette_is_gray_and_transparency_in_it_counts(tmp_path):
    picture = Image.fromarray(GRAY // 2, "P")
    picture.putpalette([2 * level for level in range(128) for _ in range(3)])
    file = save(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(decode_image(file)[..., 0], GRAY // 2 * 2)
    assert decode_image(file).shape[2] == 1
    file = save(tmp_path / "b.png", picture, transparency=0)
    np.testing.assert_array_equal(decode_image(file)[..., 0], GRAY // 2 * 2)


@pytest.mark.parametrize("pages", [FLOATS.reshape(3, 13, 17), RGB.reshape(3, 13, 17)[:2]])
def test_a_gray_page_for_each_channel(tmp_path, pages):
    first, *others = [Image.fromarray(page) for page in pages]
    pixels = np.moveaxis(pages, 0, 2)
    tif = save(tmp_path / "a.tif", first, save_all=True, append_images=others)
    for file in (tif, save(tmp_path / "a.npy", pixels)):
        np.testing.assert_array_equal(decode_image(file), pixels)
        assert image_size(file) == pixels.shape[:2]
    refused(tif, f"has {len(pages)} channels and not 4", channels=4)
    if len(pages) == 2:
        refused(tif, "has 2 channels and not 3", channels=3)
    five = save(tmp_path / "five.npy", np.zeros((8, 9, 5), np.uint8))
    refused(five, "has 5 channels and not 3", channels=3)


@pytest.mark.parametrize(
    "name, first, other, reason",
    [
        ("a.png", GRAY, GRAY[::-1], "holds 2 pages"),
        ("a.tif", RGB, RGB, "holds 2 pages"),
        ("b.tif", GRAY, GRAY[:5], "its pages differ in size or kind"),
    ],
)
def test_pages_that_are_no_channels_are_refused(tmp_path, name, first, other, reason):
    refused(
        save(tmp_path / name, first, save_all=True, append_images=[Image.fromarray(other)]), reason
    )


@pytest.mark.parametrize(
    "array, reason",
    [
        (np.zeros((3, 4, 5, 6), np.uint8), "holds an array"),
        (np.zeros((0, 4), np.uint8), "holds an array"),
        (np.zeros((4, 5), complex), "holds an array"),
        (np.zeros((3, 100, 200), np.uint8), "channels last"),
    ],
)
def test_arrays_that_are_no_images_are_named(tmp_path, array, reason):
    refused(save(tmp_path / "a.npy", array), reason)


def test_a_pickled_or_truncated_array_is_not_opened(tmp_path):
    pickled = save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    refused(pickled, "cannot be decoded .*Python objects")
    short = save(tmp_path / "b.npy", GRAY)
    short.write_bytes(short.read_bytes()[:-5])
    refused(short, "cannot be decoded")


def test_a_format_and_channels_that_are_not_supported_are_named(tmp_path):
    refused(save(tmp_path / "a.gif", GRAY), r"PNG, JPEG, TIFF, BMP or \.npy")
    file = save(tmp_path / "a.png", GRAY)
    refused(file, "has 1 channels and not 4", channels=4)
    with pytest.raises(UserError, match="channels is 0"):
        decode_image(file, channels=0)


MASK = np.zeros((16, 16), bool)
MASK[4:12, 8:] = True


@pytest.mark.parametrize(
    "levels, expected",
    [
        (MASK * np.uint8(255), MASK),
        (MASK * np.uint8(1), MASK),
        (MASK * np.uint8(200) + np.uint8(20), MASK),  # noise on the ground
        (np.where(MASK, np.uint8(3), np.uint8(0)) - MASK.T * MASK * np.uint8(2), MASK),  # 2 labels
        (np.stack([MASK * np.uint8(255), MASK * np.uint8(0), MASK * np.uint8(0)], -1), MASK),
        (np.stack([MASK & MASK.T, MASK & False, MASK & ~MASK.T], -1) * np.uint8(128), MASK),
        (MASK * np.uint16(65535), MASK),
        (np.zeros((16, 16), np.uint8), np.zeros((16, 16), bool)),
        (np.full((16, 16), 255, np.uint8), np.ones((16, 16), bool)),
        (MASK, MASK),
    ],
    ids=["0-255", "0-1", "noisy", "labels", "red", "colours", "deep", "empty", "full", "1 bit"],
)
def test_masks_are_binary_whatever_their_levels(tmp_path, levels, expected):
    got = decode_mask(save(tmp_path / "a.png", levels))
    assert got.dtype == bool
    np.testing.assert_array_equal(got, expected)


def test_in_a_palette_mask_whatever_is_not_black_is_marked(tmp_path):
    picture = Image.fromarray((MASK * np.uint8(1)) + MASK.T * MASK * np.uint8(1), "P")
    picture.putpalette([0, 0, 0, 0, 0, 60, 250, 250, 250])
    np.testing.assert_array_equal(decode_mask(save(tmp_path / "a.png", picture)), MASK)


@pytest.mark.parametrize("mask", [MASK, np.zeros_like(MASK)], ids=["defect", "empty"])
def test_jpeg_noise_in_a_mask_is_no_defect(tmp_path, mask):
    noise = np.random.default_rng(0).integers(0, 4, mask.shape, dtype=np.uint8)
    noisy = mask * np.uint8(250) + noise
    np.testing.assert_array_equal(decode_mask(save(tmp_path / "a.jpg", noisy, quality=95)), mask)


def test_real_images_decode(real_data):
    sizes = {
        "nanotwice/nanofibres/train/good/ITIA1141.png": (700, 1024, 1),
        "mvtec_ad/grid/test/bent/000.png": (512, 512, 1),
        "bsdata/ball_screw/train/good/01_200828110014_277500_315_crop_2.jpg": (460, 1130, 3),
    }
    for name, shape in sizes.items():
        assert decode_image(real_data / name).shape == shape
        assert image_size(real_data / name) == shape[:2]


def test_white_stays_white_in_every_type(tmp_path):
    for white, input_range in ((1.0, None), (np.float32(4095), (0, 4095)), (4095, (0, 4095))):
        file = save(tmp_path / "a.npy", np.full((64, 65, 3), white))
        got = decode_image(file, channels=1, input_range=input_range)
        assert to_unit(got).min() == 1 and got.shape == (64, 65, 1)


def test_arrays_of_other_byte_orders_and_widths_keep_their_values(tmp_path):
    def decoded(array, input_range=None):
        return decode_image(save(tmp_path / "a.npy", array), input_range=input_range)[..., 0]

    np.testing.assert_array_equal(decoded(DEEP.astype(">u2")), DEEP)
    half = np.array([[0, 1000, 60000]], np.float16)
    expected = half.astype(float) / 70000
    np.testing.assert_allclose(decoded(half, (0, 70000)), expected, atol=1e-6)
    wide = np.array([[0, 25, 50, 75, 100]], np.int32) + 2**30
    steps = decoded(wide, (2**30, 2**30 + 100))
    np.testing.assert_array_equal(steps, [[0, 16384, 32768, 49151, 65535]])
    third = np.linspace(-0.1, 0.2, 1000).reshape(10, 100)
    scaled = decoded(third, (-0.1, 0.2))
    assert scaled.min() >= 0 and scaled.max() <= 1
