"""Inserted defects: size, contrast, place, range and type, and that the seed decides."""

import numpy as np
import pytest
from scipy import ndimage

from recon_ad.certification.defects import FLATTEST, KINDS, as_type, insert, robust_range, room
from recon_ad.errors import UserError


def good(dtype=np.uint8, channels=1, side=160, seed=0):
    """Return a textured image between .2 and .8."""
    values = np.random.default_rng(seed).uniform(0.2, 0.8, (side, side, channels))
    return as_type(values.astype(np.float32), np.dtype(dtype))


def drawn(kind, image, *, size=24.0, seed=1, region=None):
    contrast = KINDS[kind].contrasts[-1]
    rng = np.random.default_rng(seed)
    return insert(image, region, kind=kind, size=size, contrast=contrast, rng=rng)


def diameter(mask):
    """Return the largest distance between two pixels of a mask, plus one pixel."""
    edge = mask & ~ndimage.binary_erosion(mask)
    places = np.argwhere(edge).astype(float)
    between = places[:, None] - places[None]
    return np.sqrt((between**2).sum(-1)).max() + 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint16, 3), (np.float32, 2)])
def test_the_image_keeps_its_type_and_changes_near_the_mask_alone(kind, dtype, channels):
    image = good(dtype, channels)
    before = image.copy()
    made = drawn(kind, image)
    assert made.image.dtype == dtype and made.image.shape == image.shape
    np.testing.assert_array_equal(image, before)
    changed = (made.image != image).any(-1)
    assert changed[made.mask].mean() > 0.5
    rows, columns = np.nonzero(made.mask)
    y, x = np.nonzero(changed)
    centre = np.array([rows.min() + rows.max(), columns.min() + columns.max()]) / 2
    assert np.hypot(y - centre[0], x - centre[1]).max() < 24


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [6.0, 20.0, 60.0])
def test_the_size_is_the_diameter_of_the_mask(kind, size):
    found = [diameter(drawn(kind, good(), size=size, seed=s).mask) for s in range(8)]
    # An uneven outline draws in, and pixels round by up to one on either side.
    assert max(found) < size + 2.5
    assert np.mean(found) > 0.75 * size - 1


@pytest.mark.parametrize("kind", ["spot", "dent", "smear"])
@pytest.mark.parametrize("contrast", [0.15, 0.4])
def test_the_contrast_is_a_share_of_the_images_range(kind, contrast):
    image = good(np.float32)
    image = 0.4 + 0.2 * image  # other range, other share
    wanted = contrast * robust_range(image)
    for seed in range(5):
        made = insert(
            image, None, kind=kind, size=40.0, contrast=contrast, rng=np.random.default_rng(seed)
        )
        change = np.abs(made.image - image).max()
        assert change == pytest.approx(wanted, rel=0.15)


def test_brighter_and_darker_spots_both_occur_and_stay_within_the_range():
    image = good()
    signs = set()
    for seed in range(12):
        made = drawn("spot", image, seed=seed)
        signs.add(int(np.sign(made.image[made.mask].mean() - image[made.mask].mean())))
    assert signs == {-1, 1}
    white = np.full((64, 64, 1), 255, np.uint8)
    made = drawn("spot", white)
    assert made.image.min() == 255 - round(0.8 * FLATTEST * 255)


def test_a_dent_is_bright_on_one_side_and_dark_on_the_other():
    image = np.full((120, 120, 1), 0.5, np.float32)
    change = drawn("dent", image, size=40.0).image - image
    assert change.max() == pytest.approx(-change.min(), rel=0.1) and abs(change.mean()) < 1e-4


def test_missing_structure_shows_another_place_of_the_same_image():
    ramp = np.linspace(0, 1, 200, dtype=np.float32)[None, :, None].repeat(200, 0)
    made = drawn("missing", ramp, size=30.0)
    values = made.image[made.mask]
    assert values.min() >= 0 and values.max() <= 1
    assert np.abs(made.image - ramp)[made.mask].max() > 0.02


def test_defects_lie_within_the_region_and_everywhere_in_it():
    region = np.zeros((160, 160), bool)
    region[20:90, 30:150] = True
    centres = []
    for seed in range(60):
        made = drawn("spot", good(), seed=seed, size=20.0, region=region)
        assert not (made.mask & ~region).any()
        centres.append(np.argwhere(made.mask).mean(0))
    low, high = np.min(centres, 0), np.max(centres, 0)
    assert (low < (40, 55)).all() and (high > (70, 125)).all()


def test_a_region_without_room_is_refused():
    region = np.zeros((160, 160), bool)
    region[50:60] = True
    assert 6 < room((160, 160), region) < 10
    with pytest.raises(UserError, match=r"no room for a defect of 20 px"):
        drawn("spot", good(), size=20.0, region=region)
    assert drawn("spot", good(), size=room((160, 160), region), region=region).mask.any()


def test_the_same_random_numbers_give_the_same_defect():
    one, same, other = (drawn("smear", good(), seed=s).image for s in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
