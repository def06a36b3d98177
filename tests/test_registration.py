"""A part is found where it was put: in known poses, in other light, covered, or not at all."""

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from recon_ad.errors import UserError
from recon_ad.inspection import coarse, geometry
from recon_ad.inspection.coarse import Search
from recon_ad.inspection.geometry import align, corners
from recon_ad.inspection.registration import make_template, register

SEARCH = Search(angle=15, scale=0.1, overlap=0.5, confidence=0.9)
SHAPE = (120, 200)


def part(shape=SHAPE):
    """Smooth blobs of no symmetry, float32 [h, w, 1]."""
    noise = np.random.default_rng(0).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, 6)
    return ((smooth - smooth.min()) / np.ptp(smooth)).astype(np.float32)[..., None]


def moved(image, *, angle=0.0, scale=1.0, shift=(0.0, 0.0)):
    """The part in another pose, which pixels are of the picture, and the pose."""
    shape = image.shape[:2]
    matrix = geometry.similarity(angle=angle, scale=scale, shift=shift, shape=shape)
    flat = image[..., 0] if image.shape[2] == 1 else image
    picture = cv2.warpAffine(flat, matrix, shape[::-1], flags=cv2.INTER_CUBIC)
    valid = cv2.warpAffine(np.ones(shape, np.float32), matrix, shape[::-1]) > 0.999
    valid = ndimage.binary_erosion(valid, np.ones((5, 5)), border_value=1)  # a cubic's neighbours
    picture = picture.reshape(image.shape)
    return np.clip(picture, 0, 1) if picture.dtype == np.float32 else picture, valid, matrix


def away(found, expected, shape=SHAPE):
    """How far the worst corner is off, px."""
    difference = corners(found, shape) - corners(expected, shape)
    return np.linalg.norm(difference, axis=1).max()


