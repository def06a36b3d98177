"""TIFF files: the right values whatever their tags say, or a sentence that names the tag."""

import struct

import numpy as np
import pytest
import tifffile

from recon_ad.data.decode import decode_image, decode_mask, image_size, stored_type
from recon_ad.errors import UserError

ROWS, COLUMNS = np.mgrid[:40, :56]
GRAY = ((COLUMNS * 3 + ROWS * 2) % 256).astype(np.uint8)
COLOUR = np.dstack([GRAY, COLUMNS * 4 % 256, ROWS * 5 % 256]).astype(np.uint8)
KINDS = {
    "8 bits": (np.uint8, 1), "16 bits": (np.uint16, 257), "float": (np.float32, 1 / 255),
}  # fmt: skip
LAYOUTS = {
    "plain": {}, "LZW": {"compression": "lzw"}, "deflate": {"compression": "zlib"},
    "PackBits": {"compression": "packbits"}, "Zstandard": {"compression": "zstd"},
    "predictor": {"compression": "zlib", "predictor": True}, "tiles": {"tile": (16, 16)},
    "BigTIFF": {"bigtiff": True}, "big-endian": {"byteorder": ">"}, "strips": {"rowsperstrip": 1},
}  # fmt: skip
PLANES = {"together": {}, "apart": {"planarconfig": "separate"}}


def written(path, pixels, **options):
    bits = options.get("bitspersample", 0)
    tifffile.imwrite(path, pixels, **options)
    got = decode_image(path)
    assert image_size(path) == got.shape[:2]
    assert stored_type(path) == (f"uint{bits}" if bits > 8 else str(got.dtype))
    return got


@pytest.mark.parametrize("planes", PLANES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layout_changes_no_value(tmp_path, kind, layout, planes):
    dtype, factor = KINDS[kind]
    gray, colour = (x.astype(np.float64) * factor for x in (GRAY, COLOUR))
    gray, colour = gray.astype(dtype), colour.astype(dtype)
    given = np.moveaxis(colour, 2, 0) if planes == "apart" else colour
    options = LAYOUTS[layout] | PLANES[planes]
    got = written(tmp_path / "a.tif", given, photometric="rgb", **options)
    np.testing.assert_array_equal(got, colour)
    got = written(tmp_path / "b.tif", gray, photometric="minisblack", **LAYOUTS[layout])
    np.testing.assert_array_equal(got[..., 0], gray)


def test_what_zero_means_has_to_be_said(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="minisblack")
    content = (tmp_path / "a.tif").read_bytes()
    # The tag under a private number that no reader knows.
    (tmp_path / "a.tif").write_bytes(content.replace(b"\x06\x01\x03\x00", b"\xe8\xfd\x03\x00", 1))
    with pytest.raises(UserError, match="without the tag PhotometricInterpretation"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_white_may_be_zero(tmp_path, kind, order):
    dtype, factor = KINDS[kind]
    gray = (GRAY.astype(np.float64) * factor).astype(dtype)
    white = dtype(1.0) if kind == "float" else np.iinfo(dtype).max
    got = written(tmp_path / "a.tif", white - gray, photometric="miniswhite", byteorder=order)
    np.testing.assert_allclose(got[..., 0], gray, atol=1e-7 if kind == "float" else 0)


@pytest.mark.parametrize("colours", [GRAY, COLOUR.astype(np.uint16) * 257])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_applied(tmp_path, orientation, colours):
    # TIFF 6.0, tag 274: where the stored row 0 and column 0 are displayed.
    turned = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
        7: lambda a: a.swapaxes(0, 1)[::-1, ::-1], 8: np.rot90,
    }[orientation]  # fmt: skip
    tag = [(274, "H", 1, orientation, True)]
    kind = "minisblack" if colours.ndim == 2 else "rgb"
    got = written(tmp_path / "a.tif", colours, photometric=kind, extratags=tag)
    np.testing.assert_array_equal(got.squeeze(), turned(colours))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, orientation):
    tag = [(274, "H", 1, orientation, True)]
    got = written(tmp_path / "a.tif", GRAY, photometric="minisblack", extratags=tag)
    np.testing.assert_array_equal(got[..., 0], GRAY)


