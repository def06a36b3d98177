"""The generated riblet foil and granular steel: what is shown, the damage and its truth."""

import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from recon_ad.data import granular, riblet, surface
from recon_ad.data.granular import granular_source
from recon_ad.data.riblet import riblet_source
from recon_ad.data.source import GOOD
from recon_ad.errors import UserError

SETS = {
    "albedo": (riblet, riblet_source, (3672, 5496, 1)),
    "normals": (riblet, riblet_source, (3672, 5496, 3)),
    "gradient": (granular, granular_source, (2336, 4000, 1)),
    "curvature": (granular, granular_source, (2336, 4000, 1)),
}
SMALL = (500, 700)  # px; the damage needs the full size


def small(kind, *, seed=0, split="train", index=0, size=SMALL, **options) -> np.ndarray:
    module = SETS[kind][0]
    return module._draw(kind, seed, split, index, damaged=False, size=size, **options)


def damaged_records(kind, **options):
    return [r for r in SETS[kind][1](kind, **options).test if r.anomalous]


# Full-size images take seconds each, so that the tests share them.
@cache
def loaded(kind, split, index) -> np.ndarray:
    source = SETS[kind][1](kind)
    folder, defect = {"train": ("train", GOOD), "test_good": ("test", GOOD)}.get(
        split, ("test", "damaged")
    )
    name = f"{folder}/{defect}/{index:03d}.png"
    return next(r for r in source.train + source.test if r.name == name).load()


@cache
def without_damage(kind) -> np.ndarray:
    return SETS[kind][0]._draw(kind, 0, "test_damaged", 0, damaged=False)


@pytest.fixture(scope="module", autouse=True)
def forget():
    yield
    loaded.cache_clear()
    without_damage.cache_clear()


@pytest.mark.parametrize(
    "kind, train, damaged, good",
    [("albedo", 8, 4, 2), ("normals", 2, 2, 1), ("gradient", 1, 1, 1), ("curvature", 1, 1, 1)],
)
def test_as_many_images_as_in_the_paper_and_good_tests(kind, train, damaged, good):
    source = SETS[kind][1](kind)
    assert [r.name for r in source.train] == [f"train/good/{i:03d}.png" for i in range(train)]
    names = [f"test/damaged/{i:03d}.png" for i in range(damaged)]
    assert [r.name for r in source.test] == names + [f"test/good/{i:03d}.png" for i in range(good)]
    assert [r.defect for r in source.test] == ["damaged"] * damaged + [GOOD] * good
    for record in source.train + source.test:
        assert (record.load_mask is not None) == record.anomalous
        assert not record.other_masks


@pytest.mark.parametrize("kind", SETS)
def test_images_and_truths_have_the_papers_size(kind):
    shape = SETS[kind][2]
    image = loaded(kind, "test_damaged", 0)
    assert image.shape == shape and image.dtype == np.uint8
    truth = damaged_records(kind)[0].load_mask()
    assert truth.shape == shape[:2] and truth.dtype == bool


@pytest.mark.parametrize(
    "kind, expected",
    [("albedo", 160093), ("normals", 651811), ("gradient", 213381), ("curvature", 114573)],
)
def test_the_images_of_seed_0_are_the_same_everywhere(kind, expected):
    # A change of these sums changes every figure that was ever reported on these sets. Rounding
    # may differ by a gray level here and there from machine to machine.
    corner = loaded(kind, "test_damaged", 0)[:64, :64].astype(int)
    assert abs(np.abs(corner - 128).sum() - expected) <= 20


@pytest.mark.parametrize("kind", SETS)
def test_seed_split_and_index_say_it_all(kind):
    np.testing.assert_array_equal(small(kind, seed=3), small(kind, seed=3))
    others = [
        small(kind),
        small(kind, seed=3),
        small(kind, index=1),
        small(kind, split="test_good"),
        small(kind, split="test_damaged"),
    ]
    assert len({o.tobytes() for o in others}) == len(others)


@pytest.mark.parametrize("kind", SETS)
def test_no_pixel_depends_on_how_many_rows_are_rendered_at_a_time(kind):
    expected = small(kind)
    for band in (7, 499, 500):
        np.testing.assert_array_equal(small(kind, band=band), expected)


@pytest.mark.parametrize("kind", ["normals", "gradient"])
def test_good_images_are_the_surface_without_damage(kind):
    for split in ("train", "test_good") if kind == "gradient" else ("test_good",):
        plain = SETS[kind][0]._draw(kind, 0, split, 0, damaged=False)
        np.testing.assert_array_equal(loaded(kind, split, 0), plain)


