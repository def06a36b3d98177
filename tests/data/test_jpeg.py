"""JPEG files that are cut or not, in ways of which libjpeg only warns."""

import io
import itertools

import imagecodecs
import numpy as np
import pytest
import tifffile
from helpers.jpegs import cut, renumbered, taller, without_interval, without_scans
from PIL import Image

from recon_ad.data.decode import decode_image
from recon_ad.errors import UserError

_RANDOM = np.random.default_rng(0)
NOISE = _RANDOM.integers(0, 256, (61, 83, 3), np.uint8)
SMOOTH = np.clip(np.cumsum(_RANDOM.normal(0, 3, (61, 83, 3)), 0) + 128, 0, 255).astype(np.uint8)
IMAGES = {"noise": NOISE, "smooth": SMOOTH, "middle gray": NOISE * 0 + 128, "black": NOISE * 0}
RESTARTS = ({}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 2})


def encoded(image, **options):
    content = io.BytesIO()
    Image.fromarray(image).save(content, "jpeg", **options)
    return content.getvalue()


def refused(content, folder, words="truncated"):
    (folder / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=words):
        decode_image(folder / "a.jpg")


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("side", [(61, 83), (9, 3)])
def test_whole_files_of_every_kind_are_decoded_as_before(name, side, tmp_path):
    colour = IMAGES[name][: side[0], : side[1]]
    file = tmp_path / "a.jpg"
    for image, quality, progressive, optimize, restarts, subsampling in itertools.product(
        (colour, colour[..., 0]), (20, 95), (False, True), (False, True), RESTARTS, (0, 2)
    ):
        content = encoded(
            image, quality=quality, progressive=progressive, optimize=optimize,
            subsampling=subsampling, **restarts,
        )  # fmt: skip
        file.write_bytes(content + b"\0" * 9 * optimize)  # bytes behind the end do not matter
        wanted = np.array(Image.open(io.BytesIO(content))).reshape(*image.shape[:2], -1)
        np.testing.assert_array_equal(decode_image(file), wanted)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, *RESTARTS[1:]])
@pytest.mark.parametrize("image", [NOISE, SMOOTH, NOISE[..., 0]])
def test_a_file_that_ends_early_is_refused_in_spite_of_its_end_marker(image, options, tmp_path):
    content = encoded(image, quality=90, **options)
    for kept in (0, 0.3, 0.5, 0.9):
        refused(cut(content, kept=kept), tmp_path)
    refused(taller(content), tmp_path)
    refused(content[:-2], tmp_path)


@pytest.mark.parametrize("quality", [50, 95])
def test_few_missing_bytes_are_noticed(quality, tmp_path):
    content = encoded(NOISE[..., 0], quality=quality)
    for missing in (16, 20, 30, 50):
        refused(content[: -2 - missing].rstrip(b"\xff") + content[-2:], tmp_path)


def test_missing_scans_and_restart_intervals_are_noticed(tmp_path):
    progressive = encoded(SMOOTH, progressive=True)
    for left in (1, 3, 6):
        refused(without_scans(progressive, left=left), tmp_path)
    restarts = encoded(SMOOTH, restart_marker_rows=1)
    for damage in (without_interval, renumbered):
        refused(damage(restarts), tmp_path)
    last = restarts.rindex(b"\xff\xd2")
    refused(restarts[:last] + restarts[-2:], tmp_path)


@pytest.mark.parametrize("quality", [40, 100])
def test_bytes_that_fill_up_before_a_marker_are_no_data(quality, tmp_path):
    content = encoded(SMOOTH, quality=quality, restart_marker_rows=1)
    filled = content.replace(b"\xff\xd0", b"\xff\xff\xff\xd0")[:-2] + b"\xff\xff\xff\xd9"
    (tmp_path / "a.jpg").write_bytes(filled)
    wanted = np.array(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(decode_image(tmp_path / "a.jpg"), wanted)


def test_arithmetic_coding_is_refused_by_name(tmp_path):
    content = encoded(SMOOTH)
    refused(content.replace(b"\xff\xc0", b"\xff\xc9"), tmp_path, words="arithmetic coding")


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("options", [{}, {"tile": (32, 32)}, {"rowsperstrip": 16}])
def test_a_cut_stream_in_a_tiff_is_refused(bits, options, tmp_path):
    image = SMOOTH[..., 0] if bits == 8 else SMOOTH[..., 0].astype(np.uint16) * 16
    file = tmp_path / "a.tif"
    args = {"bitspersample": bits} if bits == 12 else {}
    tifffile.imwrite(file, image, compression="jpeg", compressionargs=args, **args, **options)
    wanted = image if bits == 8 else image * (65535 / 4095)
    np.testing.assert_allclose(decode_image(file)[..., 0], wanted, atol=40 if bits == 8 else 600)
    content = file.read_bytes()
    start, end = content.rindex(b"\xff\xd8"), content.rindex(b"\xff\xd9") + 2
    stream = content[start:end]
    assert imagecodecs.jpeg8_decode(cut(stream, kept=0.4)) is not None  # without a word
    file.write_bytes(
        content[:start] + cut(stream, kept=0.4).ljust(end - start, b"\0") + content[end:]
    )
    with pytest.raises(UserError, match="ends early"):
        decode_image(file)