HALF = np.full_like(GRAY, 128)
FIVE = np.dstack([GRAY, GRAY[::-1], GRAY[:, ::-1], GRAY // 2, HALF])


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        (np.dstack([COLOUR, HALF]), {"extrasamples": ["unassalpha"]}, COLOUR * (128 / 255)),
        (np.dstack([COLOUR // 2, HALF]), {"extrasamples": ["assocalpha"]}, COLOUR // 2),
        (np.dstack([COLOUR, GRAY]), {"extrasamples": ["unspecified"]}, np.dstack([COLOUR, GRAY])),
        (FIVE, {"photometric": "minisblack", "planarconfig": "contig"}, FIVE),
        (np.moveaxis(FIVE, 2, 0), {"photometric": "minisblack", "planarconfig": "separate"}, FIVE),
        (GRAY > 99, {"photometric": "minisblack"}, np.uint8(255) * (GRAY > 99)),
        (GRAY > 99, {"photometric": "miniswhite"}, np.uint8(255) * (GRAY <= 99)),
        ((GRAY / 255).astype(np.float64), {"photometric": "minisblack"}, GRAY / np.float32(255)),
    ],
    ids=["alpha", "alpha in", "sample", "five", "planes", "1 bit", "1 bit, white 0", "double"],
)  # fmt: skip
def test_samples_are_channels_and_transparency_is_laid_over_black(
    tmp_path, stored, options, expected
):
    got = written(tmp_path / "a.tif", stored, **({"photometric": "rgb"} | options))
    np.testing.assert_allclose(
        got.squeeze(), expected, atol=0.51 if got.dtype == np.uint8 else 1e-7
    )


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 9, 10, 12, 14, 15])
def test_white_is_what_the_bits_say(tmp_path, bits):
    most, full = 2**bits - 1, 255 if bits < 8 else 65535
    random = np.random.default_rng(bits)
    values = random.integers(0, most + 1, (40, 56, 4)).astype(np.uint8 if bits < 8 else np.uint16)
    values[0, 0], values[0, 1] = 0, most
    gray, colour, alpha = values[..., 0], values[..., :3], values[..., 3:] / most
    options = {"bitspersample": bits, "photometric": "minisblack"}
    got = written(tmp_path / "a.tif", gray, **options)
    assert got.dtype == (np.uint8 if bits < 8 else np.uint16)
    # Rounded. For 16 bits by a product in float32, which may miss a half.
    np.testing.assert_allclose(got[..., 0], gray * (full / most), atol=0.51)
    assert got.max() == full
    inverted = written(tmp_path / "b.tif", most - gray, **options | {"photometric": "miniswhite"})
    np.testing.assert_array_equal(inverted, got)
    got = written(tmp_path / "c.tif", colour, **options | {"photometric": "rgb"})
    np.testing.assert_allclose(got, colour * (full / most), atol=0.51)
    options |= {"extrasamples": ["unassalpha"]}
    got = written(tmp_path / "d.tif", values, **options | {"photometric": "rgb"})
    # The product is rounded in the file's own steps.
    np.testing.assert_allclose(got, colour * alpha * (full / most), atol=0.51 * full / most + 0.51)
    clear = np.dstack([most - gray, values[..., 3]])
    got = written(tmp_path / "e.tif", clear, **options | {"photometric": "miniswhite"})
    expected = gray[..., None] * alpha * (full / most)
    np.testing.assert_allclose(got, expected, atol=0.51 * full / most + 0.51)


def test_a_range_is_of_the_files_own_values(tmp_path):
    values = (ROWS * 100).astype(np.uint16)
    labels = (ROWS // 10).astype(np.uint16)
    for kind, stored in (("minisblack", values), ("miniswhite", 4095 - values)):
        file = tmp_path / f"{kind}.tif"
        tifffile.imwrite(file, stored, bitspersample=12, photometric=kind)
        for white in (3900, 4095):
            got = decode_image(file, input_range=(0, white))
            np.testing.assert_allclose(got[..., 0], values * (65535 / white), atol=0.51)
        with pytest.raises(UserError, match="outside the range from 0 to 3000"):
            decode_image(file, input_range=(0, 3000))
        np.testing.assert_array_equal(decode_mask(file), values > 1950)
    tifffile.imwrite(file, labels, bitspersample=12, photometric="minisblack")
    np.testing.assert_array_equal(decode_mask(file), labels > 0)


def test_pages_of_several_depths_are_no_channels_of_an_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for bits in (12, 16):
            file.write(GRAY.astype(np.uint16), bitspersample=bits, photometric="minisblack")
    with pytest.raises(UserError, match="pages differ"):
        decode_image(tmp_path / "a.tif")


def test_differences_of_packed_values_are_refused(tmp_path):
    # Decoders add the differences in whole bytes or words.
    tag = [(65000, "H", 1, 2, True)]  # without a meaning until it becomes the predictor's
    options = {"photometric": "minisblack", "extratags": tag}
    tifffile.imwrite(tmp_path / "a.tif", GRAY // 16, bitspersample=4, **options)
    content = (tmp_path / "a.tif").read_bytes()
    content = content.replace(b"\xe8\xfd\x03\x00", b"\x3d\x01\x03\x00", 1)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match="of 4 bits as differences"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("codec", [None, "packbits"])
def test_differences_without_compression_are_refused(tmp_path, codec):
    # libtiff takes such values as they are, and tifffile adds them up over all rows.
    options = {"photometric": "minisblack", "compression": codec}
    tag = [(65000, "H", 1, 2, True)]  # as above
    tifffile.imwrite(tmp_path / "a.tif", GRAY, extratags=tag, **options)
    content = (tmp_path / "a.tif").read_bytes()
    content = content.replace(b"\xe8\xfd\x03\x00", b"\x3d\x01\x03\x00", 1)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(UserError, match="of differences without compression"):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("byteorder", "<>")
def test_pages_that_are_cut_off_or_in_a_circle_are_refused(tmp_path, byteorder):
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([GRAY] * 3), photometric="minisblack", byteorder=byteorder,
        metadata=None,
    )  # fmt: skip
    whole = (tmp_path / "a.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first, second, _ = (page.offset for page in file.pages)
        at = first + 2 + 12 * len(file.pages[0].tags)
    assert int.from_bytes(whole[at : at + 4], "little" if byteorder == "<" else "big") == second
    for following, words in ((len(whole), "are not within the file"), (first, "an earlier one")):
        content = whole[:at] + struct.pack(f"{byteorder}I", following) + whole[at + 4 :]
        (tmp_path / "a.tif").write_bytes(content)
        for read in (decode_image, image_size, stored_type):
            with pytest.raises(UserError, match=words):
                read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        (COLOUR, {"planarconfig": "contig"}),
        (np.moveaxis(COLOUR, 2, 0), {"planarconfig": "separate"}),
        (np.moveaxis(COLOUR, 2, 0), {"metadata": None}),
        (255 - COLOUR, {"planarconfig": "contig", "photometric": "miniswhite"}),
    ],
    ids=["samples", "planes", "pages", "white 0"],
)
def test_three_channels_of_gray_are_no_colours(tmp_path, stored, options):
    got = written(tmp_path / "a.tif", stored, **({"photometric": "minisblack"} | options))
    np.testing.assert_array_equal(got, COLOUR)
    with pytest.raises(UserError, match=r"a\.tif: has 3 channels of gray, which are no colours"):
        decode_image(tmp_path / "a.tif", channels=1)
    tifffile.imwrite(tmp_path / "b.tif", COLOUR, photometric="rgb")
    assert decode_image(tmp_path / "b.tif", channels=1).shape == (40, 56, 1)


@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize("others", [["unspecified"], []])
def test_transparency_among_other_samples_is_refused(tmp_path, photometric, others):
    colours = 1 if photometric == "minisblack" else 3
    for samples in (["unassalpha", *others], [*others, "unassalpha"]):
        pixels = FIVE[..., : colours + len(samples)]
        given = {"photometric": photometric, "planarconfig": "contig", "extrasamples": samples}
        tifffile.imwrite(tmp_path / "a.tif", pixels, **given)
        if not others:  # the file declares fewer samples than it has
            with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
                file.pages[0].tags["PhotometricInterpretation"].overwrite(1 if colours == 3 else 2)
        with pytest.raises(UserError, match=r"other samples .tag ExtraSamples|fewer than three"):
            decode_image(tmp_path / "a.tif")


def test_thumbnails_and_pyramids_are_not_the_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(COLOUR[::4, ::4].copy(), photometric="rgb", subfiletype=1)
        file.write(COLOUR, subifds=1, photometric="rgb")
        file.write(COLOUR[::2, ::2].copy(), photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif"), COLOUR)


@pytest.mark.parametrize(
    ("pixels", "options", "words"),
    [
        (GRAY.astype(np.int8), {}, "SampleFormat 2"),
        (GRAY.astype(np.uint32), {}, "32-bit integers .tag BitsPerSample"),
        (GRAY.astype(np.complex64), {}, "SampleFormat 6"),
        (COLOUR, {"photometric": "cielab"}, "CIELAB image .tag PhotometricInterpretation 8"),
        (np.dstack([COLOUR, GRAY]), {"photometric": "separated"}, "CMYK"),
        (COLOUR, {"photometric": "ycbcr"}, "YCbCr"),
        (np.stack([COLOUR, COLOUR]), {"photometric": "rgb"}, "holds 2 pages"),
    ],
)
def test_what_cannot_be_had_faithfully_is_refused_by_its_tag(tmp_path, pixels, options, words):
    tifffile.imwrite(tmp_path / "a.tif", pixels, **({"photometric": "minisblack"} | options))
    for read in (decode_image, image_size, stored_type):
        with pytest.raises(UserError, match=words):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_palette_has_its_colours(tmp_path, dtype):
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256 ** dtype().itemsize), np.uint16)
    file, indices = tmp_path / "a.tif", GRAY.astype(dtype)
    got = written(file, indices, photometric="palette", colormap=colours)
    np.testing.assert_array_equal(got, np.moveaxis(colours[:, GRAY] >> 8, 0, 2))
    content = file.read_bytes()
    for tag, count, words in ((320, 3 * 40, "beyond its palette, tag ColorMap"),
                              (320, 3 * 40 + 1, "without its colours .tag ColorMap"),
                              (65000, 3 * 256, "without its colours .tag ColorMap")):  # fmt: skip
        with tifffile.TiffFile(file) as opened:
            at = opened.pages[0].tags["ColorMap"].offset
        changed = struct.pack("<HHI", tag, 3, count)
        other = tmp_path / "b.tif"
        other.write_bytes(content[:at] + changed + content[at + 8 :])
        with pytest.raises(UserError, match=words):
            decode_image(other)


