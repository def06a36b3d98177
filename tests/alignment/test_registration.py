"""Registration of a part in known poses, in other light, covered, or missing."""

import itertools

import cv2
import numpy as np
import pytest
from helpers.parts import moved, moved_mask
from PIL import Image
from scipy import ndimage

from recon_ad.alignment import coarse_search as coarse
from recon_ad.alignment import geometry
from recon_ad.alignment.coarse_search import Search
from recon_ad.alignment.geometry import align, corners
from recon_ad.alignment.registration import make_template, register
from recon_ad.errors import UserError

SEARCH = Search(angle=15, scale=0.1, overlap=0.5, confidence=0.9)
SHAPE = (72, 120)


# The part consists of smooth blobs without symmetry, float32 [h, w, 1].
_smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(SHAPE), 4)
PART = ((_smooth - _smooth.min()) / np.ptp(_smooth)).astype(np.float32)[..., None]
TEMPLATE = make_template(PART)


def pose_of(random, shift):
    """Draw a pose within the search, with a shift of at most so many px."""
    return {
        "angle": random.uniform(-15, 15), "scale": random.uniform(0.9, 1.1),
        "shift": random.uniform(-shift, shift, 2),
    }  # fmt: skip


def find(picture, valid=None, *, template=TEMPLATE, **fields):
    """Register a picture, by default one with the part."""
    return register(picture, template, SEARCH._replace(**fields), valid=valid)


def away(found, expected, shape=SHAPE):
    """Return the error of the worst corner in px."""
    difference = corners(found, shape) - corners(expected, shape)
    return np.linalg.norm(difference, axis=1).max()


def test_the_matrix_turns_counter_clockwise_about_the_middle():
    matrix = geometry.similarity(angle=90, scale=2, shift=(3, 5), shape=(11, 21))
    np.testing.assert_allclose(matrix @ [10, 5, 1], [13, 10])  # the middle, shifted
    # One pixel to the right becomes two pixels above, because rows grow downwards.
    np.testing.assert_allclose(matrix @ [11, 5, 1], [13, 8], atol=1e-12)


@pytest.mark.parametrize(
    ("given", "least"),
    [
        # Interpolated twice. The coarse step alone is off by pixels (with a template of 64 px).
        *((pose_of(np.random.default_rng(seed), 12), 0.2) for seed in range(4)),
        ({"shift": (0.25, 0.0)}, 0.05),
        ({"shift": (0.5, 0.0)}, 0.05),
    ],
)
def test_known_poses_are_found_to_a_fraction_of_a_pixel(given, least):
    picture, valid, matrix = moved(PART, **given)
    found = find(picture, valid)
    assert found.registered and found.confidence > 0.99
    assert away(found.matrix, matrix) < least


def test_light_and_a_defect_do_not_move_it():
    picture, valid, matrix = moved(PART, angle=7, shift=(3, -5))
    dim = (0.1 + 0.4 * picture).astype(np.float32)
    assert away(find(dim, valid).matrix, matrix) < 0.2
    picture[24:42, 48:72] = 0.0
    defective = find(picture, valid, confidence=0.5)
    assert defective.registered and away(defective.matrix, matrix) < 0.5


def test_a_dark_part_on_a_ground_without_any_noise_is_found():
    image = np.ones((240, 400), np.float32)  # so large that it is refined at two resolutions
    image[60:180, 90:300] = 0.1
    image[60:120, 240:300] = 1.0
    blurred = cv2.GaussianBlur(image, (0, 0), 1.5)[..., None]
    picture, valid, matrix = moved(blurred, angle=6, scale=1.04, shift=(7, -5))
    picture[~valid] = 1.0
    found = find(picture, template=make_template(blurred))
    assert found.registered and away(found.matrix, matrix, image.shape) < 0.3


def test_what_lies_outside_the_picture_has_no_influence():
    picture, valid, matrix = moved(PART, angle=-12, scale=0.92)
    found = []
    for value in (0.0, 1.0):
        picture[~valid] = value
        found.append(find(picture, valid).matrix)
    assert away(*found) < 0.02 and away(found[1], matrix) < 0.2


