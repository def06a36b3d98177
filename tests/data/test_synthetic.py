"""The chess and noise sets: images, both truths, and reproducibility by the seed."""

import numpy as np
import pytest
from helpers.sources import assert_picklable, assert_same
from scipy import ndimage, signal

from recon_ad.data import synthetic
from recon_ad.data.folder import folder_source, memory_source
from recon_ad.data.source import GOOD
from recon_ad.data.synthetic import synthetic_source, write_folder
from recon_ad.errors import UserError

KINDS = ["chess", "noise"]
SIDE = 512
INDICES = range(4)


def pixels(record) -> np.ndarray:
    return record.load()[..., 0].astype(int)


def anomalous(kind, **options):
    return [r for r in synthetic_source(kind, **options).test if r.anomalous]


def truths(record) -> tuple[np.ndarray, np.ndarray]:
    """Return truth A and truth B of a record whose primary truth is B."""
    return record.other_masks["A"](), record.load_mask()


@pytest.mark.parametrize("side", [96, 128, 384, SIDE])
@pytest.mark.parametrize("kind, defect", [("chess", "elastic"), ("noise", "line")])
def test_four_images_of_each_sort_in_the_mvtec_naming(kind, defect, side):
    source = synthetic_source(kind, **({} if side == SIDE else {"side": side}))
    assert [r.name for r in source.train] == [f"train/good/{i:03d}.png" for i in INDICES]
    names = [f"test/{d}/{i:03d}.png" for d in (defect, GOOD) for i in INDICES]
    assert [r.name for r in source.test] == names
    assert [r.defect for r in source.test] == [defect] * 4 + [GOOD] * 4
    for record in source.train + source.test:
        image = record.load()
        assert image.shape == (side, side, 1) and image.dtype == np.uint8
        assert (record.load_mask is not None) == record.anomalous
        if record.anomalous:
            for mask in truths(record):
                assert mask.shape == (side, side) and mask.dtype == bool and mask.mean() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_says_it_all_and_no_two_images_are_alike(kind):
    first, again, other = (synthetic_source(kind, seed=s, side=128) for s in (3, 3, 4))
    assert_same(first, again)
    assert_picklable(first)
    both = [r for s in (first, other) for r in s.train + s.test]
    assert len({r.load().tobytes() for r in both}) == 24
    assert len({r.load_mask().tobytes() for r in both if r.anomalous}) == 8


