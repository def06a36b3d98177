"""The principal subspace of features: moments, components, residuals, images left out."""

import functools

import jax
import numpy as np
import pytest
from helpers.small_encoder import SIDE, WIDTH, started
from sklearn.decomposition import PCA

from recon_ad.errors import UserError
from recon_ad.methods import subspace

residual = jax.jit(subspace.residual)
random = np.random.default_rng(0)
IMAGES = (0.5 + 0.1 * random.normal(size=(8, SIDE, SIDE, 1))).astype(np.float32)
PLACES = np.arange(8, dtype=np.int32)


@pytest.fixture(scope="module")
def start(small_encoder):
    return functools.partial(started, small_encoder, "subspace", IMAGES)


@pytest.fixture(scope="module")
def trained(start):
    method, frozen, features, state = start()
    state = jax.jit(method.init)(jax.random.key(0), features)
    state, _ = jax.jit(method.train_step)(state, features, jax.random.key(0), image=PLACES)
    return method, frozen, features, state


def expected_residual(train, features, share):
    """Compute the residual by scikit-learn, in double precision."""
    rows = np.asarray(train, np.float64).reshape(-1, train.shape[-1])
    pca = PCA(svd_solver="full").fit(rows)
    kept = int(np.searchsorted(np.cumsum(pca.explained_variance_ratio_), share)) + 1
    directions = pca.components_[:kept]
    centred = np.asarray(features, np.float64).reshape(-1, rows.shape[1]) - pca.mean_
    left = centred - centred @ directions.T @ directions
    return np.linalg.norm(left, axis=1).reshape(features.shape[:3]), kept


def test_what_is_left_is_that_of_a_pca(trained):
    method, frozen, features, state = trained
    variables = method.finish(frozen, state, ())
    expected, kept = expected_residual(features, features, 0.9)
    assert 1 < kept < 3 * WIDTH - 1
    found = residual(variables["subspace"], features)
    # Lengths of about 5; the components come from products in float32.
    np.testing.assert_allclose(found, expected, atol=2e-3)
    shown = np.asarray(variables["subspace"]["components"])
    assert np.count_nonzero(shown.any(axis=0)) == kept
    new = np.float32(features + np.random.default_rng(1).normal(size=features.shape))
    further, _ = expected_residual(features, new, 0.9)
    np.testing.assert_allclose(residual(variables["subspace"], new), further, rtol=1e-3, atol=2e-3)


def test_leaving_images_out_is_training_without_them(trained, start):
    method, frozen, features, state = trained
    left = method.without(method.finish(frozen, state, ()), [1, 6])
    rest = np.delete(features, [1, 6], axis=0)
    expected, _ = expected_residual(rest, features, 0.9)
    np.testing.assert_allclose(residual(left["subspace"], features), expected, atol=2e-3)
    with pytest.raises(UserError, match="split"):
        method.without(left, range(8))


def test_the_map_marks_what_good_images_do_not_have(trained):
    method, frozen, _, state = trained
    variables = method.finish(frozen, state, ())
    maps = jax.jit(method.anomaly_map)
    defect = IMAGES.copy()
    defect[0, :8, :8] = random.random((8, 8, 1)) > 0.5
    good, bad = (np.asarray(maps(variables, x)) for x in (IMAGES, defect))
    assert bad.shape == (8, SIDE, SIDE)
    assert bad[0, :8, :8].mean() > 1.5 * good[0, :8, :8].mean()
    np.testing.assert_allclose(bad[1:], good[1:], rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_a_share_beyond_its_bounds_is_refused(start, share):
    with pytest.raises(UserError, match=r"config\.subspace\.variance"):
        start(**{"subspace.variance": share})
