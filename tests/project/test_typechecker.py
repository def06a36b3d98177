"""Shapes in types are checked in every test, and functions that are called often are not slowed."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers import typechecker
from jaxtyping import Float, jaxtyped

from recon_ad.ops.scores import SCORES


@pytest.fixture(autouse=True)
def start_anew():
    typechecker.start_anew()
    yield
    typechecker.start_anew()


def test_the_package_is_checked():
    with pytest.raises(jaxtyping.TypeCheckError):
        SCORES["max"](jnp.zeros(3), jnp.ones(3, bool))  # no map


@jaxtyped(typechecker=typechecker.checked)  # as the package's functions are
def alike(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> bool:
    return len(x) == len(y)


def test_the_first_calls_of_a_function_are_checked(monkeypatch):
    monkeypatch.setattr(typechecker, "CHECKS", 10)
    few, many = np.zeros(2), np.zeros(3)
    with pytest.raises(jaxtyping.TypeCheckError):
        alike(few, many)
    for _ in range(5):
        assert alike(few, few)
    assert not alike(few, many) and alike.__no_type_check__
    typechecker.start_anew()
    with pytest.raises(jaxtyping.TypeCheckError):
        alike(few, many)