# For the four anomalous images of seed 0: the sums of all pixels, truth A and truth B.
DRAWN = {
    "chess": [
        (33370635, 21756, 8237), (33423926, 23605, 8416),
        (33400062, 19967, 7653), (33442483, 21564, 7968),
    ],
    "noise": [
        (34311471, 7168, 7165), (34309999, 7168, 7166),
        (34315968, 7077, 7073), (34319914, 7132, 7132),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind, first", [("chess", 17340), ("noise", 32893)])
def test_the_images_of_seed_0_are_the_same_everywhere(kind, first):
    # A change of these sums changes every figure ever reported on these sets.
    source = synthetic_source(kind)
    assert int(source.train[0].load()[:16, :16].sum()) == first
    for record, expected in zip(source.test[:4], DRAWN[kind], strict=True):
        seen = [pixels(record).sum(), *(mask.sum() for mask in truths(record))]
        # Rounding may differ by a gray level in a few places between machines.
        assert (np.abs(np.subtract(seen, expected)) <= [20, 5, 5]).all(), seen


@pytest.mark.parametrize("kind", KINDS)
def test_truth_chooses_which_mask_is_the_primary_one(kind):
    a, b = (anomalous(kind, truth=truth, side=128)[0] for truth in "AB")
    assert set(a.other_masks) == {"B"} and set(b.other_masks) == {"A"}
    np.testing.assert_array_equal(a.load_mask(), b.other_masks["A"]())
    np.testing.assert_array_equal(b.load_mask(), a.other_masks["B"]())


def is_chessboard(image: np.ndarray) -> bool:
    """Return whether the image is a chessboard of black and white squares of 16 px."""
    white = image > 127
    # One row and one column determine the rest, and their edges are 16 px apart.
    separable = white ^ white[:1] ^ white[:, :1] ^ white[0, 0]
    edges = [np.flatnonzero(np.diff(line.astype(int))) for line in (white[0], white[:, 0])]
    return (
        bool(np.isin(image, (0, 255)).all())
        and not separable.any()
        and all(len(e) >= len(image) // 16 - 1 and e[0] < 16 and set(np.diff(e)) == {16}
                for e in edges)
    )  # fmt: skip


@pytest.mark.parametrize("side", [128, SIDE])
def test_normal_chess_images_are_perfect_boards_of_16_px(side):
    source = synthetic_source("chess", side=side)
    normal = [pixels(r) for r in source.train + source.test if not r.anomalous]
    assert all(is_chessboard(image) for image in normal)
    assert not is_chessboard(pixels(anomalous("chess", side=side)[0]))
    first_edges = {tuple(np.argmax(np.diff(x) != 0) for x in (i[0], i[:, 0])) for i in normal}
    assert len(first_edges) == 8  # the phase is random in both directions
    assert len({e[0] for e in first_edges}) > 4 and len({e[1] for e in first_edges}) > 4


def windows_and_shift(rng, side):
    """Return the windows that the generator draws next, and the displacement in them."""
    state = rng.bit_generator.state
    windows = synthetic._windows(rng, side)
    rng.bit_generator.state = state
    return windows, synthetic._displacement(rng, side)


@pytest.mark.parametrize(
    "side, count, covered", [(128, 1, (0.15, 0.4)), (256, 2, (0.09, 0.2)), (512, 6, (0.05, 0.15))]
)
@pytest.mark.parametrize("seed", range(2))
def test_chess_truths_match_their_definitions_recomputed(seed, side, count, covered):
    for i, record in enumerate(anomalous("chess", seed=seed, side=side)):
        normal = synthetic._draw("chess", seed, side, "test_anomalous", i).normal
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, 2, i)))
        rng.integers(0, 32, 2)  # the phase
        windows, shift = windows_and_shift(rng, side)
        a, b = truths(record)
        assert is_chessboard(normal)
        np.testing.assert_array_equal(a, (shift**2).sum(0) >= 0.25)
        np.testing.assert_array_equal(b, np.abs(pixels(record) - normal) / 255 > 1.001 / 255)
        # Bilinear sampling, by SciPy.
        where = np.indices((side, side)) + shift
        expected = ndimage.map_coordinates(normal.astype(float), where, order=1, mode="nearest")
        assert np.abs(expected - pixels(record)).max() <= 0.5 + 1e-6
        # The windows are compact and do not touch each other.
        inside = np.zeros((side, side), int)
        for y, x, size in windows:
            assert 56 <= size <= 80 and min(y, x) >= 0 and max(y, x) + size <= side
            inside[y : y + size, x : x + size] += 1
        assert len(windows) == count and inside.max() == 1
        assert covered[0] <= inside.mean() <= covered[1]
        assert not (a | b)[inside == 0].any()
        # Most of the windows' pixels are displaced, and each window has some.
        assert a.sum() > 0.5 * inside.sum()
        assert all(b[y : y + s, x : x + s].any() for y, x, s in windows)
        # A displacement below half a pixel is visible only where black and white meet.
        edge = ndimage.maximum_filter(normal, 3) != ndimage.minimum_filter(normal, 3)
        assert 0.05 < b.sum() / a.sum() < 0.5
        assert edge[b & ~a].all() and (side < SIDE or (b & ~a).any())