@pytest.mark.parametrize("kind", SETS)
def test_the_damage_is_where_the_truth_says(kind):
    image, plain = loaded(kind, "test_damaged", 0), without_damage(kind)
    change = np.abs(image.astype(np.int16) - plain).max(axis=2)
    truth = damaged_records(kind)[0].load_mask()
    assert np.mean(change[truth] > 0) > 0.9
    assert np.mean(change[truth]) > 8
    # Slopes reach a pixel further than the height that makes them; below the threshold of the
    # truth a little is left over.
    beyond = ~ndimage.binary_dilation(truth, iterations=2)
    assert np.mean(change[beyond] > 0) < 0.002
    assert np.mean(change[beyond] > 16) < 1e-4
    pieces, number = ndimage.label(ndimage.binary_dilation(truth, iterations=8))
    assert number >= 6
    assert all(
        change[part][pieces[part] == i + 1].max() > 8
        for i, part in enumerate(ndimage.find_objects(pieces))
    )


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_truths_cover_a_little_of_the_image_and_follow_the_seed(kind, seed):
    truths = [r.load_mask() for r in damaged_records(kind, seed=seed)]
    for truth in truths:
        assert 0.0005 < truth.mean() < 0.1
    again = pickle.loads(pickle.dumps(damaged_records(kind, seed=seed)[0])).load_mask()
    np.testing.assert_array_equal(truths[0], again)
    other = damaged_records(kind, seed=seed + 1)[0].load_mask()
    assert np.mean(truths[0] & other) < 0.5 * truths[0].mean()
    assert len({t.tobytes() for t in truths}) == len(truths)


def test_albedo_and_normals_share_their_damage_but_for_what_is_only_darker():
    albedo, normals = (damaged_records(k)[0].load_mask() for k in ("albedo", "normals"))
    assert not (normals & ~albedo).any()
    assert (albedo & ~normals).any()


def test_gradient_and_curvature_share_their_damage():
    truths = [damaged_records(k)[0].load_mask() for k in ("gradient", "curvature")]
    np.testing.assert_array_equal(*truths)


@pytest.mark.parametrize("module", [riblet, granular])
def test_every_kind_of_damage_is_in_every_damaged_image(module):
    kinds = module._DAMAGE_KINDS
    assert module.DAMAGES[0] >= len(kinds)
    placed = surface.place_kinds(np.random.default_rng(0), kinds, 2 * len(kinds) + 1, module.SIZE)
    names = [kind.__name__ for kind, _ in placed]
    expected = {kind.__name__ for kind, *_ in kinds}
    assert set(names[: len(kinds)]) == set(names[len(kinds) : -1]) == expected
    inside = np.zeros(module.SIZE, np.uint8)
    for _, window in placed:
        assert inside[window.slices].shape == (window.height, window.width)
        inside[window.slices] += 1
    assert inside.max() == 1


def autocorrelation(image: np.ndarray, lags, axis: int) -> np.ndarray:
    """Of a [h, w] image about its mean, at shifts along one axis."""
    centred = image - image.mean()
    moved = np.moveaxis(centred, axis, 0)
    return np.array([np.mean(moved[k:] * moved[: len(moved) - k]) for k in lags]) / image.var()


@pytest.mark.parametrize("kind, channel", [("albedo", 0), ("normals", 1), ("normals", 2)])
def test_riblets_repeat_down_the_image_and_run_along_it(kind, channel):
    # Few columns, over which the tilt and the waves shift the tracks by less than 2 px.
    image = small(kind)[:, :300, channel].astype(float)
    lags = np.arange(60)
    down = autocorrelation(image, lags, 0)
    if channel == 2:
        # Both flanks look up alike, so that within a period there are two of them.
        assert 17 <= 12 + np.argmax(down[12:25]) <= 19
    else:
        assert 17 <= 6 + np.argmax(down[6:27]) <= 19
    assert down[18] > 0.7 and down[36] > 0.6
    along = autocorrelation(image, lags, 1)
    assert along.min() > 0.6


def test_the_tracks_of_the_albedo_are_bright_ridges_and_dark_grooves():
    foil = riblet._foil(0, "train", 0, SMALL)
    _, within = riblet._tracks(foil, slice(0, 500), slice(0, 700))
    image = small("albedo")[..., 0] / 255
    ridge, groove = image[np.abs(within - 0.5) < 0.1], image[np.abs(within - 0.5) > 0.4]
    assert 0.55 < ridge.mean() < 0.9 and 0.2 < groove.mean() < 0.55
    assert np.mean(ridge) - np.mean(groove) > 4 * groove.std()
    assert np.mean(image == 1) < 0.01 and np.mean(image == 0) == 0


