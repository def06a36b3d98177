"""Nearest neighbours on features: memory bank, coreset, distances, and the map from them."""

import functools

import cv2
import jax
import numpy as np
import pytest
from helpers.small_encoder import CELLS, SIDE, WIDTH, started
from scipy import ndimage, spatial

from recon_ad.errors import UserError
from recon_ad.methods import knn

IMAGES = np.random.default_rng(0).random((8, SIDE, SIDE, 1), np.float32)


@pytest.fixture(scope="module")
def start(small_encoder):
    return functools.partial(started, small_encoder, "knn", IMAGES)


def test_distances_are_scipys_and_zero_for_what_is_known():
    random = np.random.default_rng(0)
    keys = random.normal(size=(30, 7)).astype(np.float32)
    features = random.normal(size=(2, 3, 4, 7)).astype(np.float32)
    features[0, 0, 0] = keys[11]
    found = jax.jit(knn.distances)(keys, features)
    expected = spatial.distance.cdist(features.reshape(-1, 7), keys).min(axis=1).reshape(2, 3, 4)
    # The root of a rounding error of |q|² of about 10.
    np.testing.assert_allclose(found, expected, atol=5e-3)
    np.testing.assert_allclose(np.delete(found, 0), np.delete(expected, 0), rtol=1e-5)


IMAGE = np.arange(8, dtype=np.int32)  # places of a batch's images


def test_the_coreset_is_chosen_greedily():
    # The features are short, so that nothing is projected and each choice can be predicted.
    vectors = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    chosen = [0]
    for _ in range(19):
        nearest = spatial.distance.cdist(vectors, vectors[chosen]).min(axis=1)
        chosen.append(int(nearest.argmax()))
    found = knn.coreset(jax.device_put(vectors), seed=0, filled=200, count=20)
    np.testing.assert_array_equal(found, chosen)


def test_none_is_chosen_twice_where_all_look_alike():
    # If rounding hides the differences, distances in float32 are 0 or noise.
    vectors = np.float32(1000 + 1e-3 * np.random.default_rng(0).normal(size=(60, 5)))
    assert len(np.unique(vectors, axis=0)) == 60
    for count in (20, 60):
        found = knn.coreset(jax.device_put(vectors), seed=0, filled=60, count=count)
        assert len(np.unique(found)) == count


def test_a_projected_coreset_covers_better_than_chance():
    vectors = np.random.default_rng(0).standard_t(3, size=(1000, 200)).astype(np.float32)
    found = np.asarray(knn.coreset(jax.device_put(vectors), seed=0, filled=1000, count=50))
    assert len(np.unique(found)) == 50

    def radius(keys):
        return spatial.distance.cdist(vectors, keys).min(axis=1).max()

    chance = [radius(vectors[np.random.default_rng(i).permutation(1000)[:50]]) for i in range(5)]
    assert radius(vectors[found]) < min(chance)


@pytest.fixture(scope="module")
def filling(start):
    """Return the states of three steps and their batches; each step draws 120 of 128 features."""
    fields = {"knn.memory": 2395, "knn.coreset": 5, "train.steps": 20}
    method, _, features, state = start(**fields)
    step = jax.jit(method.train_step)
    states, batches = [state], [features + i for i in range(3)]
    for i, batch in enumerate(batches):
        states.append(step(states[-1], batch, jax.random.key(i), image=IMAGE + 8 * i)[0])
    return method, features, states, batches


def averaged(features):
    """Average the 3 × 3 neighbours, by SciPy."""
    return ndimage.uniform_filter(features, size=(1, 3, 3, 1), mode="nearest")


def test_pooled_features_are_means_of_neighbours():
    features = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(knn.pooled)(features), averaged(features), atol=1e-6)


def test_coarse_features_are_drawn_at_the_places_of_fine_ones(filling):
    _, _, states, batches = filling
    drawn = {kind: np.asarray(states[1].params[kind])[:120] for kind in knn.KINDS}
    each = {"fine": batches[0], "coarse": averaged(batches[0])}
    flat = {kind: x.reshape(-1, 3 * WIDTH) for kind, x in each.items()}
    at = [np.abs(flat["fine"] - row).sum(axis=1).argmin() for row in drawn["fine"]]
    np.testing.assert_allclose(drawn["coarse"], flat["coarse"][at], atol=1e-5)


def test_training_fills_the_memory_with_features_of_each_batch(filling):
    _, _, states, batches = filling
    assert states[0].params["fine"].shape == (2400, 3 * WIDTH)
    for i, batch in enumerate(batches):
        memory = np.asarray(states[i + 1].params["fine"])
        rows = memory[120 * i : 120 * i + 120]
        known = {v.tobytes() for v in batch.reshape(-1, rows.shape[1])}
        drawn = [row.tobytes() for row in rows]
        assert len(known) == 128 and set(drawn) < known and len(set(drawn)) == 120
        assert drawn != [v.tobytes() for v in batch.reshape(-1, rows.shape[1])[:120]]
        assert not memory[120 * i + 120 :].any() and states[i + 1].step == i + 1
        # Each feature has the place of its image.
        origin = {v.tobytes(): 8 * i + k for k, x in enumerate(batch) for v in x.reshape(16, -1)}
        image = np.asarray(states[i + 1].params["image"])[120 * i : 120 * i + 120]
        assert image.tolist() == [origin[row] for row in drawn]


