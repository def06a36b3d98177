"""Decoding: exact arrays for every format, and a clear sentence for each unreadable file."""

import contextlib
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
from helpers.png_files import chunk, png
from PIL import Image

from recon_ad.data.arrays import to_unit
from recon_ad.data.decode import decode_image, decode_mask, image_size
from recon_ad.data.npy import MAGIC
from recon_ad.errors import UserError
from recon_ad.limits import MAX_PIXELS

RNG = np.random.default_rng(0)  # for these constants only
GRAY = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
RGB = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (13, 17), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
DEEP_ALPHA = np.full((13, 17), 65535, np.uint16)
DEEP_ALPHA[:5] = 32768
FLOATS = RNG.random((13, 17, 3)).astype(np.float32)
LARGE = np.kron(RGB, np.ones((8, 8, 1), np.uint8))


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    """Encode a file with OpenCV, which also writes 16 bits and floats in several channels."""
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return cv2.imencode(suffix, pixels)[1].tobytes()


def save(path: Path, content, **options) -> Path:
    """Write bytes unchanged, pixels in the format of the suffix, or a list of them as pages."""
    if path.suffix == ".npy" and not isinstance(content, bytes):
        np.save(path, content)
        return path
    if isinstance(content, np.ndarray) and content.ndim == 3 and content.dtype != np.uint8:
        content = encoded(path.suffix, content)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    if isinstance(content, list):
        content, *others = map(Image.fromarray, content)
        options = {"save_all": True, "append_images": others}
    picture = content if isinstance(content, Image.Image) else Image.fromarray(content)
    picture.save(path, **options)
    return path


def refused(path: Path, reason: str, decode=decode_image, **options) -> None:
    """Expect one sentence that begins with the path and gives the reason."""
    with pytest.raises(UserError, match=reason) as caught:
        decode(path, **options)
    assert re.match(f"{re.escape(str(path))}(: | has | holds )", str(caught.value))
    assert "\n" not in str(caught.value)


def palette(levels: np.ndarray, *colours: tuple[int, int, int], **info) -> Image.Image:
    picture = Image.fromarray(levels, "P")
    picture.putpalette([value for colour in colours for value in colour])
    picture.info |= info
    return picture


def colour(mode: str) -> Image.Image:
    return Image.fromarray(RGB).convert(mode)


HALF = GRAY // 2, *((2 * level,) * 3 for level in range(128))
ROWS_16 = np.dstack([DEEP, np.full_like(DEEP, 65535)]).astype(">u2")
# Name, stored array and expected array. If the latter is float64, it is rounded in the test.
DECODED = {
    "gray": ("a.png a.bmp a.tif a.TIF", GRAY, GRAY),
    "RGB": ("a.png a.bmp a.tif a.TIF", RGB, RGB),
    "1 bit": ("a.png a.bmp a.tif", Image.fromarray(GRAY > 127), np.uint8(255) * (GRAY > 127)),
    "16 bits": ("a.png a.tif a.npy", DEEP, DEEP),
    "big end first": ("a.npy", DEEP.astype(">u2"), DEEP),
    "TIFF, so too": ("a.tif", Image.frombytes("I;16B", (17, 13), DEEP.astype(">u2")), DEEP),
    "opaque gray": ("a.png", png(17, 13, 16, 4, b"".join(b"\0" + r.tobytes() for r in ROWS_16)),
                    DEEP),
    "deep colour": ("a.png a.tif", DEEP_RGB, DEEP_RGB),
    "by hand": ("a.png", png(2, 1, 16, 2, b"\0" + bytes(range(12))),
                np.array([[[0x1, 0x203, 0x405], [0x607, 0x809, 0xA0B]]], np.uint16)),
    "deep alpha": ("a.png", np.dstack([DEEP_RGB, DEEP_ALPHA]),
                   DEEP_RGB * (DEEP_ALPHA[..., None] / 65535)),
    "float": ("a.tif", FLOATS[..., 0], FLOATS[..., 0]),
    "float colour": ("a.tif", FLOATS, FLOATS),
    "alpha": ("a.png a.tif", np.dstack([RGB, ALPHA]), RGB * (ALPHA[..., None] / 255)),
    "opaque": ("a.png a.tif", np.dstack([RGB, np.full_like(ALPHA, 255)]), RGB),
    "gray alpha": ("a.png", np.dstack([GRAY, ALPHA]), GRAY * (ALPHA / 255)),
    "palette": ("a.png a.bmp a.tif", colour("P"), np.asarray(colour("P").convert("RGB"))),
    "gray palette": ("a.png", palette(*HALF), GRAY // 2 * 2),
    "clear black": ("a.png", palette(*HALF, transparency=0), GRAY // 2 * 2),
    "pages": ("a.tif", list(np.moveaxis(RGB, 2, 0)[:2]), RGB[..., :2]),
    "float pages": ("a.tif", list(np.moveaxis(FLOATS, 2, 0)), FLOATS),
    "2 channels": ("a.npy", RGB[..., :2], RGB[..., :2]),
}  # fmt: skip


ENDLESS = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999, 99999999999)}"


