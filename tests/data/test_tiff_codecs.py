"""TIFF files whose strips or tags contradict each other are refused by a sentence."""

import struct

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from recon_ad.data.decode import decode_image
from recon_ad.errors import UserError

# Blocks of one gray, which JPEG keeps nearly as they are.
GRAY = np.kron(np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8), np.ones((8, 8), "u1"))
RGB = np.dstack([GRAY, GRAY[::-1], GRAY[:, ::-1]])
WORDS = GRAY.astype(np.uint16) * 257
CODECS = {"jpeg": 7, "jpeg2k": 34712, "png": 34933, "webp": 50001, "jpegxl": 50002, "lerc": 34887}
LAYOUTS = {"strips": {"rowsperstrip": 16}, "one strip": {}, "tiles": {"tile": (16, 16)}}
# Compression, what is encoded, and the image that the tags describe.
OTHERS = {
    "JPEG of colour": (7, RGB, GRAY), "JPEG of gray": (7, GRAY, RGB),
    "JPEG of fewer rows": (7, GRAY[:32], GRAY), "JPEG of more columns": (7, GRAY, GRAY[:, :48]),
    "JPEG of 12 bits": (7, WORDS >> 4, GRAY),
    "JPEG 2000 of 16 bits": (34712, WORDS, GRAY), "JPEG 2000 of 8 bits": (33003, GRAY, WORDS),
    "JPEG 2000 of 12 bits": (33005, WORDS >> 4, WORDS), "JPEG 2000 of colour": (34712, RGB, GRAY),
    "JPEG 2000, signed": (34712, GRAY.view(np.int8), GRAY),
    "PNG of 16 bits": (34933, WORDS, GRAY), "PNG of 8 bits": (34933, GRAY, WORDS),
    "WebP of colour": (50001, RGB, GRAY), "WebP in words": (50001, RGB, RGB.astype(np.uint16)),
    "JPEG XL of 16 bits": (50002, WORDS, GRAY), "JPEG XL of 8 bits": (50002, GRAY, WORDS),
    "JPEG XL of 12 bits": (50002, WORDS >> 4, WORDS), "JPEG XL of colour": (52546, RGB, GRAY),
    "LERC of floats": (34887, GRAY / np.float32(255), GRAY), "LERC of colour": (34887, RGB, GRAY),
}  # fmt: skip


def encoded(codec, pixels):
    codec = {33003: 34712, 33005: 34712, 52546: 50002}.get(codec, codec)
    name = next(name for name, code in CODECS.items() if code == codec)
    deep = {"bitspersample": 12} if pixels.dtype == np.uint16 and pixels.max() < 4096 else {}
    return getattr(imagecodecs, f"{name}_encode")(pixels, **deep)


def photometric(pixels):
    return "minisblack" if pixels.ndim == 2 else "rgb"


def misfit(path, codec, pixels, told):
    """Write a strip of pixels by a codec, with the tags of another image."""
    strips = iter([encoded(codec, np.ascontiguousarray(pixels))])
    options = {"photometric": photometric(told), "rowsperstrip": told.shape[0]}
    options |= {"shape": told.shape, "dtype": told.dtype, "compression": "zlib"}
    tifffile.imwrite(path, strips, **options)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["Compression"].overwrite(codec)
    return path


@pytest.mark.parametrize("what", OTHERS)
def test_a_stream_of_another_kind_than_the_tags_say_is_refused(tmp_path, what):
    file = misfit(tmp_path / "a.tif", *OTHERS[what])
    with pytest.raises(UserError, match=r"a strip or tile holds|a JPEG|cannot be reshaped"):
        decode_image(file)


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2k", "png", "jpegxl"])
def test_a_stream_larger_than_its_strip_is_refused_by_its_header(tmp_path, codec):
    # All ratios of JPEG XL, small and large, and none of them.
    for height, width in ((40, 40), (40, 48), (300, 400), (40, 60), (72, 128), (32, 40), (99, 198),
                          (40, 56), (41, 900)):  # fmt: skip
        pixels = np.zeros((height, width), np.uint8)
        file = misfit(tmp_path / "a.tif", CODECS[codec], pixels, GRAY[:16, :16])
        said = f"holds {width} × {height} pixels, against 16 × 16 by the tags"
        with pytest.raises(UserError, match=said):
            decode_image(file)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", CODECS)
def test_streams_that_fit_are_read(tmp_path, codec, layout):
    compression = {"jpeg2k": "jpeg2000"}.get(codec, codec)
    lossless = {"compressionargs": {"lossless": True}} if codec in ("webp", "jpegxl") else {}
    for pixels in (GRAY, RGB) if codec != "webp" else (RGB,):
        options = {"photometric": photometric(pixels), **LAYOUTS[layout], **lossless}
        tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, **options)
        got = decode_image(tmp_path / "a.tif").squeeze()
        if codec == "jpeg" and pixels is RGB:  # of which it keeps the luminance best
            assert np.abs(got.astype(int) - pixels).mean() < 12
        else:
            np.testing.assert_array_equal(got, pixels)


