"""The generated riblet foil and granular steel: what is shown, the damage and its truth."""

import pickle
import subprocess
import sys
from contextlib import contextmanager
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

MODULES = {"albedo": riblet, "normals": riblet, "gradient": granular, "curvature": granular}
SOURCES = {riblet: riblet_source, granular: granular_source}
KINDS = list(MODULES)
# Images of train, test damaged and test good.
COUNTS = {"albedo": (8, 4, 2), "normals": (2, 2, 1), "gradient": (1, 1, 1), "curvature": (1, 1, 1)}
SMALL = (500, 700)  # px; too small for the damage
MEDIUM = (1600, 1500)  # px; large enough for one damage of each kind


def small(kind, *, seed=0, split="train", index=0, size=SMALL, **options) -> np.ndarray:
    return MODULES[kind]._draw(kind, seed, split, index, damaged=False, size=size, **options)


def damaged_records(kind, **options):
    return [r for r in SOURCES[MODULES[kind]](kind, **options).test if r.anomalous]


@contextmanager
def medium_sized(module):
    """Lets a module draw smaller images than the paper's, with one damage of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIZE", MEDIUM)
        patch.setattr(module, "DAMAGES", (len(module._DAMAGE_KINDS),) * 2)
        yield


@cache
def drawn(kind, split="test_damaged", *, damaged: bool) -> np.ndarray:
    """The first image of a split, in medium size; with the damage of the first damaged one."""
    with medium_sized(MODULES[kind]):
        return MODULES[kind]._draw(kind, 0, split, 0, damaged=damaged, size=MEDIUM)


@cache
def truth_of(kind) -> np.ndarray:
    """The truth of the first damaged image, in medium size."""
    with medium_sized(MODULES[kind]):
        return damaged_records(kind)[0].load_mask()


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_draws_an_image_of_its_own_and_keeps_it(kind, monkeypatch):
    def draw(*key, damaged):
        calls.append((*key, damaged))
        return np.zeros((2, 3, 3 if kind == "normals" else 1), np.uint8)

    calls, seed = [], 123_456_789  # of no other test: images are kept by it
    monkeypatch.setattr(MODULES[kind], "_draw", draw)
    source = SOURCES[MODULES[kind]](kind, seed=seed)
    train, damaged, good = (range(count) for count in COUNTS[kind])
    assert [r.name for r in source.train] == [f"train/good/{i:03d}.png" for i in train]
    assert [(r.name, r.defect) for r in source.test] == [
        *((f"test/damaged/{i:03d}.png", "damaged") for i in damaged),
        *((f"test/good/{i:03d}.png", GOOD) for i in good),
    ]
    for record in source.train + source.test:
        assert (record.load_mask is not None) == record.anomalous
        assert not record.other_masks
        assert record.load() is record.load() and not record.load().flags.writeable
    splits = {"train": train, "test_damaged": damaged, "test_good": good}
    assert calls == [
        (kind, seed, split, i, split == "test_damaged") for split in splits for i in splits[split]
    ]


@pytest.mark.parametrize(
    "kind, expected",
    [("albedo", 161167), ("normals", 654855), ("gradient", 209993), ("curvature", 114792)],
)
def test_small_images_of_seed_0_are_the_same_everywhere(kind, expected):
    corner = drawn(kind, damaged=True)[:64, :64].astype(int)
    assert abs(np.abs(corner - 128).sum() - expected) <= 20


@pytest.mark.slow  # images of 20 and 9 megapixels
@pytest.mark.parametrize(
    "kind, shape, expected",
    [
        ("albedo", (3672, 5496, 1), 160093),
        ("normals", (3672, 5496, 3), 651811),
        ("gradient", (2336, 4000, 1), 213381),
        ("curvature", (2336, 4000, 1), 114573),
    ],
)
def test_the_images_of_seed_0_have_the_papers_size_and_are_the_same_everywhere(
    kind, shape, expected
):
    # A change of these sums changes every figure that was ever reported on these sets. Rounding
    # may differ by a gray level here and there from machine to machine.
    record = damaged_records(kind)[0]
    image = record.load()
    assert image.shape == shape and image.dtype == np.uint8
    corner = image[:64, :64].astype(int)
    assert abs(np.abs(corner - 128).sum() - expected) <= 20
    plain = MODULES[kind]._draw(kind, 0, "test_damaged", 0, damaged=False)
    change = np.abs(image.astype(np.int16) - plain).max(axis=2)
    assert np.mean(change[record.load_mask()] > 0) > 0.85


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
def test_no_pixel_depends_on_how_many_rows_are_rendered_at_a_time(kind):
    expected = small(kind)
    for band in (7, 499, 500):
        np.testing.assert_array_equal(small(kind, band=band), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_damage_is_where_the_truth_says(kind):
    image, plain = drawn(kind, damaged=True), drawn(kind, damaged=False)
    change = np.abs(image.astype(np.int16) - plain).max(axis=2)
    truth = truth_of(kind)
    assert np.mean(change[truth] > 0) > 0.88
    assert np.mean(change[truth]) > 8
    # Slopes reach a pixel further than the height that makes them; below the threshold of the
    # truth a little is left over.
    beyond = ~ndimage.binary_dilation(truth, iterations=2)
    assert np.mean(change[beyond] > 0) < 0.005
    assert np.mean(change[beyond] > 16) < 1e-4
    pieces, number = ndimage.label(ndimage.binary_dilation(truth, iterations=8))
    assert number >= len(MODULES[kind]._DAMAGE_KINDS)
    assert all(
        change[part][pieces[part] == i + 1].max() > 8
        for i, part in enumerate(ndimage.find_objects(pieces))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_truths_cover_a_little_of_the_image_and_follow_the_seed(kind):
    records = damaged_records(kind)
    truths = [r.load_mask() for r in (*records[:2], *damaged_records(kind, seed=1)[:1])]
    for truth in truths:
        assert truth.shape == MODULES[kind].SIZE and truth.dtype == bool
        assert 0.0005 < truth.mean() < 0.1
        overlap = np.mean(truths[0] & truth)
        assert truth is truths[0] or overlap < 0.5 * truths[0].mean()
    # As many pieces as there are damages at least, seen in blocks of 8 px.
    h, w = (n // 8 * 8 for n in truths[0].shape)
    blocks = truths[0][:h, :w].reshape(h // 8, 8, w // 8, 8).any(axis=(1, 3))
    assert ndimage.label(blocks, np.ones((3, 3)))[1] >= 6
    again = pickle.loads(pickle.dumps(records[0])).load_mask()
    np.testing.assert_array_equal(truths[0], again)


def test_both_pictures_of_a_surface_share_its_damage_but_for_what_is_only_darker():
    truths = {kind: damaged_records(kind)[0].load_mask() for kind in KINDS}
    assert not (truths["normals"] & ~truths["albedo"]).any()
    assert (truths["albedo"] & ~truths["normals"]).any()
    np.testing.assert_array_equal(truths["gradient"], truths["curvature"])


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
def test_darker_stretches_lie_in_good_and_damaged_images_of_even_index(split, monkeypatch):
    foils = [riblet._foil(0, split, i, MEDIUM) for i in range(4)]
    assert [bool(f.dark) for f in foils] == [True, False, True, False]
    image = drawn("albedo", split, damaged=False).astype(float)[..., 0]
    monkeypatch.setattr(riblet, "DARK_DEPTH", (0.0, 0.0))
    plain = riblet._draw("albedo", 0, split, 0, damaged=False, size=MEDIUM)[..., 0]
    loss = np.max([down[:, None] * along for down, along in foils[0].dark], axis=0)
    np.testing.assert_array_equal(image[loss == 0], plain[loss == 0])
    left = []
    for down, along in foils[0].dark:
        rows, inside = down > 0.8 * down.max(), along == 1
        assert inside.sum() > 100 and inside.sum() > 2 * rows.sum()  # long, along the tracks
        left.append(image[rows][:, inside].sum() / plain[rows][:, inside].sum())
        assert left[-1] < 1.02 - down[rows].mean()
    assert 0.5 < min(left) < 0.92


def test_darker_stretches_are_in_no_truth_mask():
    foil = riblet._foil(0, "test_damaged", 0, riblet.SIZE)
    truth = damaged_records("albedo")[0].load_mask()
    for down, along in foil.dark:
        rows, columns = np.flatnonzero(down > 0.05), np.flatnonzero(along > 0.5)
        assert truth[np.ix_(rows, columns)].mean() < 0.05


def test_normals_are_of_unit_length_and_look_up():
    normals = drawn("normals", damaged=True) / np.float32(127.5) - 1
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
    image = drawn(kind, "train", damaged=False)[:1000, :1000, 0].astype(float)
    correlation = autocorrelation(image, np.arange(100), axis)
    length = np.argmax(correlation < np.exp(-1))
    assert 2 <= length <= 4 and correlation[1] > 0.6
    assert np.abs(correlation[10:]).max() < 0.03
    assert np.mean(np.isin(image, (0, 255))) < 0.01
    # The same everywhere: means of large blocks hardly differ.
    blocks = image.reshape(4, 250, 4, 250).mean(axis=(1, 3))
    assert blocks.std() < 0.05 * image.std()


def test_the_damaged_steel_is_smoother_where_it_is_damaged():
    gradient, truth = drawn("gradient", damaged=True)[..., 0], truth_of("gradient")
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


@pytest.mark.slow  # statistics of many patches
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_numbers_describe_a_patch_of_riblets_but_none_of_grains(kind):
    # As many as the paper's code has: what it can learn, and what it cannot.
    train = [small(kind, index=i, size=(700, 900)) for i in range(2)]
    share = explained(train, [small(kind, split="test_good", size=(700, 900))], numbers=100)
    assert share > 0.75 if MODULES[kind] is riblet else share < 0.1


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


@pytest.mark.slow  # a process that draws two images of 20 megapixels
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