@pytest.mark.parametrize("header", [b"{'descr': x}", b"{", b"[1]", b"\xff" * 9, ENDLESS])
def test_a_header_of_numpy_that_is_damaged_is_told_in_plain_words(tmp_path, header):
    content = MAGIC + b"\x01\0" + len(header).to_bytes(2, "little") + header
    (tmp_path / "a.npy").write_bytes(content)
    for read in (decode_image, image_size):
        with pytest.raises(UserError, match="its header and its content do not fit each other"):
            read(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", DECODED)
@pytest.mark.filterwarnings("ignore")  # decode sets its own filter, which pytest replaces
def test_all_bits_of_every_kind_of_pixels_are_read(tmp_path, kind):
    names, stored, expected = DECODED[kind]
    for name in names.split():
        file = save(tmp_path / name, stored)
        got = decode_image(file)
        if expected.dtype == np.float64:
            np.testing.assert_allclose(got, np.atleast_3d(expected), atol=0.51)
        else:
            np.testing.assert_array_equal(got, np.atleast_3d(expected), strict=True)
        assert got.dtype.isnative and image_size(str(file)) == got.shape[:2]
        got[0, 0] = 0  # the caller's own, writable array


def test_jpeg_decodes_to_what_its_decoder_gives(tmp_path):
    for pixels in (LARGE, LARGE[..., 0]):
        file = save(tmp_path / "a.JPG", pixels, quality=95, format="JPEG")
        got = decode_image(file)
        np.testing.assert_array_equal(got, np.atleast_3d(np.asarray(Image.open(file))))
    assert np.abs(got[..., 0].astype(int) - pixels).max() < 30


def test_gray_becomes_rgb_by_repetition_and_rgb_gray_by_luma(tmp_path):
    gray = save(tmp_path / "gray.png", GRAY)
    np.testing.assert_array_equal(decode_image(gray, channels=3), np.stack([GRAY] * 3, -1))
    for pixels, off in ((RGB, 0.51), (DEEP_RGB, 0.51), (FLOATS, 1e-6)):
        got = decode_image(save(tmp_path / "a.npy", pixels), channels=1)
        luma = pixels @ np.array([0.299, 0.587, 0.114])
        np.testing.assert_allclose(got, luma[..., None], atol=off)
    for white, input_range in ((1.0, None), (np.float32(4095), (0, 4095)), (4095, (0, 4095))):
        file = save(tmp_path / "a.npy", np.full((64, 65, 3), white))
        got = decode_image(file, channels=1, input_range=input_range)
        assert to_unit(got).min() == 1 and got.shape == (64, 65, 1)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_exif_orientation_is_applied_to_pixels_and_size(tmp_path, name):
    s = np.zeros((16, 48), np.uint8)
    s[:8, :24] = 255  # the quadrant that a viewer shows elsewhere
    # EXIF 2.32, tag 274: where the stored row 0 and column 0 are displayed.
    shown = [s, s[:, ::-1], s[::-1, ::-1], s[::-1], s.T, s[::-1].T, s[::-1, ::-1].T, s[:, ::-1].T]
    for orientation, expected in enumerate(shown, start=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = save(tmp_path / name, s, exif=exif)
        np.testing.assert_array_equal(decode_image(file)[..., 0] > 127, expected > 127)
        assert image_size(file) == expected.shape


def test_an_image_beyond_pillows_own_limit_gives_no_warning(tmp_path):
    # 100 megapixels, for which Pillow alone would warn; a warning is an error here.
    assert image_size(save(tmp_path / "a.png", png(10000, 10000, 1, 0, b""))) == (10000, 10000)


def test_an_orientation_that_is_none_turns_neither_pixels_nor_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 1542
    file = save(tmp_path / "a.jpg", LARGE, exif=exif.tobytes())
    assert decode_image(file).shape[:2] == image_size(file) == LARGE.shape[:2]


def test_odd_exif_fields_print_nothing(tmp_path):
    broken = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\0\0\0\x1a\0\0\0\0\0\0\0"
    file = save(tmp_path / "a.jpg", GRAY, exif=broken)
    with pytest.warns(UserWarning), Image.open(file) as image:
        image.getexif()
    # Runs in a separate process, because pytest replaces the warning filters.
    code = "import sys; from recon_ad.data.decode import decode_image; decode_image(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, check=True)
    assert done.stderr == b""


def marred(value: float) -> np.ndarray:
    wrong = FLOATS[..., 0].copy()
    wrong[3, 4] = value
    return wrong


def wider(bmp):
    return bmp[:18] + struct.pack("<ii", MAX_PIXELS, 1) + bmp[26:]


BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**21)))
REFUSED = [
    ("zero.png", b"", "0 bytes"),
    ("text.png", b"this is a text, not an image\n" * 20, "not an image"),
    *((f"short{s}", encoded(s, LARGE)[:1500], "truncated") for s in (".png", ".jpg", ".bmp")),
    ("wide.bmp", wider(encoded(".bmp", RGB)), "truncated"),
    ("short.tif", encoded(".tif", LARGE)[:-500], "truncated|be decoded"),
    ("noise.png", encoded(".png", LARGE)[:100] + b"\xaa" * 5000, "cannot be decoded"),
    ("bomb.png", png(2, 1, 8, 0, bytes(3), before=BOMB), "cannot be decoded"),
    ("huge.png", png(2**20, 2**20, 8, 0, b""), "cannot be decoded"),
    ("large.png", png(MAX_PIXELS // 1024, 1025, 8, 0, b""), "pixels, more than"),
    *((f"deep{s}", encoded(s, DEEP_RGB)[:-300], "truncated|be decoded") for s in (".png", ".tif")),
    ("float.tif", encoded(".tif", FLOATS)[:-200], "truncated"),
    ("cmyk.jpg", colour("CMYK"), "a CMYK image.* save it as"),
    ("lab.tif", colour("LAB"), "a CIELAB image.* save it as"),
    ("wide.tif", GRAY.astype(np.int32), "signed integers.* save it as"),
    ("wide.npy", GRAY.astype(np.int32), "no defined black and white"),
    *((f"nan{s}", marred(np.nan), "NaN or infinite") for s in (".tif", ".npy")),
    *((f"high{s}", marred(1.5), "outside the range") for s in (".tif", ".npy")),
    ("pages.png", [GRAY, GRAY[::-1]], "holds 2 pages"),
    ("pages.tif", [RGB, RGB], "holds 2 pages"),
    ("sizes.tif", [GRAY, GRAY[:5]], "its pages differ in size or kind"),
    ("open.npy", b"\x93NUMPY\1\0\x14\0{'shape': (3, 4), 'a': \n", "cannot be decoded"),
    ("cube.npy", np.zeros((3, 4, 5, 6), np.uint8), "holds an array"),
    ("empty.npy", np.zeros((0, 4), np.uint8), "holds an array"),
    ("complex.npy", np.zeros((4, 5), complex), "holds an array"),
    ("first.npy", np.zeros((3, 100, 200), np.uint8), "channels last"),
    ("pickled.npy", np.array([{}], object), "cannot be decoded .*Python objects"),
    ("short.npy", b"\x93NUMPY\1\0", "cannot be decoded"),
    ("a.gif", GRAY, r"PNG, JPEG, TIFF, BMP or \.npy"),
]  # fmt: skip


@pytest.mark.parametrize("name, stored, reason", REFUSED, ids=[name for name, *_ in REFUSED])
# decode sets its own filter, which pytest replaces; Pillow warns above one gigapixel.
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_image_is_named_in_one_sentence(tmp_path, name, stored, reason):
    file = save(tmp_path / name, stored)
    refused(file, reason)
    if isinstance(stored, bytes):
        refused(file, reason, decode_mask)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.filterwarnings("ignore")  # as above
def test_damaged_files_decode_or_are_named_and_nothing_else(tmp_path, suffix):
    rng, named = np.random.default_rng(0), 0
    whole = np.frombuffer(save(tmp_path / f"whole{suffix}", LARGE).read_bytes(), np.uint8)
    for _ in range(100):
        data = whole.copy()
        data[rng.integers(0, min(len(data), 300), 3)] = rng.integers(0, 256, 3)
        file = save(tmp_path / "damaged", data.tobytes())
        try:
            decode_image(file)
        except UserError as error:
            assert str(error).startswith(f"{file}: ")
            named += 1
    assert named > 10


def bmp_with_alpha(alpha: np.ndarray) -> bytes:
    """Build a 32-bit BMP whose header (version 5) has an alpha mask."""
    pixels = np.dstack([RGB[..., ::-1], alpha])[::-1].tobytes()  # blue first, the last row first
    height, width = alpha.shape
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, len(pixels), 0, 0, 0, 0)
    header += masks + bytes(124 - len(header) - len(masks))
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels), 0, 0, 138) + header + pixels


