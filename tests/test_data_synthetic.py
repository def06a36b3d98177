"""The chess and noise sets: what is drawn, both truths, and that a seed says it all."""

import pickle

import numpy as np
import pytest
from scipy import ndimage, signal

from recon_ad.data import synthetic
from recon_ad.data.folder import folder_source, memory_source
from recon_ad.data.source import GOOD
from recon_ad.data.synthetic import synthetic_source, write_folder
from recon_ad.errors import UserError

KINDS = ["chess", "noise"]
INDICES = range(4)


def pixels(record) -> np.ndarray:
    return record.load()[..., 0].astype(int)


def anomalous(kind, **options):
    return [r for r in synthetic_source(kind, **options).test if r.anomalous]


def truths(record) -> tuple[np.ndarray, np.ndarray]:
    """Truth A and truth B of a record whose primary truth is B."""
    return record.other_masks["A"](), record.load_mask()


@pytest.mark.parametrize("kind, defect", [("chess", "elastic"), ("noise", "line")])
def test_four_images_of_each_sort_in_the_mvtec_naming(kind, defect):
    source = synthetic_source(kind)
    assert [r.name for r in source.train] == [f"train/good/{i:03d}.png" for i in INDICES]
    names = [f"test/{d}/{i:03d}.png" for d in (defect, GOOD) for i in INDICES]
    assert [r.name for r in source.test] == names
    assert [r.defect for r in source.test] == [defect] * 4 + [GOOD] * 4
    for record in source.train + source.test:
        image = record.load()
        assert image.shape == (512, 512, 1) and image.dtype == np.uint8
        assert (record.load_mask is not None) == record.anomalous


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_says_it_all_and_no_two_images_are_alike(kind):
    first, again, other = (synthetic_source(kind, seed=s) for s in (3, 3, 4))
    seen = []
    for a, b, c in zip(*((s.train + s.test) for s in (first, again, other)), strict=True):
        np.testing.assert_array_equal(a.load(), b.load())
        assert not np.array_equal(a.load(), c.load())
        seen.append(a.load().tobytes())
        if a.anomalous:
            np.testing.assert_array_equal(a.load_mask(), b.load_mask())
            assert not np.array_equal(a.load_mask(), c.load_mask())
    assert len(set(seen)) == 12


@pytest.mark.parametrize("kind, first", [("chess", 17340), ("noise", 32893)])
def test_the_images_of_seed_0_are_the_same_everywhere(kind, first):
    # A change of these sums changes every figure that was ever reported on these sets.
    corner = synthetic_source(kind).train[0].load()[:16, :16]
    assert int(corner.sum()) == first


@pytest.mark.parametrize("kind", KINDS)
def test_records_can_be_pickled_for_worker_processes(kind):
    record = pickle.loads(pickle.dumps(anomalous(kind)[0]))
    assert record.load_mask().any() and record.other_masks["A"]().any()


@pytest.mark.parametrize("kind", KINDS)
def test_truth_chooses_which_mask_is_the_primary_one(kind):
    a, b = anomalous(kind, truth="A")[0], anomalous(kind)[0]
    assert set(a.other_masks) == {"B"} and set(b.other_masks) == {"A"}
    np.testing.assert_array_equal(a.load_mask(), b.other_masks["A"]())
    np.testing.assert_array_equal(b.load_mask(), a.other_masks["B"]())


def is_chessboard(image: np.ndarray) -> bool:
    """Whether the image is black and white squares of 16 px in the pattern of a chessboard."""
    white = image > 127
    # One row and one column decide the rest, and their edges are 16 px apart.
    separable = white ^ white[:1] ^ white[:, :1] ^ white[0, 0]
    edges = [np.flatnonzero(np.diff(line.astype(int))) for line in (white[0], white[:, 0])]
    return (
        bool(np.isin(image, (0, 255)).all())
        and not separable.any()
        and all(len(e) >= 31 and e[0] < 16 and set(np.diff(e)) == {16} for e in edges)
    )


def test_normal_chess_images_are_perfect_boards_of_16_px():
    source = synthetic_source("chess")
    normal = [pixels(r) for r in source.train + source.test if not r.anomalous]
    assert all(is_chessboard(image) for image in normal)
    assert not is_chessboard(pixels(anomalous("chess")[0]))
    first_edges = {tuple(np.argmax(np.diff(x) != 0) for x in (i[0], i[:, 0])) for i in normal}
    assert len(first_edges) == 8  # the phase is random, in both directions
    assert len({e[0] for e in first_edges}) > 4 and len({e[1] for e in first_edges}) > 4