def field_of(seed):
    """Return the displacement in one window, and the taper of that window."""
    ((top, left, side),), shift = windows_and_shift(np.random.default_rng(seed), 128)
    taper = signal.windows.tukey(2 * side + 1, 0.5)[1::2]  # at pixel centres
    return shift[:, top : top + side, left : left + side], taper[:, None] * taper


def test_displacement_is_5_px_before_the_taper_and_as_smooth_as_a_gaussian_of_8_px_makes_it():
    steps = []
    for seed in range(20):
        field, weight = field_of(seed)
        border = np.pad(np.zeros(np.subtract(weight.shape, 4), bool), 2, constant_values=True)
        assert np.abs(field[:, border]).max() < 0.5  # the taper is below 0.03 there
        plain = field[:, 8:-8, 8:-8] / weight[8:-8, 8:-8]
        steps.append(np.mean((plain[:, 8:] - plain[:, :-8]) ** 2) / 2 / 25)
        middle = weight > 1e-3
        # The few pixels left out at the border contribute little to the mean square.
        rms = np.sqrt(np.mean((field[:, middle] / weight[middle]) ** 2, axis=1))
        np.testing.assert_allclose(rms, 5, rtol=0.1)
    # White noise after this convolution has the autocorrelation exp(-d² / 4σ²): 0.78 at distance σ.
    np.testing.assert_allclose(1 - np.mean(steps), np.exp(-0.25), atol=0.04)


def test_noise_has_the_stated_mean_spread_and_no_structure():
    for record in synthetic_source("noise").train:
        image = pixels(record) / 255
        assert abs(image.mean() - 0.5) < 0.002
        assert abs(image.std() - 0.15) < 0.002
        centred = image - image.mean()
        assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < 0.01 * 0.15**2 * 2


@pytest.mark.parametrize("side, lines", [(128, 1), (384, 2), (SIDE, 2)])
@pytest.mark.parametrize("seed", range(2))
def test_lines_of_7_px_are_drawn_over_the_noise(seed, side, lines):
    for i, record in enumerate(anomalous("noise", seed=seed, side=side)):
        a, b = truths(record)
        normal = synthetic._draw("noise", seed, side, "test_anomalous", i).normal.astype(int)
        assert 5.2 * lines * side < a.sum() <= 7 * lines * side
        np.testing.assert_array_equal(b, np.abs(pixels(record) - normal) >= 2)
        np.testing.assert_array_equal(pixels(record)[~a], normal[~a])
        bright = pixels(record)[a] / 255
        assert bright.mean() > 0.95 and bright.min() > 0.7
        assert not b[~a].any() and (a & ~b).sum() < 0.02 * a.sum()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"kind": "bubbles"}, 'unknown synthetic set "bubbles": give chess or noise'),
        ({"kind": "chess", "truth": "C"}, 'unknown truth "C"'),
        ({"kind": "chess", "seed": -1}, "seed of a synthetic set is -1"),
        ({"kind": "noise", "side": 95}, "side of a synthetic set is 95 px: give 96 or more"),
    ],
)
def test_unknown_sets_end_in_a_sentence(arguments, expected):
    with pytest.raises(UserError, match=expected):
        synthetic_source(**arguments)


def test_a_written_folder_reads_back_the_same_floats_as_8_bits_and_nothing_is_overwritten(tmp_path):
    chess = synthetic_source("chess", side=128)
    write_folder(chess, tmp_path / "chess")
    assert folder_source(tmp_path / "chess").notes == ()
    assert_same(chess, folder_source(tmp_path / "chess"))
    images = np.linspace(0, 1, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
    source = memory_source(images)
    write_folder(source, tmp_path / "own")
    again = folder_source(tmp_path / "own")
    assert [r.name for r in again.train] == ["train/good/0000.png", "train/good/0001.png"]
    np.testing.assert_array_equal(again.train[1].load(), np.rint(images[1] * 255))
    with pytest.raises(UserError, match=r"0000\.png: exists already"):
        write_folder(source, tmp_path / "own")
