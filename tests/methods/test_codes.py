"""The distance of codes from N(0, I)."""

import numpy as np
import pytest
from scipy import linalg

from recon_ad.tables.codes import code_distance


def test_the_distance_is_the_formula_with_a_matrix_root():
    random = np.random.default_rng(0)
    codes = random.normal(size=(400, 6)) @ random.normal(size=(6, 6)) + random.normal(size=6)
    covariance = np.cov(codes.T)
    root = linalg.sqrtm(covariance)
    expected = (codes.mean(axis=0) ** 2).sum() + np.trace(covariance + np.eye(6) - 2 * root)
    found = code_distance(codes)
    assert found["frechet"] == pytest.approx(expected, rel=1e-9)
    assert found["variance"] == pytest.approx(np.trace(covariance) / 6)
    assert (found["patches"], found["length"]) == (400, 6)


def test_samples_of_the_prior_are_near_and_a_code_that_says_nothing_is_far():
    prior = code_distance(np.random.default_rng(1).normal(size=(512, 100)))
    assert prior["frechet"] == pytest.approx(prior["sampled"], rel=0.2)
    nothing = code_distance(np.zeros((512, 100), np.float32))
    assert nothing["frechet"] == pytest.approx(100)
    assert prior["frechet"] < 10 < nothing["frechet"]