def shortened(path, share=0.6):
    with tifffile.TiffFile(path, mode="r+b") as file:
        tag = file.pages[0].tags["StripByteCounts"]
        counts = tag.value if isinstance(tag.value, tuple) else (tag.value,)
        tag.overwrite(tuple(int(share * count) for count in counts))


@pytest.mark.parametrize("codec", ["jpeg", "jpeg2000", "png", "jpegxl", "lerc", "lzw", "packbits"])
def test_a_strip_that_ends_early_is_refused(tmp_path, codec):
    options = {"photometric": "minisblack", "rowsperstrip": 16, "compression": codec}
    tifffile.imwrite(tmp_path / "a.tif", GRAY, **options)
    shortened(tmp_path / "a.tif")
    with pytest.raises(UserError, match="broken or truncated"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("codec", ["group3", "group4", "tiff_ccitt"])
def test_facsimile_is_read_whole_and_of_one_bit(tmp_path, codec):
    path = tmp_path / "a.tif"
    Image.fromarray(GRAY > 128).save(path, compression=codec)
    np.testing.assert_array_equal(decode_image(path)[..., 0], np.uint8(255) * (GRAY > 128))
    content = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        shortened(path, share)
        with pytest.raises(UserError, match="CCITT ends early"):
            decode_image(path)
        path.write_bytes(content)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["BitsPerSample"].overwrite(8)
    with pytest.raises(UserError, match=r"8 bits by a codec of 1 bit .tags Compression, BitsPer"):
        decode_image(path)


def test_a_compression_that_is_unknown_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="minisblack", compression="zlib")
    for code in (9, 22610, 65000):
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            file.pages[0].tags["Compression"].overwrite(code)
        with pytest.raises(UserError, match=f"tag Compression {code}"):
            decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("big", [False, True])
def test_strips_that_reach_into_the_tags_are_refused(tmp_path, big):
    # The pixels first, the list of tags behind them.
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="minisblack", bigtiff=big)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        first, strips = page.offset, page.tags["StripOffsets"]
        length = 16 + 20 * len(page.tags) if big else 6 + 12 * len(page.tags)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    moved = bytes(content[first : first + length])
    content[strips.valueoffset : strips.valueoffset + 4] = struct.pack("<I", len(content))
    listed = bytes(content[first : first + length])
    head, size = (8, 8) if big else (4, 4)
    start = len(content)
    content += GRAY.tobytes()
    content[head : head + size] = len(content).to_bytes(size, "little")
    content += listed
    path = tmp_path / "b.tif"
    path.write_bytes(content)
    np.testing.assert_array_equal(decode_image(path)[..., 0], GRAY)
    assert moved != listed
    at = content.index(struct.pack("<I", start), len(content) - length)
    for offset in (1, length - 1):  # by a byte, or up to the end of the list
        changed = bytearray(content)
        changed[at : at + 4] = struct.pack("<I", start + offset)
        path.write_bytes(changed + bytes(len(content)))
        with pytest.raises(UserError, match="its pixels are its tags"):
            decode_image(path)


TAGS = {
    "two widths": (256, 3, 2, (56, 56), "ImageWidth holds 2 values"),
    "a width of text": (256, 2, 3, b"56\0", "ImageWidth holds no whole numbers"),
    "a width of floats": (256, 11, 1, struct.pack("<f", 56), "ImageWidth holds no whole"),
    "no width": (65000, 3, 1, (56,), "ImageWidth is missing"),
    "width 0": (256, 3, 1, (0,), "ImageWidth is 0"),
    "no samples": (277, 3, 1, (0,), "SamplesPerPixel is 0"),
    "two samples": (277, 3, 2, (1, 1), "SamplesPerPixel holds 2 values"),
    "bits 0": (258, 3, 1, (0,), "BitsPerSample is 0"),
    "bits": (258, 3, 2, (8, 4), "BitsPerSample has several values .8, 4"),
    "formats": (339, 3, 2, (1, 3), "SampleFormat has several values .1, 3"),
    "bits elsewhere": (258, 3, 9, struct.pack("<I", 1 << 30), "BitsPerSample lies beyond"),
    "no rows": (278, 3, 1, (0,), "RowsPerStrip is 0"),
    "no offsets": (273, 4, 0, (), "StripOffsets is empty"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAGS)
def test_an_odd_tag_is_named(tmp_path, what):
    code, kind, count, values, words = TAGS[what]
    old = {65000: 256, 339: 65001}.get(code, code)  # a private tag becomes SampleFormat
    options = {"photometric": "minisblack", "extratags": [(65001, "H", 1, 1, True)]}
    tifffile.imwrite(tmp_path / "a.tif", GRAY, **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        at = file.pages[0].tags[old].offset
    value = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}H", *values)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[at : at + 12] = struct.pack("<HHI4s", code, kind, count, value)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        decode_image(tmp_path / "a.tif")
    assert "Error" not in str(caught.value)


def test_three_formats_are_named(tmp_path):
    tag = [(65001, "H", 3, (1, 1, 3), True)]
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb", extratags=tag)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content.replace(b"\xe9\xfd\3\0", b"\x53\1\3\0", 1))
    with pytest.raises(UserError, match=r"SampleFormat has several values .1, 1, 3"):
        decode_image(tmp_path / "a.tif")