def test_the_heldout_loss_is_the_mean_distance_to_every_nth_filled_feature(filling):
    method, features, (_, state, *_), _ = filling
    memory = np.asarray(state.params["fine"], np.float64)
    # Closer to the zeros that are not filled yet than to any feature.
    noise = np.random.default_rng(1).normal(size=features.shape)
    heldout = (0.1 * features + 0.01 * noise).astype(np.float32)
    rows = np.asarray(heldout, np.float64).reshape(-1, memory.shape[1])
    # At most 1024 are searched, so every third.
    nearest = spatial.distance.cdist(rows, memory[:120:3]).min(axis=1).reshape(8, CELLS**2)
    assert nearest.max() > 1.001 * nearest.mean()  # otherwise either would do
    assert np.linalg.norm(rows, axis=1).max() < nearest.min()
    mask = np.array([True] * 6 + [False] * 2)
    loss = jax.jit(method.eval_step)(state, heldout, mask)["loss"]
    assert loss == (pytest.approx(nearest.mean(axis=1)[mask].sum(), rel=1e-5), 6)


def test_what_was_seen_is_normal_and_what_was_not_stands_out(start):
    # Six steps of eight images of sixteen patches: all of them are stored.
    fields = {"knn.memory": 10_000, "knn.coreset": 768}
    method, frozen, features, state = start(**fields)
    step = jax.jit(method.train_step)
    assert len(state.params["fine"]) == 768
    for i in range(6):
        state, _ = step(state, features, jax.random.key(i), image=IMAGE)
        if i == 1:  # unfilled entries are not good features
            known = {row.tobytes() for row in features.reshape(-1, features.shape[-1])}
            chosen = np.asarray(method.finish(frozen, state, ())["fine"]["features"])
            assert len(chosen) == 256 and all(row.tobytes() in known for row in chosen)
            # Every feature of the image is stored twice, so nothing is far from the memory bank.
            total, count = jax.jit(method.eval_step)(state, features, np.ones(8, bool))["loss"]
            assert float(total) / float(count) < 0.1
    variables = method.finish(frozen, state, ())
    maps = jax.jit(method.anomaly_map)
    normal = np.asarray(maps(variables, IMAGES))
    assert normal.shape == (8, SIDE, SIDE)
    odd = IMAGES.copy()
    odd[0, 12:, 12:] = 0
    strange = np.asarray(maps(variables, odd))
    # Features are sums of many squares, so distances of zero are rounding errors.
    assert strange[0].max() > 10 * normal.max()
    np.testing.assert_allclose(strange[1:], normal[1:], atol=1e-5)
    # All patches see the damage, but most of all the patch that contains it.
    assert min(np.unravel_index(strange[0].argmax(), strange[0].shape)) >= SIDE // 2


def test_the_spread_is_of_distances_to_other_images():
    random, spread = np.random.default_rng(0), jax.jit(knn.spread)
    queries, keys = (random.normal(size=(n, 5)).astype(np.float32) for n in (40, 30))
    of, images = random.integers(0, 3, 40), random.integers(0, 3, 30)
    distances = spatial.distance.cdist(queries, keys)
    distances[of[:, None] == images[None]] = np.inf
    expected = distances.min(axis=1).std()
    assert float(spread(queries, of, keys, images)) == pytest.approx(expected, rel=1e-4)
    # Only one image, or no difference.
    assert float(spread(queries, of * 0, keys, images * 0)) == 1
    assert float(spread(queries[:1], of[:1] * 0, keys, images * 0 + 1)) == 1


def test_the_map_adds_both_distances_in_units_of_their_spread(start):
    method, frozen, features, state = start(**{"knn.memory": 768, "knn.coreset": 300})
    for i in range(6):
        state, _ = jax.jit(method.train_step)(state, features, jax.random.key(i), image=IMAGE)
    variables = method.finish(frozen, state, ())
    new = IMAGES[:1, ::-1].copy()
    prepared = np.asarray(jax.jit(method.prepare)(frozen, new))
    expected = 0.0
    for kind, looked_at, weight in (
        ("fine", prepared, 1),
        ("coarse", averaged(prepared), knn.COARSE),
    ):
        keys = np.asarray(variables[kind]["features"])
        nearest = spatial.distance.cdist(looked_at.reshape(-1, 3 * WIDTH), keys).min(axis=1)
        expected = expected + weight * nearest / float(variables[kind]["spread"])
    found = np.asarray(jax.jit(method.anomaly_map)(variables, new))[0]
    # Each patch's value is at the middle of its pixels, and between the middles it is interpolated.
    cells = expected.reshape(CELLS, CELLS)
    enlarged = cv2.resize(cells, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found, enlarged, rtol=1e-3)


def test_an_image_is_left_out_as_if_its_features_had_never_been_seen(start):
    method, frozen, features, state = start(**{"knn.memory": 768, "knn.coreset": 300})
    step = jax.jit(method.train_step)
    for i in range(6):
        state, _ = step(state, features, jax.random.key(i), image=IMAGE)
    variables = method.finish(frozen, state, ())
    left = method.without(variables, [2, 5])
    for kind in knn.KINDS:
        keys, image = (np.asarray(variables[kind][k]) for k in ("features", "image"))
        stay = ~np.isin(image, [2, 5])
        assert 0 < stay.sum() < len(stay)
        expected = jax.jit(knn.distances)(keys[stay], features)
        found = jax.jit(knn.distances)(left[kind]["features"], features)
        assert left[kind]["features"].shape == keys.shape
        np.testing.assert_allclose(found, expected, atol=5e-3)  # for values near 0
    # An image far from the others is far from the memory bank only if it is left out of it.
    maps = jax.jit(method.anomaly_map)
    odd = IMAGES.copy()
    odd[2] = 1 - odd[2]
    assert (np.asarray(maps(left, IMAGES))[2] > np.asarray(maps(variables, IMAGES))[2] + 1e-3).any()
    with pytest.raises(UserError, match="held out together"):
        method.without(variables, range(8))
