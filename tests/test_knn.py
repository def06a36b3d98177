"""Nearest neighbours on features: memory, coreset, distances, and the map they become."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import spatial
from small_runs import small_config

from recon_ad.errors import UserError
from recon_ad.methods import build_method, knn


def config_of(**fields):
    return small_config("configs/vit.py:method=knn,smoke", **{"data.patch_size": 64} | fields)


def started(images, **fields):
    method = build_method(config_of(**fields), channels=images.shape[-1])
    frozen, _ = method.pretrained()
    features = jax.jit(method.prepare)(frozen, images)
    return method, frozen, features, method.init(jax.random.key(1), features)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(0), (8, 64, 64, 1))


def test_distances_are_scipys_and_zero_for_what_is_known():
    random = np.random.default_rng(0)
    keys = random.normal(size=(30, 7)).astype(np.float32)
    features = random.normal(size=(2, 3, 4, 7)).astype(np.float32)
    features[0, 0, 0] = keys[11]
    found = knn.distances(jnp.asarray(keys), jnp.asarray(features))
    expected = spatial.distance.cdist(features.reshape(-1, 7), keys).min(axis=1).reshape(2, 3, 4)
    # The root of a rounding error of |q|² of about 10.
    np.testing.assert_allclose(found, expected, atol=5e-3)
    np.testing.assert_allclose(np.delete(found, 0), np.delete(expected, 0), rtol=1e-5)


def test_the_coreset_is_chosen_greedily():
    # Of few numbers each, so that nothing is projected and each choice can be foreseen.
    vectors = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    chosen = [0]
    for _ in range(19):
        nearest = spatial.distance.cdist(vectors, vectors[chosen]).min(axis=1)
        chosen.append(int(nearest.argmax()))
    found = knn.coreset(jnp.asarray(vectors), seed=0, filled=200, count=20)
    np.testing.assert_array_equal(found, vectors[chosen])


def test_none_is_chosen_twice_where_all_look_alike():
    # Of differences that rounding hides, distances in float32 are 0 or noise.
    apart = np.random.default_rng(0).normal(size=(60, 5))
    vectors = (1000 + 1e-3 * apart).astype(np.float32)
    assert len(np.unique(vectors, axis=0)) == 60
    for seed, count in ((0, 20), (0, 60)):
        found = knn.coreset(jnp.asarray(vectors), seed=seed, filled=60, count=count)
        assert len(np.unique(found, axis=0)) == count


def test_a_projected_coreset_covers_better_than_chance():
    vectors = np.random.default_rng(0).standard_t(3, size=(1000, 200)).astype(np.float32)
    found = np.asarray(knn.coreset(jnp.asarray(vectors), seed=0, filled=1000, count=50))
    assert len(np.unique(found, axis=0)) == 50

    def radius(keys):
        return spatial.distance.cdist(vectors, keys).min(axis=1).max()

    chance = [radius(vectors[np.random.default_rng(i).permutation(1000)[:50]]) for i in range(5)]
    assert radius(found) < min(chance)


def test_training_fills_the_memory_with_features_of_each_batch(images):
    method, _, features, state = started(images, **{"method.memory": 24, "method.coreset": 5})
    assert state.params["memory"].shape == (24, features.shape[-1])
    step = jax.jit(method.train_step)
    for i in range(6):
        batch = features + i
        state, _ = step(state, batch, jax.random.key(i))
        rows = np.asarray(state.params["memory"])[4 * i : 4 * i + 4]
        known = {v.tobytes() for v in np.asarray(batch).reshape(-1, rows.shape[1])}
        assert all(row.tobytes() in known for row in rows)
        assert len({row.tobytes() for row in rows}) == 4
    assert int(state.step) == 6


def test_what_is_not_filled_yet_is_no_good_feature(images):
    method, frozen, features, state = started(images)
    mask = jnp.ones(len(images), bool)
    for i in range(2):
        state, _ = jax.jit(method.train_step)(state, features, jax.random.key(i))
    known = {row.tobytes() for row in np.asarray(features).reshape(-1, features.shape[-1])}
    chosen = np.asarray(method.finish(frozen, state, ())["coreset"])
    assert len(chosen) == 256 and all(row.tobytes() in known for row in chosen)
    # All that is looked at is remembered twice: nothing is far from it.
    total, count = method.eval_step(state, features, mask)["loss"]
    assert float(total / count) < 0.1


def test_the_heldout_loss_is_the_mean_distance_to_every_nth_filled_feature():
    images = jax.random.uniform(jax.random.key(0), (8, 64, 64, 1))
    fields = {"method.memory": 2400, "method.coreset": 5, "train.steps": 20}
    method, _, features, state = started(images, **fields)
    state, _ = jax.jit(method.train_step)(state, features, jax.random.key(0))
    memory = np.asarray(state.params["memory"], np.float64)
    assert len(memory) == 2400 and memory[119].any() and not memory[120:].any()
    # Nearer to the zeros that are not filled yet than to anything that is.
    heldout = 0.1 * features + 0.01 * jax.random.normal(jax.random.key(1), features.shape)
    rows = np.asarray(heldout, np.float64).reshape(-1, memory.shape[1])
    # 1024 at most are looked at, so every third.
    nearest = spatial.distance.cdist(rows, memory[:120:3]).min(axis=1).reshape(8, 16)
    assert nearest.max() > 1.001 * nearest.mean()  # or either would do
    mask = np.array([True] * 6 + [False] * 2)
    total, count = jax.jit(method.eval_step)(state, heldout, jnp.asarray(mask))["loss"]
    assert float(count) == 6
    assert float(total) == pytest.approx(nearest.mean(axis=1)[mask].sum(), rel=1e-5)


def test_what_was_seen_is_normal_and_what_was_not_stands_out(images):
    # Six steps of eight images of sixteen patches: all of them are remembered.
    method, frozen, features, state = started(images, **{"method.coreset": 768})
    for i in range(6):
        state, _ = jax.jit(method.train_step)(state, features, jax.random.key(i))
    assert len(state.params["memory"]) == 768
    variables = method.finish(frozen, state, ())
    maps = jax.jit(method.anomaly_map)
    normal = np.asarray(maps(variables, images))
    assert normal.shape == (8, 64, 64)
    odd = images.at[0, 48:, 48:].set(0.0)
    strange = np.asarray(maps(variables, odd))
    # Features are sums of hundreds of squares: distances of nothing are rounding.
    assert strange[0].max() > 10 * normal.max()
    np.testing.assert_allclose(strange[1:], normal[1:], atol=1e-5)
    # The damage is where it is: all see it, but most of all the patch that it lies in.
    rows, columns = np.unravel_index(strange[0].argmax(), strange[0].shape)
    assert rows >= 32 and columns >= 32


def test_settings_that_do_not_fit_get_a_sentence():
    for fields, says in (
        ({"data.patch_size": 40}, "choose a multiple of it, 32 for example"),
        ({"encoder.blocks": (2, 12)}, "from 0 to 11"),
        ({"encoder.blocks": ()}, "give one or more"),
        ({"encoder.name": "resnet"}, "no encoder here"),
        ({"method.coreset": 0}, "coreset is 0"),
        ({"method.coreset": 100_000}, "no smaller"),
    ):
        with pytest.raises(UserError, match=says):
            build_method(config_of(**fields), channels=1)
    with pytest.raises(UserError, match="takes 1 or 3"):
        build_method(config_of(), channels=2)
