"""Files of anomaly maps with unusual values."""

import io

import numpy as np
import pytest
from PIL import Image

from recon_ad.detector import maps


def opened(content):
    with Image.open(io.BytesIO(content)) as png:
        levels = np.asarray(png).astype(np.float64)
        black, white = float(png.text["black"]), float(png.text["white"])
    return levels, black + levels * (white - black) / 65535


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1.0, 1e30, 3e38])
def test_a_png_gives_its_map_again_at_any_scale(scale):
    values = (scale * np.random.default_rng(0).uniform(-1, 1, (7, 9))).astype(np.float32)
    levels, again = opened(maps.png(values))
    assert levels.max() == 65535 and levels.min() == 0
    span = float(values.max()) - float(values.min())
    np.testing.assert_allclose(again, values.astype(np.float64), rtol=0, atol=0.5001 * span / 65535)


def test_a_flat_map_and_one_with_infinity_have_a_png():
    levels, again = opened(maps.png(np.full((3, 4), 0.25, np.float32)))
    assert not levels.any() and (again == 0.25).all()
    levels, again = opened(maps.png(np.float32([[0, 1], [np.inf, np.nan]])))
    assert np.isfinite(again).all() and levels[1, 0] == 65535
