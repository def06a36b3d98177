"""Files of very many chunks or segments are refused at once, and long files are not."""

import numpy as np
import pytest
from helpers.png_files import chunk
from PIL import Image

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


def test_a_file_of_many_longer_pieces_is_decoded(tmp_path):
    file = saved(tmp_path / "a.png")
    content, whole = file.read_bytes(), decode_image(file)
    file.write_bytes(content[:33] + 20_000 * chunk(b"prIv", bytes(256)) + content[33:])
    np.testing.assert_array_equal(decode_image(file), whole)