@pytest.mark.parametrize("split", ["train", "test_good", "test_damaged"])
def test_darker_stretches_lie_in_good_and_damaged_images_of_even_index(split):
    foils = [riblet._foil(0, split, i, riblet.SIZE) for i in range(4)]
    assert [bool(f.dark) for f in foils] == [True, False, True, False]
    image = loaded("albedo", split, 0)[..., 0]
    for down, along in foils[0].dark:
        rows, inside = down > 0.8 * down.max(), along == 1
        outside = np.sum([a for _, a in foils[0].dark], axis=0) == 0
        assert inside.sum() > 400 and outside.sum() > 100
        assert inside.sum() > 2 * rows.sum()  # long, along the tracks
        ratio = image[rows][:, inside].mean() / image[rows][:, outside].mean()
        assert 0.5 < ratio < 0.92


def test_darker_stretches_are_in_no_truth_mask():
    foil = riblet._foil(0, "test_damaged", 0, riblet.SIZE)
    truth = damaged_records("albedo")[0].load_mask()
    for down, along in foil.dark:
        rows, columns = np.flatnonzero(down > 0.05), np.flatnonzero(along > 0.5)
        assert truth[np.ix_(rows, columns)].mean() < 0.05


def test_normals_are_of_unit_length_and_look_up():
    normals = loaded("normals", "test_damaged", 0) / np.float32(127.5) - 1
    length = np.sqrt((normals**2).sum(axis=2))
    assert np.abs(length - 1).max() < 0.02
    assert normals[..., 2].min() > 0
    # Across the tracks the surface rises and falls, along them it does not.
    assert normals[..., 1].std() > 5 * normals[..., 0].std()
    assert np.abs(normals[..., :2].mean(axis=(0, 1))).max() < 0.02


@pytest.mark.parametrize("slope", [(0.0, 0.5), (-0.75, 0.0), (0.4, 0.3)])
def test_normals_of_a_plane_have_x_right_y_down_z_up(slope):
    right, down = slope
    height = right * np.arange(12) + down * np.arange(9)[:, None]
    image = riblet._normals(height.astype(np.float32), 4)
    expected = np.array([-right, -down, 1]) / np.sqrt(1 + right**2 + down**2)
    assert np.abs(image / 127.5 - 1 - expected).max() < 0.005


def test_curvature_of_a_bowl_is_one_over_its_radius():
    x, y = np.meshgrid(np.arange(-20, 21), np.arange(-15, 16))
    bowl = (100 - np.sqrt(100.0**2 - x**2 - y**2)).astype(np.float32)
    curvature = granular._mean_curvature(bowl, slice(0, 31))
    np.testing.assert_allclose(curvature[1:-1, 1:-1], 0.01, rtol=0.01)
    np.testing.assert_array_equal(granular._mean_curvature(bowl, slice(9, 13)), curvature[9:13])


def test_gradient_and_curvature_show_one_surface(monkeypatch):
    # A hill for noise: its foot and its top are level, its top is curved.
    x, y = np.meshgrid(np.arange(101) - 50, np.arange(81) - 40)
    hill = (30 * np.exp(-(x**2 + y**2) / 2 / 15**2)).astype(np.float32)
    monkeypatch.setattr(granular, "smooth_noise", lambda rng, size, sigma: hill.copy())
    monkeypatch.setattr(granular, "GRAINS", ((1.0, 1.0),))
    gradient = small("gradient", size=hill.shape)[..., 0] / 255 * granular.GRADIENT_MAX
    steepest = 30 / 15 * np.exp(-0.5)  # at a distance of 15 px
    assert abs(gradient[40, 65] - steepest) < 0.02 and abs(gradient[55, 50] - steepest) < 0.02
    assert gradient[40, 50] < 0.01 and gradient[0, 0] < 0.05
    shown = small("curvature", size=hill.shape)[..., 0] / 255
    curvature = (2 * shown - 1) * granular.CURVATURE_MAX
    assert abs(curvature[40, 50] + 30 / 15**2) < 0.01
    assert abs(curvature[0, 0]) < 0.01 and curvature[40, 85] > 0.005


