"""The lowered transposed convolution against XLA's own and linen's layer, values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from recon_ad.models.layers import UpConv
from recon_ad.ops import conv


@pytest.mark.parametrize("shape", [(2, 4, 6, 3, 5), (1, 1, 1, 1, 1), (3, 8, 8, 16, 4)])
def test_agrees_with_xla_and_so_do_its_gradients(shape):
    b, h, w, c, o = shape
    x = jax.random.normal(jax.random.key(0), (b, h, w, c))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, c, o))
    weight = jax.random.normal(jax.random.key(2), (b, 2 * h, 2 * w, o))

    def plain(x, kernel):
        return lax.conv_transpose(x, kernel, (2, 2), "SAME")

    # Sums of up to 9 c products in another order.
    np.testing.assert_allclose(conv.conv_transpose_twice(x, kernel), plain(x, kernel), atol=1e-4)
    for f in (0, 1):
        ours, theirs = (
            jax.grad(lambda x, k, g=g: (g(x, k) * weight).sum(), f)(x, kernel)
            for g in (conv.conv_transpose_twice, plain)
        )
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)


def test_the_layer_has_linens_parameters_and_values():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    theirs = nn.ConvTranspose(5, (3, 3), (2, 2), padding="SAME")
    variables = theirs.init(jax.random.key(1), x)
    _, initial = UpConv(5).init_with_output(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(jnp.shape, variables)
    variables["params"]["bias"] = jnp.arange(5.0)
    np.testing.assert_allclose(UpConv(5).apply(variables, x), theirs.apply(variables, x), atol=1e-5)


def test_accelerators_use_their_own_kernels(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2))
    text = str(jax.make_jaxpr(conv.conv_transpose_twice)(x, kernel))
    assert "lhs_dilation=(2, 2)" in text