@pytest.mark.parametrize(
    ("photometric", "words"), [(2, "fewer than three"), (3, "palette image with other samples")]
)
def test_samples_that_are_not_those_of_the_colours_are_refused(tmp_path, photometric, words):
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", FIVE[..., :3], **options)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        assert file.pages[0].extrasamples == (0, 0)
        file.pages[0].tags["PhotometricInterpretation"].overwrite(photometric)
    with pytest.raises(UserError, match=words):
        decode_image(tmp_path / "a.tif")


@pytest.mark.parametrize("big", [False, True])
def test_pixels_that_would_be_tags_are_refused(tmp_path, big):
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="minisblack", bigtiff=big)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        first, strips = file.pages[0].offset, file.pages[0].tags["StripOffsets"]
        listed = 20 * len(file.pages[0].tags) if big else 12 * len(file.pages[0].tags)
    for at in (1, 7, first, first + listed - 1):
        content = bytearray((tmp_path / "a.tif").read_bytes())
        content[strips.valueoffset : strips.valueoffset + 4] = struct.pack("<I", at)
        (tmp_path / "b.tif").write_bytes(content + bytes(len(content)))
        with pytest.raises(UserError, match="its pixels are its tags"):
            decode_image(tmp_path / "b.tif")


@pytest.mark.parametrize("planes", [2, 8193])
def test_a_file_without_all_of_its_strips_is_refused(tmp_path, planes):
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, np.full((24, 31, 3), 90, np.uint8), photometric="rgb")
    with tifffile.TiffFile(file, mode="r+b") as opened:
        # Three planes with one strip each, but only one exists: the others would be undefined.
        opened.pages[0].tags["PlanarConfiguration"].overwrite(planes)
    with pytest.raises(UserError, match=r"ends before|PlanarConfiguration 8193"):
        decode_image(file)


@pytest.mark.parametrize("layout", ["plain", "LZW", "tiles", "BigTIFF"])
def test_a_file_that_ends_early_is_refused(tmp_path, layout, capfd):
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, photometric="rgb", **LAYOUTS[layout])
    content = (tmp_path / "a.tif").read_bytes()
    for share in (0.05, 0.4, 0.9, 0.999):
        (tmp_path / "a.tif").write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match="broken or truncated"):
            decode_image(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")  # libraries print nothing themselves


def test_a_tile_that_promises_gigabytes_is_refused_before_they_are_asked_for(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GRAY, photometric="minisblack", tile=(16, 16), compression="lzw")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["TileLength"].overwrite(1 << 15)
        file.pages[0].tags["TileWidth"].overwrite(1 << 15)
    with pytest.raises(UserError, match="broken or truncated"):
        image_size(path)