@pytest.mark.parametrize("seed", [0, 1])
def test_chess_truths_match_their_definitions_recomputed(seed):
    for i, record in enumerate(anomalous("chess", seed=seed)):
        drawn = synthetic._draw("chess", seed, "test_anomalous", i)
        # The displacement once more, from the same random numbers.
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, 2, i)))
        rng.integers(0, 32, 2)
        shift = synthetic._displacement(rng)
        a, b = truths(record)
        assert is_chessboard(drawn.normal)
        np.testing.assert_array_equal(a, (shift**2).sum(0) >= 0.25)
        np.testing.assert_array_equal(b, np.abs(pixels(record) - drawn.normal) / 255 > 1.001 / 255)
        # Bilinear sampling, written out.
        rows, columns = np.indices((512, 512)) + shift
        top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
        down, right = rows - top, columns - left
        at = {
            (dr, dc): drawn.normal[np.clip(top + dr, 0, 511), np.clip(left + dc, 0, 511)]
            for dr in (0, 1)
            for dc in (0, 1)
        }
        upper = at[0, 0] * (1 - right) + at[0, 1] * right
        lower = at[1, 0] * (1 - right) + at[1, 1] * right
        expected = upper * (1 - down) + lower * down
        assert np.abs(expected - pixels(record)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_six_compact_windows_cover_5_to_15_percent(seed):
    for i, record in enumerate(anomalous("chess", seed=seed)):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, 2, i)))
        rng.integers(0, 32, 2)
        inside = np.zeros((512, 512), int)
        windows = synthetic._windows(rng)
        for top, left, side in windows:
            assert 56 <= side <= 80 and min(top, left) >= 0 and max(top, left) + side <= 512
            inside[top : top + side, left : left + side] += 1
        assert len(windows) == 6 and inside.max() == 1
        assert 0.05 <= inside.mean() <= 0.15
        a, b = truths(record)
        assert not (a | b)[inside == 0].any()
        # Most of the windows is displaced, and each of them is.
        assert a.sum() > 0.5 * inside.sum()
        assert all(b[t : t + s, c : c + s].any() for t, c, s in windows)


def test_displacement_is_5_px_before_the_taper_and_fades_to_the_border():
    rng = np.random.default_rng(5)
    state = rng.bit_generator.state
    (top, left, side), *_ = synthetic._windows(rng)
    rng.bit_generator.state = state
    field = synthetic._displacement(rng)[:, top : top + side, left : left + side]
    border = np.ones((side, side), bool)
    border[2:-2, 2:-2] = False
    # The taper is below 0.03 there.
    assert np.abs(field[:, border]).max() < 0.5
    taper = signal.windows.tukey(2 * side + 1, 0.5)[1::2]  # at pixel centres
    weight = taper[:, None] * taper
    middle = weight > 1e-3
    # The few pixels left out at the border carry little of the mean square.
    rms = np.sqrt(np.mean((field[:, middle] / weight[middle]) ** 2, axis=1))
    np.testing.assert_allclose(rms, 5, rtol=0.1)
    # Smooth: the pattern is bent, not torn into single pixels.
    assert np.abs(np.diff(field, axis=1)).max() < 2.5


def test_displacement_is_as_smooth_as_a_gaussian_of_8_px_makes_it():
    # White noise convolved so has the autocorrelation exp(-d² / 4σ²): 0.78 at a distance of σ.
    steps = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        state = rng.bit_generator.state
        (top, left, side), *_ = synthetic._windows(rng)
        rng.bit_generator.state = state
        field = synthetic._displacement(rng)[:, top : top + side, left : left + side]
        taper = signal.windows.tukey(2 * side + 1, 0.5)[1::2]
        plain = field[:, 8:-8, 8:-8] / (taper[:, None] * taper)[8:-8, 8:-8]
        steps.append(np.mean((plain[:, 8:] - plain[:, :-8]) ** 2) / 2 / 25)
    np.testing.assert_allclose(1 - np.mean(steps), np.exp(-0.25), atol=0.04)


def test_noise_has_the_stated_mean_spread_and_no_structure():
    for record in synthetic_source("noise").train:
        image = pixels(record) / 255
        assert abs(image.mean() - 0.5) < 0.002
        assert abs(image.std() - 0.15) < 0.002
        centred = image - image.mean()
        assert abs((centred[:, 1:] * centred[:, :-1]).mean()) < 0.01 * 0.15**2 * 2


