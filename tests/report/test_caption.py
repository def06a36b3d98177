"""Words above a picture: complete, legible at any size, and outside the image."""

import numpy as np
import pytest

from recon_ad.report.caption import PAPER, with_caption

WORDS = ["reject", "score 0.0713", "threshold 0.0234"]
INK = (255, 120, 0)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "lines", "scale"),
    [((64, 64), 3, 1), ((256, 256), 1, 1), ((64, 130), 2, 1), ((1500, 2000), 1, 5), ((1, 1), 3, 1),
     ((2000, 100), 3, 5)],
)  # fmt: skip
def test_the_image_is_whole_below_its_words(size, lines, scale):
    image = noise(*size)
    made = with_caption(image, WORDS, colour=INK)
    strip = (11 * lines + 6) * scale
    assert made.shape[0] == strip + size[0] and made.shape[1] >= size[1]
    np.testing.assert_array_equal(made[strip:, : size[1]], image)
    around = made[:strip], made[:, size[1] :]
    assert all(np.isin(part.reshape(-1, 3), (INK, PAPER)).all() for part in around)
    inked = (made[:strip] == INK).all(axis=2)
    # A margin on every side, so that no letter is cut off.
    assert inked.any() and not inked[:, -2 * scale :].any() and not inked[: 2 * scale].any()


def test_letters_differ_by_word_and_are_enlarged_as_they_are():
    small, large = (
        with_caption(noise(n, n), WORDS, colour=INK)[: 17 * n // 400] for n in (400, 800)
    )
    np.testing.assert_array_equal(small.repeat(2, axis=0).repeat(2, axis=1), large)
    other = with_caption(noise(400, 400), ["good", *WORDS[1:]], colour=INK)[:17]
    assert not np.array_equal(small, other)
