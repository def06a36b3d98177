"""The rewritten convolutions against XLA's own and linen's layers: values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from recon_ad.models.layers import Conv, UpConv
from recon_ad.ops import conv


def plain(x, kernel, *, stride=1):
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=conv.DIMENSIONS)


def transposed(x, kernel):
    return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=conv.DIMENSIONS)


def enlarged(x, kernel, *, times):
    return plain(jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2), kernel)


# Ours with its arguments, what XLA computes without rewriting, and the kernel's size.
CASES = {
    "stride 1": (conv.conv, {}, plain, {}, 3),
    "stride 2": (conv.conv, {"stride": 2}, plain, {"stride": 2}, 3),
    "stride 4": (conv.conv, {"stride": 4}, plain, {"stride": 4}, 3),
    "transposed": (conv.conv_transpose_twice, {}, transposed, {}, 3),
    "enlarged 2": (conv.conv_enlarged, {"times": 2}, enlarged, {"times": 2}, 3),
    "enlarged 4": (conv.conv_enlarged, {"times": 4}, enlarged, {"times": 4}, 3),
    "4x4, stride 1": (conv.conv, {}, plain, {}, 4),
    "4x4, stride 2": (conv.conv, {"stride": 2}, plain, {"stride": 2}, 4),
    "4x4, transposed": (conv.conv_transpose_twice, {}, transposed, {}, 4),
}
SHAPES = [(2, 4, 6, 3, 5), (1, 3, 3, 1, 1), (3, 8, 8, 16, 4), (4, 5, 7, 4, 1), (4, 6, 8, 1, 6)]


def both(case, slope):
    mine, own, theirs, given, _ = CASES[case]

    def rewritten(x, kernel, bias):
        return mine(x, kernel, bias, slope=slope, **own)

    def reference(x, kernel, bias):
        active = x if slope is None else nn.leaky_relu(x, slope)
        return theirs(active, kernel, **given) + bias.reshape(1, 1, 1, -1)

    return rewritten, reference


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slope", [None, 0.2])
@pytest.mark.parametrize("chunk", [10 * 2**20, 1])
def test_values_and_all_gradients_agree_with_xla(monkeypatch, case, shape, slope, chunk):
    monkeypatch.setattr(conv, "CHUNK", chunk)  # 1: one image at a time
    b, h, w, c, o = shape
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (b, h, w, c))
    size = CASES[case][4]
    kernel, bias = jax.random.normal(keys[1], (size, size, c, o)), jax.random.normal(keys[2], (o,))
    mine, theirs = both(case, slope)
    expected = theirs(x, kernel, bias)
    # Sums of up to 16 c = 256 products of size 1 in another order.
    np.testing.assert_allclose(mine(x, kernel, bias), expected, atol=5e-5)
    weight = jax.random.normal(keys[3], expected.shape)
    gradients = [
        jax.grad(lambda *args, f=f: (f(*args) * weight).sum(), (0, 1, 2))(x, kernel, bias)
        for f in (mine, theirs)
    ]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-4)


@pytest.mark.parametrize(
    ("layer", "linens"),
    [
        (Conv(5), nn.Conv(5, (3, 3), padding="SAME")),
        (Conv(5, stride=2), nn.Conv(5, (3, 3), (2, 2), padding="SAME")),
        (Conv(5, 2, 4), nn.Conv(5, (4, 4), (2, 2), padding="SAME")),
        (UpConv(5), nn.ConvTranspose(5, (3, 3), (2, 2), padding="SAME")),
        (UpConv(5, 4), nn.ConvTranspose(5, (4, 4), (2, 2), padding="SAME")),
    ],
    ids=["conv", "strided", "strided 4x4", "transposed", "transposed 4x4"],
)
def test_the_layers_have_linens_parameters_and_values(layer, linens):
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    variables, initial = linens.init(jax.random.key(1), x), layer.init(jax.random.key(1), x)
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(jnp.shape, variables)
    np.testing.assert_array_equal(initial["params"]["kernel"], variables["params"]["kernel"])
    variables["params"]["bias"] = jnp.arange(5.0)
    np.testing.assert_allclose(layer.apply(variables, x), linens.apply(variables, x), atol=1e-5)


def test_accelerators_use_their_own_kernels(monkeypatch):
    monkeypatch.setattr(conv, "lowered", lambda: False)
    x, kernel, bias = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2)), jnp.ones(2)
    assert "lhs_dilation=(2, 2)" in str(jax.make_jaxpr(conv.conv_transpose_twice)(x, kernel, bias))
    for case in ("stride 2", "enlarged 4"):
        traced = str(jax.make_jaxpr(both(case, 0.2)[0])(x, kernel, bias))
        assert "custom_vjp" not in traced and traced.count("conv_general_dilated") == 1


def test_inference_has_no_loop():
    x, kernel, bias = jnp.ones((64, 64, 64, 16)), jnp.ones((3, 3, 16, 16)), jnp.ones(16)
    for case in CASES:
        traced = str(jax.make_jaxpr(both(case, 0.2)[0])(x, kernel, bias))
        assert "while" not in traced and "scan" not in traced