@pytest.mark.parametrize("kind", ["gradient", "curvature"])
@pytest.mark.parametrize("axis", [0, 1])
def test_grains_are_a_few_px_wide_without_any_regularity(kind, axis):
    image = loaded(kind, "train", 0)[:1000, :1000, 0].astype(float)
    correlation = autocorrelation(image, np.arange(100), axis)
    length = np.argmax(correlation < np.exp(-1))
    assert 2 <= length <= 4 and correlation[1] > 0.6
    assert np.abs(correlation[10:]).max() < 0.03
    assert np.mean(np.isin(image, (0, 255))) < 0.01
    # The same everywhere: means of large blocks hardly differ.
    blocks = image[:1000, :1000].reshape(4, 250, 4, 250).mean(axis=(1, 3))
    assert blocks.std() < 0.05 * image.std()


def test_the_damaged_steel_is_smoother_where_it_is_damaged():
    gradient = loaded("gradient", "test_damaged", 0)[..., 0]
    truth = damaged_records("gradient")[0].load_mask()
    assert gradient[truth].mean() < 0.9 * gradient[~truth].mean()


def explained(train: np.ndarray, test: np.ndarray, *, numbers: int) -> float:
    """Share of the variance of test patches that the first components of others explain."""
    rng = np.random.default_rng(0)
    sampled = []
    for images, number in ((train, 400), (test, 100)):
        corners = rng.integers(0, [*images[0].shape[:2]] - np.array([127, 127]), (number, 2))
        which = rng.integers(len(images), size=number)
        cut = [
            images[i][r : r + 128, c : c + 128] for i, (r, c) in zip(which, corners, strict=True)
        ]
        sampled.append(np.stack(cut).reshape(number, -1).astype(np.float32))
    known, new = (patches - sampled[0].mean(axis=0) for patches in sampled)
    strength, mixed = np.linalg.eigh((known @ known.T).astype(np.float64))
    mixed = mixed[:, -numbers:] / np.sqrt(strength[-numbers:])
    codes = new @ (known.T @ mixed.astype(np.float32))
    return float((codes**2).sum() / (new**2).sum())


@pytest.mark.parametrize("kind", SETS)
def test_a_hundred_numbers_describe_a_patch_of_riblets_but_none_of_grains(kind):
    # As many as the paper's code has: what it can learn, and what it cannot.
    train = [small(kind, index=i, size=(700, 900)) for i in range(2)]
    share = explained(train, [small(kind, split="test_good", size=(700, 900))], numbers=100)
    assert share > 0.75 if SETS[kind][0] is riblet else share < 0.1


def test_noise_is_as_strong_and_as_smooth_as_asked():
    noise = surface.smooth_noise(np.random.default_rng(0), (700, 900), (1.3, 4.0))
    assert noise.dtype == np.float32 and abs(noise.std() - 1) < 0.02
    # White noise convolved so has the autocorrelation exp(-d² / 4σ²).
    for axis, sigma in enumerate((1.3, 4.0)):
        expected = np.exp(-((np.arange(8) / sigma) ** 2) / 4)
        np.testing.assert_allclose(autocorrelation(noise, range(8), axis), expected, atol=0.03)
    assert abs(noise[:2].std() - 1) < 0.1  # at the border too
    line = surface.slow_noise(np.random.default_rng(0), 200_000, 20.0)
    assert abs(line.std() - 1) < 0.05


MEMORY = """
from recon_ad.data.riblet import riblet_source

def peak():
    # Not ru_maxrss, in which a new process begins with the peak of the one that started it.
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0])

before = peak()
for kind in ("albedo", "normals"):
    image = riblet_source(kind).test[0].load()
print((peak() - before) // 1024)
"""


def test_drawing_an_image_takes_little_memory():
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # One image in float32 is 77 MiB: a third of these at a time is already too many.
    assert 100 < int(run.stdout) < 350


@pytest.mark.parametrize(
    "make, arguments, expected",
    [
        (riblet_source, {"kind": "gradient"}, 'no riblet set "gradient": give albedo or normals'),
        (riblet_source, {"kind": "albedo", "seed": -1}, "seed of a riblet set is -1"),
        (granular_source, {"kind": "x"}, 'no granular set "x": give gradient or curvature'),
        (granular_source, {"kind": "curvature", "seed": -2}, "seed of a granular set is -2"),
    ],
)
def test_unknown_sets_end_in_a_sentence(make, arguments, expected):
    with pytest.raises(UserError, match=expected):
        make(**arguments)