def runs(column: np.ndarray) -> int:
    return int(np.count_nonzero(np.diff(np.r_[0, column.astype(int)]) == 1))


@pytest.mark.parametrize("seed", range(3))
def test_two_lines_of_7_px_are_drawn_over_the_noise(seed):
    for i, record in enumerate(anomalous("noise", seed=seed)):
        a, b = truths(record)
        normal = synthetic._draw("noise", seed, "test_anomalous", i).normal.astype(int)
        assert 0.02 < a.mean() <= 2 * 7 * 512 / 512**2
        np.testing.assert_array_equal(b, np.abs(pixels(record) - normal) >= 2)
        np.testing.assert_array_equal(pixels(record)[~a], normal[~a])
        bright = pixels(record)[a] / 255
        assert bright.mean() > 0.95 and bright.min() > 0.7
        assert not b[~a].any() and (a & ~b).sum() < 0.02 * a.sum()


def test_a_line_is_straight_but_for_2_px_of_noise(monkeypatch):
    monkeypatch.setattr(synthetic, "LINES", 1)
    slopes, spreads, transposed = [], [], 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        one = np.zeros((512, 512), np.uint8)
        _, drawn = synthetic._draw_lines(rng, one)
        heights = drawn.sum(0)
        if not np.isin(heights[100:-100], 7).all():
            drawn = drawn.T
            transposed += 1
        full = np.flatnonzero(drawn.sum(0) == 7)
        assert all(runs(drawn[:, c]) == 1 for c in full)
        middle = np.array([np.flatnonzero(drawn[:, c]).mean() for c in full])
        slope, offset = np.polyfit(full, middle, 1)
        slopes.append(slope)
        spreads.append(np.std(middle - slope * full - offset))
    assert 10 <= transposed <= 30
    assert max(np.abs(slopes)) <= 1.02
    assert min(slopes) < -0.5 and max(slopes) > 0.5
    np.testing.assert_allclose(np.mean(spreads), 2.0, atol=0.1)


def test_chess_truth_b_beyond_a_is_only_at_the_edges_of_squares():
    # A displacement below half a pixel shows where black and white meet, and nowhere else.
    for i, record in enumerate(anomalous("chess")):
        normal = synthetic._draw("chess", 0, "test_anomalous", i).normal
        edge = ndimage.maximum_filter(normal, 3) != ndimage.minimum_filter(normal, 3)
        a, b = truths(record)
        assert 0.05 < b.sum() / a.sum() < 0.5
        assert (b & ~a).any() and edge[b & ~a].all()


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"kind": "bubbles"}, 'no synthetic set "bubbles": give chess or noise'),
        ({"kind": "chess", "truth": "C"}, 'no truth "C"'),
        ({"kind": "chess", "seed": -1}, "seed of a synthetic set is -1"),
    ],
)
def test_unknown_sets_end_in_a_sentence(arguments, expected):
    with pytest.raises(UserError, match=expected):
        synthetic_source(**arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_folder_reads_back_the_same(tmp_path, kind):
    source = synthetic_source(kind)
    write_folder(source, tmp_path / "set")
    again = folder_source(tmp_path / "set")
    assert again.notes == ()
    for ours, theirs in ((source.train, again.train), (source.test, again.test)):
        assert [r.name for r in sorted(ours)] == [r.name for r in theirs]
        for a, b in zip(sorted(ours), theirs, strict=True):
            np.testing.assert_array_equal(a.load(), b.load())
            assert a.defect == b.defect and (a.load_mask is None) == (b.load_mask is None)
            if a.load_mask is not None:
                np.testing.assert_array_equal(a.load_mask(), b.load_mask())


def test_floats_are_written_as_8_bits_and_nothing_is_overwritten(tmp_path):
    images = np.linspace(0, 1, 2 * 8 * 8 * 3, dtype=np.float32).reshape(2, 8, 8, 3)
    source = memory_source(images)
    write_folder(source, tmp_path)
    again = folder_source(tmp_path)
    assert [r.name for r in again.train] == ["train/good/0000.png", "train/good/0001.png"]
    np.testing.assert_array_equal(again.train[1].load(), np.rint(images[1] * 255))
    with pytest.raises(UserError, match=r"0000\.png: exists already"):
        write_folder(source, tmp_path)