def test_damaged_colour_of_16_bits_prints_nothing(tmp_path, capfd):
    content = encoded(".png", DEEP_RGB)
    for at in range(20, len(content), 7):
        path = save(tmp_path / "a.png", content[:at] + b"\xff" + content[at + 1 :])
        with contextlib.suppress(UserError):
            decode_image(path)
        with contextlib.suppress(UserError):
            decode_image(save(tmp_path / "b.png", content[:at]))
    assert capfd.readouterr() == ("", "")


def test_odd_headers_of_arrays_and_exif_of_another_type_are_named(tmp_path):
    array = save(tmp_path / "a.npy", GRAY)
    array.write_bytes(array.read_bytes().replace(b"(13, 17)", b"(True, )"))
    refused(array, "cannot be decoded")
    for nested in (9000 * b"-" + b"1", b"1" + 4500 * b"+1"):
        array.write_bytes(MAGIC + b"\1\0" + struct.pack("<H", len(nested)) + nested)
        refused(array, "its header and its content do not fit")
    content = encoded(".png", DEEP_RGB)
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0" + b"6\0\0\0" + b"\0" * 4
    turned = save(tmp_path / "b.png", content[:33] + chunk(b"eXIf", exif) + content[33:])
    np.testing.assert_array_equal(decode_image(turned), DEEP_RGB)


