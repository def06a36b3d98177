"""Mean residuals of patches against a plain loop."""

import numpy as np
import pytest

from recon_ad.metrics.patches import PatchMeans, joined, patch_means


@pytest.mark.parametrize("size", [(64, 96), (70, 100), (20, 50), (5, 7)])
@pytest.mark.parametrize("with_valid", [False, True])
def test_patches_are_those_of_a_plain_loop(size, with_valid):
    random = np.random.default_rng(0)
    residual = random.random(size).astype(np.float32)
    truth, valid = np.zeros(size, bool), np.ones(size, bool)
    corner, right = truth[-size[0] // 2 :, : size[1] // 3], valid[:, size[1] // 3 :]
    corner[:] = random.random(corner.shape) < 0.01
    right[:] = random.random(right.shape) < (0.5 if with_valid else 1)
    residual[~valid] = np.nan
    got = patch_means(residual, truth, side=16, valid=valid if with_valid else None)
    normal, defective = [], []
    high, wide = min(16, size[0]), min(16, size[1])
    for row in range(0, size[0] - high + 1, high):
        for column in range(0, size[1] - wide + 1, wide):
            here = np.s_[row : row + high, column : column + wide]
            counts = valid[here]
            if counts.mean() >= 0.5:
                bad = (truth[here] & counts).any()
                (defective if bad else normal).append(residual[here][counts].mean(dtype=float))
    np.testing.assert_allclose(got.normal, normal, rtol=1e-6)
    np.testing.assert_allclose(got.defective, defective, rtol=1e-6)
    assert len(normal) + len(defective)
    twice = joined([got, PatchMeans(np.array([1.0]), np.array([])), got])
    assert twice.normal.tolist() == [*got.normal, 1, *got.normal]
    assert twice.defective.tolist() == [*got.defective, *got.defective]
    assert not joined([]).normal.size
