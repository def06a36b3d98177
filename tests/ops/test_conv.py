"""The rewritten convolutions against XLA's own and linen's layers: values and gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from recon_ad.models.layers import Conv, UpConv
from recon_ad.ops import conv
from recon_ad.ops.platforms import for_other_runtimes


def plain(x, kernel, *, stride=1, times=1):
    x = jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2)
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=conv.DIMENSIONS)


def transposed(x, kernel):
    return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=conv.DIMENSIONS)


ALL = 10 * 2**20  # bytes: all images at once
# Ours, XLA's without rewriting, the arguments of both, and the kernel's side.
CASES = {
    "stride 1": (conv.conv, plain, {}, 3),
    "stride 2": (conv.conv, plain, {"stride": 2}, 3),
    "stride 4": (conv.conv, plain, {"stride": 4}, 3),
    "transposed": (conv.conv_transpose_twice, transposed, {}, 3),
    "enlarged 2": (conv.conv_enlarged, plain, {"times": 2}, 3),
    "enlarged 4": (conv.conv_enlarged, plain, {"times": 4}, 3),
    "4x4, stride 1": (conv.conv, plain, {}, 4),
    "4x4, stride 2": (conv.conv, plain, {"stride": 2}, 4),
    "4x4, transposed": (conv.conv_transpose_twice, transposed, {}, 4),
}


def both(case, slope):
    """Return ours and the same without rewriting, as functions of images, kernel and bias."""
    mine, theirs, options, _ = CASES[case]

    def reference(x, kernel, bias):
        active = x if slope is None else nn.leaky_relu(x, slope)
        return theirs(active, kernel, **options) + bias.reshape(1, 1, 1, -1)

    return functools.partial(mine, slope=slope, **options), reference


@pytest.mark.parametrize(
    ("shape", "slope", "chunk"),
    [
        ((2, 4, 6, 3, 5), None, 1),  # one image at a time
        ((2, 4, 6, 5, 4), 0.2, ALL),
        ((1, 3, 3, 1, 1), 0.2, ALL),
        ((3, 8, 8, 16, 4), 0.2, 1),
        ((4, 5, 7, 4, 1), 0.2, 4000),  # two at a time, if that is few enough
        ((4, 6, 8, 1, 6), None, ALL),
    ],
)
def test_values_and_all_gradients_agree_with_xla(monkeypatch, shape, slope, chunk):
    monkeypatch.setattr(conv, "CHUNK", chunk)
    *size, c, o = shape
    random = np.random.default_rng(0)
    x, bias = (random.standard_normal(s, np.float32) for s in ((*size, c), (o,)))
    kernels = {n: random.standard_normal((k, k, c, o), np.float32) for n, (*_, k) in CASES.items()}

    def pulled(function, *given):
        value, pull = jax.vjp(function, *given)
        return value, *pull(jnp.cos(value))  # weights of all sizes and signs

    @jax.jit  # one program for all, because compiling takes longest
    def found(x, kernels, bias):
        return {n: [pulled(f, x, k, bias) for f in both(n, slope)] for n, k in kernels.items()}

    for case, (ours, theirs) in found(x, kernels, bias).items():
        # Sums of up to 16 c = 256 products of size 1 in another order.
        np.testing.assert_allclose(ours[0], theirs[0], atol=5e-5, err_msg=case)
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=3e-4, err_msg=case)


@pytest.mark.parametrize("case", ["transposed", "4x4, transposed"])
def test_the_form_for_accelerators_agrees_with_that_for_cpus(monkeypatch, case):
    ours, side = both(case, 0.2)[0], CASES[case][3]
    random = np.random.default_rng(0)
    shapes = (3, 5, 8, 4), (side, side, 4, 6), (6,)
    given = [random.standard_normal(shape, np.float32) for shape in shapes]

    def found():
        value, pull = jax.vjp(jax.jit(lambda *given: ours(*given)), *given)
        return value, *pull(jnp.cos(value))

    expected = found()
    monkeypatch.setattr(
        conv, "by_platform", lambda *given, cpu, accelerator, portable: accelerator(*given)
    )
    # Sums of up to 16 · 4 products of size 1, for the kernel 3 · 5 · 8, in another order.
    for a, b in zip(found(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_form_for_other_runtimes_of_one_output_channel_agrees(channels):
    ours, theirs = both("stride 1", 0.2)
    random = np.random.default_rng(0)
    shapes = (2, 5, 8, channels), (3, 3, channels, 1), (1,)
    given = [jnp.asarray(random.standard_normal(shape, np.float32)) for shape in shapes]
    with for_other_runtimes():
        assert f"feature_group_count={channels}" in str(jax.make_jaxpr(ours)(*given))
        found = ours(*given)
    # Sums of up to 36 products of size 1 in another order.
    np.testing.assert_allclose(found, theirs(*given), atol=5e-6)


def test_the_layers_have_linens_parameters_and_values():
    layers = {
        "conv": (Conv(5), nn.Conv(5, (3, 3), padding="SAME")),
        "strided": (Conv(5, stride=2), nn.Conv(5, (3, 3), (2, 2), padding="SAME")),
        "strided 4x4": (Conv(5, 2, 4), nn.Conv(5, (4, 4), (2, 2), padding="SAME")),
        "transposed": (UpConv(5), nn.ConvTranspose(5, (3, 3), (2, 2), padding="SAME")),
        "transposed 4x4": (UpConv(5, 4), nn.ConvTranspose(5, (4, 4), (2, 2), padding="SAME")),
    }
    x = np.random.default_rng(0).standard_normal((2, 4, 4, 3), np.float32)

    @jax.jit
    def found(key, x):
        return {n: [layer.init_with_output(key, x) for layer in two] for n, two in layers.items()}

    for name, ((ours, params), (theirs, expected)) in found(jax.random.key(1), x).items():
        jax.tree.map(np.testing.assert_array_equal, params, expected)
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=name)


def traced(function, *shapes):
    return str(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)))


def exported(function, *shapes, platform):
    given = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    return str(export.export(jax.jit(function), platforms=[platform])(*given).mlir_module())


@pytest.mark.parametrize("case", CASES)
def test_accelerators_use_their_own_kernels(case):
    ours, side = both(case, 0.2)[0], CASES[case][3]
    # So many images that programs for a CPU process a few at a time.
    shapes = (64, 64, 64, 16), (side, side, 16, 16), (16,)

    def gradients(*given):
        return jax.grad(lambda *given: jnp.sum(ours(*given) ** 2), (0, 1, 2))(*given)

    program = exported(gradients, *shapes, platform="cuda")
    assert "while" not in program
    # Forward, with respect to the images and to the kernel.
    assert program.count("stablehlo.convolution") == 3
    if "transposed" in case:
        # The gradient of a strided convolution has this form, and so do its gradients. The windows
        # are no larger; without the rewriting they would be as large as the images.
        assert [
            program.count(f"{what} = [2, 2]") for what in ("lhs_dilate", "stride", "rhs_dilate")
        ] == [1, 1, 1]
    if case == "transposed":
        assert "while" in exported(gradients, *shapes, platform="cpu")


@pytest.mark.parametrize("case", CASES)
def test_inference_has_no_loop(case):
    side = CASES[case][3]
    program = traced(both(case, 0.2)[0], (64, 64, 64, 16), (side, side, 16, 16), (16,))
    assert "while" not in program and "scan" not in program