def test_a_bmp_without_any_alpha_is_opaque(tmp_path):
    empty = save(tmp_path / "a.bmp", bmp_with_alpha(np.zeros_like(ALPHA)))
    np.testing.assert_array_equal(decode_image(empty), RGB)
    opaque = save(tmp_path / "b.bmp", bmp_with_alpha(np.full_like(ALPHA, 255)))
    np.testing.assert_array_equal(decode_image(opaque), RGB)
    some = save(tmp_path / "c.bmp", bmp_with_alpha(ALPHA))
    same = save(tmp_path / "c.png", np.dstack([RGB, ALPHA]))
    np.testing.assert_array_equal(decode_image(some), decode_image(same))


def test_a_header_that_promises_more_than_a_file_can_hold_takes_no_memory(tmp_path):
    refused(save(tmp_path / "a.png", png(32000, 32000, 16, 6, b"")), "truncated")
    # The smallest possible size of a complete file.
    whole = save(tmp_path / "b.png", png(4000, 4000, 1, 0, bytes(4000 * 501)))
    assert not decode_image(whole).any()
    flat = save(tmp_path / "c.jpg", np.full((4000, 4000), 90, np.uint8), quality=1)
    assert decode_image(flat).shape == (4000, 4000, 1)
    content = bytearray(flat.read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", 30_000, 30_000)
    refused(save(tmp_path / "d.jpg", bytes(content)), "truncated")


@pytest.mark.parametrize("decode", [decode_image, image_size])
def test_what_is_no_file_is_named(tmp_path, decode):
    refused(tmp_path / "gone.png", "file not found", decode)
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png", "is a folder with the name of an image", decode)
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    refused(tmp_path / "link.png", r"is a link to .*gone\.png, which does not", decode)
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "is not a regular file", decode)
    (tmp_path / "kernel.png").symlink_to("/proc/kmsg")
    refused(tmp_path / "kernel.png", "is not a regular file", decode)