def test_only_the_masked_part_of_the_template_is_looked_for():
    mask = np.zeros(SHAPE, bool)
    mask[12:60, 18:102] = True
    picture, valid, matrix = moved(PART, angle=4, shift=(4, 2))
    around = ~moved_mask(mask, matrix)
    picture[around] = np.random.default_rng(1).uniform(size=(around.sum(), 1))
    found = find(picture, valid, template=make_template(PART, mask=mask))
    assert found.registered and away(found.matrix, matrix) < 0.3


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("noise", np.random.default_rng(2).random((*SHAPE, 1), np.float32)),
        ("gray", np.full((*SHAPE, 1), 0.5, np.float32)),
        ("another part", PART[::-1, ::-1].copy()),
        ("turned too far", moved(PART, angle=60)[0]),
        ("too small", moved(PART, scale=0.6)[0]),
        ("out of the picture", moved(PART, shift=(90, 0))[0]),
    ],
)
def test_what_does_not_show_the_part_is_not_registered(name, picture):
    assert not find(picture).registered
    nothing = find(picture, np.zeros(SHAPE, bool))
    assert not nothing.registered and np.isfinite(nothing.matrix).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_aligned_image_is_the_template_and_maps_go_back(dtype):
    image = np.repeat(PART, 3, axis=2)
    if dtype != np.float32:
        image = np.rint(image * np.iinfo(dtype).max).astype(dtype)
    picture, valid, matrix = moved(image, angle=9, scale=1.05, shift=(2, -4))
    aligned, seen = align(picture, matrix, SHAPE, valid=valid)
    assert aligned.dtype == dtype and aligned.shape == image.shape
    assert 0.7 < seen.mean() < 1
    one = 1 if dtype == np.float32 else np.iinfo(dtype).max
    error = np.abs(aligned[seen].astype(float) - image[seen]) / one
    assert error.max() < 0.02  # interpolated twice, at the border from repeated pixels
    spot = np.zeros(SHAPE, np.float32)
    spot[36, 60] = 1.0
    back = geometry.unalign(ndimage.gaussian_filter(spot, 3), matrix, SHAPE, fill=-1)
    y, x = np.unravel_index(back.argmax(), SHAPE)
    assert np.hypot(*(np.array([x, y]) - matrix @ [60, 36, 1])) <= 1
    assert back.min() == -1 and (back >= 0).mean() > 0.7


def test_the_coarse_correlation_is_that_of_the_pixels_that_both_show():
    """Compare with the definition, shift by shift."""
    random = np.random.default_rng(3)
    scene, seen = random.uniform(size=(12, 15)), random.uniform(size=(12, 15)) > 0.2
    pose, mask = random.uniform(size=(5, 6)), random.uniform(size=(5, 6)) > 0.2
    size = [20, 24]
    middle = scene[seen].mean()
    parts = (np.where(seen, scene - middle, 0), np.where(seen, (scene - middle) ** 2, 0), seen)
    transforms = [np.fft.rfft2(p, s=size) for p in parts]
    found = coarse._correlate(transforms, pose.astype(np.float32), mask, size=size, least=10)
    around = ((5, 5), (6, 6))
    scene, seen = np.pad(scene, around), np.pad(seen, around)
    compared = 0
    for dy, dx in itertools.product(range(-3, 11), range(-4, 13)):
        window = np.s_[dy + 5 : dy + 10, dx + 6 : dx + 12]
        both = mask & seen[window]
        if both.sum() < 10:
            assert found[dy, dx] == -1
            continue
        expected = np.corrcoef(scene[window][both], pose[both])[0, 1]
        assert found[dy, dx] == pytest.approx(expected, abs=1e-4)  # float32 sums
        compared += 1
    assert compared > 50


def test_bad_input_gets_a_sentence():
    with pytest.raises(UserError, match="uniformly gray"):
        make_template(np.zeros((20, 20, 1), np.uint8))
    speck = np.zeros(SHAPE, bool)
    speck[35:38, 60:63] = True  # invisible in the coarse search
    with pytest.raises(UserError, match=r"fewer than 16 pixels of the template.*larger mask"):
        find(PART, template=make_template(PART, mask=speck))


@pytest.mark.slow
def test_moved_ball_screws_are_found(real_data):
    paths = sorted((real_data / "bsdata" / "ball_screw" / "train" / "good").iterdir())
    template, *images = (np.array(Image.open(path)) for path in (paths[0], *paths[3::24]))
    template = make_template(template)
    random = np.random.default_rng(4)
    errors = []
    for image in images:
        picture, valid, matrix = moved(image, **pose_of(random, 40))
        found = find(picture, valid, template=template, confidence=0.8)
        assert found.registered
        # The parts themselves differ by some pixels, but the pose of the picture is known.
        own = find(image, template=template, confidence=0.8).matrix
        expected = (np.vstack([matrix, [0, 0, 1]]) @ np.vstack([own, [0, 0, 1]]))[:2]
        errors.append(away(found.matrix, expected, image.shape[:2]))
    assert np.median(errors) < 1 and max(errors) < 3