def test_the_matrix_turns_counter_clockwise_about_the_middle():
    matrix = geometry.similarity(angle=90, scale=2, shift=(3, 5), shape=(11, 21))
    np.testing.assert_allclose(matrix @ [10, 5, 1], [13, 10])  # the middle, shifted
    # One pixel to the right of it becomes two above it: rows grow downwards.
    np.testing.assert_allclose(matrix @ [11, 5, 1], [13, 8], atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_known_poses_are_found_to_a_fraction_of_a_pixel(seed):
    random = np.random.default_rng(seed)
    pose = {
        "angle": random.uniform(-15, 15),
        "scale": random.uniform(0.9, 1.1),
        "shift": tuple(random.uniform(-20, 20, 2)),
    }
    picture, valid, matrix = moved(part(), **pose)
    found = register(picture, make_template(part()), SEARCH, valid=valid)
    assert found.registered
    # Twice interpolated; the coarse step alone is off by pixels (a template of 64 px).
    assert away(found.matrix, matrix) < 0.2
    assert found.confidence > 0.99


def test_half_pixels_are_told_apart():
    template = make_template(part())
    for x in (0.25, 0.5):
        picture, valid, matrix = moved(part(), shift=(x, 0.0))
        assert away(register(picture, template, SEARCH, valid=valid).matrix, matrix) < 0.05


def test_light_and_a_defect_do_not_move_it():
    picture, valid, matrix = moved(part(), angle=7, shift=(5, -9))
    template = make_template(part())
    dim = (0.1 + 0.4 * picture).astype(np.float32)
    assert away(register(dim, template, SEARCH, valid=valid).matrix, matrix) < 0.2
    picture[40:70, 80:120] = 0.0
    defective = register(picture, template, SEARCH._replace(confidence=0.5), valid=valid)
    assert defective.registered
    assert away(defective.matrix, matrix) < 0.5


def test_a_dark_part_on_a_ground_without_any_noise_is_found():
    image = np.ones((240, 400, 1), np.float32)
    image[60:180, 90:300] = 0.1
    image[60:120, 240:300] = 1.0
    blurred = cv2.GaussianBlur(image[..., 0], (0, 0), 1.5)[..., None]
    picture, valid, matrix = moved(blurred, angle=6, scale=1.04, shift=(7, -5))
    picture[~valid] = 1.0
    found = register(picture, make_template(blurred), SEARCH)
    assert found.registered and away(found.matrix, matrix, (240, 400)) < 0.3


def test_what_lies_outside_the_picture_says_nothing():
    picture, valid, matrix = moved(part(), angle=-12, scale=0.92)
    template = make_template(part())
    black = register(picture, template, SEARCH, valid=valid)
    picture[~valid] = 1.0
    white = register(picture, template, SEARCH, valid=valid)
    assert away(black.matrix, white.matrix) < 0.02
    assert away(white.matrix, matrix) < 0.2


def test_only_the_masked_part_of_the_template_is_looked_for():
    random = np.random.default_rng(1)
    mask = np.zeros(SHAPE, bool)
    mask[20:100, 30:170] = True
    picture, valid, matrix = moved(part(), angle=4, shift=(6, 3))
    around = cv2.warpAffine(mask.astype(np.float32), matrix, SHAPE[::-1]) < 0.5
    picture[around] = random.uniform(size=(around.sum(), 1))
    found = register(picture, make_template(part(), mask=mask), SEARCH, valid=valid)
    assert found.registered and away(found.matrix, matrix) < 0.3


def test_what_cannot_be_registered_is_said_to_be_so():
    template = make_template(part())
    random = np.random.default_rng(2)
    strangers = {
        "noise": random.uniform(size=(*SHAPE, 1)).astype(np.float32),
        "gray": np.full((*SHAPE, 1), 0.5, np.float32),
        "another part": part()[::-1, ::-1].copy(),
        "turned too far": moved(part(), angle=60)[0],
        "too small": moved(part(), scale=0.6)[0],
        "out of the picture": moved(part(), shift=(150, 0))[0],
    }
    for name, picture in strangers.items():
        assert not register(picture, template, SEARCH).registered, name
    nothing = register(part(), template, SEARCH, valid=np.zeros(SHAPE, bool))
    assert not nothing.registered and np.isfinite(nothing.matrix).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_aligned_image_is_the_template_and_maps_go_back(dtype):
    image = np.repeat(part(), 3, axis=2)
    if dtype != np.float32:
        image = np.rint(image * np.iinfo(dtype).max).astype(dtype)
    picture, valid, matrix = moved(image, angle=9, scale=1.05, shift=(4, -7))
    aligned, seen = align(picture, matrix, SHAPE, valid=valid)
    assert aligned.dtype == dtype and aligned.shape == image.shape
    assert 0.7 < seen.mean() < 1
    one = 1 if dtype == np.float32 else np.iinfo(dtype).max
    error = np.abs(aligned[seen].astype(float) - image[seen]) / one
    assert error.max() < 0.02  # interpolated twice, at the picture's border from what it repeats
    spot = np.zeros(SHAPE, np.float32)
    spot[60, 100] = 1.0
    back = geometry.unalign(ndimage.gaussian_filter(spot, 3), matrix, SHAPE, fill=-1)
    y, x = np.unravel_index(back.argmax(), SHAPE)
    assert np.hypot(*(np.array([x, y]) - matrix @ [100, 60, 1])) <= 1
    assert back.min() == -1 and (back >= 0).mean() > 0.7


def test_the_coarse_correlation_is_that_of_the_pixels_that_both_show():
    """Against the definition, shift by shift."""
    random = np.random.default_rng(3)
    scene, seen = random.uniform(size=(12, 15)), random.uniform(size=(12, 15)) > 0.2
    pose, mask = random.uniform(size=(5, 6)), random.uniform(size=(5, 6)) > 0.2
    size = [20, 24]
    middle = scene[seen].mean()
    parts = (np.where(seen, scene - middle, 0), np.where(seen, (scene - middle) ** 2, 0), seen)
    found = coarse._correlate(
        [np.fft.rfft2(p, s=size) for p in parts],
        pose.astype(np.float32),
        mask,
        size=size,
        least=10,
    )
    compared = 0
    for dy in range(-3, 11):
        for dx in range(-4, 13):
            pairs = [
                (scene[y + dy, x + dx], pose[y, x])
                for y, x in np.argwhere(mask)
                if 0 <= y + dy < 12 and 0 <= x + dx < 15 and seen[y + dy, x + dx]
            ]
            if len(pairs) < 10:
                assert found[dy, dx] == -1
                continue
            expected = np.corrcoef(np.transpose(pairs))[0, 1]
            assert found[dy, dx] == pytest.approx(expected, abs=1e-4)  # float32 sums
            compared += 1
    assert compared > 50


def test_bad_input_gets_a_sentence():
    with pytest.raises(UserError, match="nothing but one gray"):
        make_template(np.zeros((20, 20, 1), np.uint8))
    speck = np.zeros(SHAPE, bool)
    speck[60:63, 100:103] = True  # nothing of it is left in the first look
    with pytest.raises(UserError, match=r"fewer than 16 pixels of the template.*larger mask"):
        register(part(), make_template(part(), mask=speck), SEARCH)


def test_moved_ball_screws_are_found(real_data):
    paths = sorted((real_data / "bsdata" / "ball_screw" / "train" / "good").iterdir())
    images = [np.asarray(Image.open(path)) for path in (paths[0], *paths[3::12])]
    template = make_template(images[0])
    search = SEARCH._replace(confidence=0.8)
    random = np.random.default_rng(4)
    errors = []
    for image in images[1:]:
        shape = image.shape[:2]
        pose = {
            "angle": random.uniform(-15, 15),
            "scale": random.uniform(0.9, 1.1),
            "shift": tuple(random.uniform(-40, 40, 2)),
        }
        picture, valid, matrix = moved(image, **pose)
        found = register(picture, template, search, valid=valid)
        assert found.registered
        # The parts themselves lie some pixels apart: what was done to the picture is known.
        own = register(image, template, search).matrix
        expected = (np.vstack([matrix, [0, 0, 1]]) @ np.vstack([own, [0, 0, 1]]))[:2]
        errors.append(away(found.matrix, expected, shape))
    assert np.median(errors) < 1 and max(errors) < 3