def test_other_numbers_of_channels_are_refused(tmp_path):
    for given, channels in ((1, 4), (3, 4), (2, 3), (5, 3)):
        file = save(tmp_path / "a.npy", np.zeros((8, 9, given), np.uint8))
        refused(file, f"has {given} channels and not {channels}", channels=channels)
    with pytest.raises(UserError, match="channels is 0"):
        decode_image(file, channels=0)


@pytest.mark.parametrize(
    "name, stored, black, white",
    [
        ("a.png", DEEP // 16, 0, 4095),
        ("a.npy", (DEEP // 16).astype(np.int32), 0, 4095),
        ("a.npy", np.array([[0, 25, 50, 75, 100]], np.int32) + 2**30, 2**30, 2**30 + 100),
        ("a.tif", FLOATS[..., 0] * 20 - 10, -10, 10),
        ("a.npy", np.array([[0, 1000, 60000]], np.float16), 0, 70000),
        ("a.npy", np.linspace(-0.1, 0.2, 1000).reshape(10, 100), -0.1, 0.2),
    ],
)
def test_an_input_range_says_what_black_and_white_are(tmp_path, name, stored, black, white):
    file = save(tmp_path / name, stored)
    got = decode_image(file, input_range=(black, white))
    integer = stored.dtype.kind in "ui"
    assert got.dtype == (np.uint16 if integer else np.float32)
    expected = (stored.astype(float) - black) / (white - black)
    off = 0.51 / 65535 if integer else 1e-6
    np.testing.assert_allclose(to_unit(got)[..., 0], expected, rtol=0, atol=off)
    assert got.min() >= 0 and to_unit(got).max() <= 1
    refused(file, "outside the range", input_range=(black, (black + white) // 2))


MASK = np.zeros((16, 16), bool)
MASK[4:12, 8:] = True
ON, BOTH = MASK * np.uint8(1), MASK & MASK.T
NOISE = np.random.default_rng(0).integers(0, 4, MASK.shape, dtype=np.uint8)
MASKS = {
    "0-255": (ON * np.uint8(255), MASK),
    "0-1": (ON, MASK),
    "noisy": (ON * np.uint8(150) + np.uint8(90), MASK),
    "labels": (3 * ON - 2 * BOTH.astype(np.uint8), MASK),
    "red": (np.stack([ON * np.uint8(255), 0 * ON, 0 * ON], -1), MASK),
    "colours": (np.stack([BOTH, BOTH & False, MASK & ~BOTH], -1) * np.uint8(128), MASK),
    "deep": (MASK * np.uint16(65535), MASK),
    "empty": (0 * ON, MASK & False),
    "full": (np.full((16, 16), 255, np.uint8), MASK | True),
    "1 bit": (MASK, MASK),
    # Every value but black is marked.
    "palette": (palette(ON + BOTH, (0, 0, 0), (0, 0, 60), (250, 250, 250)), MASK),
    # JPEG noise is not a defect.
    "JPEG": (encoded(".jpg", MASK * np.uint8(250) + NOISE), MASK),
    "empty JPEG": (encoded(".jpg", NOISE), MASK & False),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_are_binary_whatever_their_levels(tmp_path, kind):
    stored, expected = MASKS[kind]
    got = decode_mask(save(tmp_path / "a.png", stored))
    np.testing.assert_array_equal(got, expected, strict=True)
