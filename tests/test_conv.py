"""The rewritten convolutions against XLA's own and linen's layers: values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from recon_ad.models.layers import UpConv
from recon_ad.ops import conv


def transposed(x, kernel):
    return lax.conv_transpose(x, kernel, (2, 2), "SAME")


def valid(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=conv.DIMENSIONS)


CASES = {
    "transposed": (conv.conv_transpose_twice, transposed),
    "valid": (conv.conv_valid, valid),
}
SHAPES = [(2, 4, 6, 3, 5), (1, 3, 3, 1, 1), (3, 8, 8, 16, 4), (1, 5, 7, 2, 3)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_both_gradients_agree_with_xla(case, shape):
    b, h, w, c, o = shape
    x = jax.random.normal(jax.random.key(0), (b, h, w, c))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, c, o))
    mine, theirs = CASES[case]
    expected = theirs(x, kernel)
    # Sums of up to 9 c = 144 products of size 1 in another order.
    np.testing.assert_allclose(mine(x, kernel), expected, atol=5e-5)
    weight = jax.random.normal(jax.random.key(2), expected.shape)
    for argument in (0, 1):
        a, b = (
            jax.grad(lambda x, k, f=f: (f(x, k) * weight).sum(), argument)(x, kernel)
            for f in (mine, theirs)
        )
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


def test_the_layer_has_linens_parameters_and_values():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    theirs = nn.ConvTranspose(5, (3, 3), (2, 2), padding="SAME")
    variables, initial = theirs.init(jax.random.key(1), x), UpConv(5).init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(jnp.shape, variables)
    spread = initial["params"]["kernel"].std() / variables["params"]["kernel"].std()
    assert 0.7 < spread < 1.4
    variables["params"]["bias"] = jnp.arange(5.0)
    np.testing.assert_allclose(UpConv(5).apply(variables, x), theirs.apply(variables, x), atol=1e-5)


def test_accelerators_use_their_own_kernels(monkeypatch):
    monkeypatch.setattr(conv, "lowered", lambda: False)
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    assert "lhs_dilation=(2, 2)" in str(jax.make_jaxpr(conv.conv_transpose_twice)(x, kernel))
