"""The SSIM map against its definition; its gradient by finite differences.

The comparison with scikit-image, whose map gives (1 − S) / 2, is in test_residuals.py.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.ssim_reference import definition, pairs
from jax.test_util import check_grads

from recon_ad.ops import ssim
from recon_ad.ops.platforms import for_other_runtimes
from recon_ad.ops.ssim import ssim_map

OPTIONS = {"data_range": 1.0, "window": 11, "kind": "gaussian", "border": "valid"}
# Height, width, channels: less than, exactly and more than a block; not square.
SHAPES = [(24, 37, 1), (64 + 18, 23, 3), (150, 20, 5)]
WEAK = (80, 30, 1)  # images that need no other size share this one, and with it a program


@functools.cache
def compiled(function, compiler_options=(), **options):
    map_of = functools.partial(function, **options)
    return jax.jit(map_of, compiler_options=dict(compiler_options))


def exported(x, y, **options):
    with for_other_runtimes():
        return ssim_map(x, y, **options)


def as_on_accelerators(x, y, *, accelerator, **others):
    """Replace `by_platform` with the accelerators' form."""
    del others
    return accelerator(x, y)


def maps_of(x, y, *, compiler_options=(), **changes):
    """Return the maps by sums of shifted images, and by the products that are exported."""
    for form in (ssim_map, exported):
        yield compiled(form, compiler_options, **OPTIONS | changes)(x, y)


def total(x, y, **options):
    return ssim_map(x, y, **options).sum()


gradients_of_the_sum = jax.jit(jax.grad(functools.partial(total, **OPTIONS), (0, 1)))


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        *((shape, {"border": border}) for shape in SHAPES for border in ("reflect", "valid")),
        *((SHAPES[1], {"window": n, "kind": "uniform"}) for n in (7, 15)),
        *((SHAPES[1], {"window": n, "kind": "uniform", "border": "reflect"}) for n in (3, 11, 19)),
        *((SHAPES[1], {"window": n}) for n in (3, 19)),
        ((30, 40, 2), {"window": 7, "data_range": 255.0}),
        ((30, 40, 2), {"window": 7, "data_range": 255.0, "kind": "uniform", "border": "reflect"}),
    ],
)
def test_maps_are_those_of_the_definition(shape, changes):
    options = OPTIONS | changes
    x, y = (np.float32(options["data_range"]) * z for z in pairs(shape))
    exact = definition(x, y, **changes)
    for found in maps_of(x, y, **changes):
        np.testing.assert_allclose(found, exact, atol=2e-6)


def textures(offset, amplitude, digits=jnp.float32):
    """Return two weak textures on bright surfaces, rounded to bfloat16 before the comparison."""
    rng = np.random.default_rng(1)
    return (offset + amplitude * rng.uniform(-1, 1, (2, 2, *WEAK))).astype(digits)


def hard_pairs():
    """Yield pairs of one size: weak contrast on bright surfaces, steps, black and white, flat."""
    for offset, amplitude in itertools.product((0.9, 100.0), (1e-3, 0.05, 0.3)):
        yield f"textures {offset} {amplitude}", textures(offset, amplitude)
    for amplitude in (1e-3, 0.02, 0.3):
        yield f"bfloat16 {amplitude}", textures(0.9, amplitude, jnp.bfloat16)
    steps = np.zeros((2, 2, *WEAK), np.float32)
    steps[0, :, :, 15:] = steps[1, :, 40:] = 1
    yield "steps", steps + np.float32(0.02) * np.stack(pairs(WEAK))
    for a, b in ((0.0, 1.0), (0.3, 0.3001), (0.9, 0.1), (0.0, 0.0)):
        yield f"flat {a} {b}", [np.full((2, *WEAK), value, np.float32) for value in (a, b)]
    rng = np.random.default_rng(2)
    x, noise = rng.integers(0, 2, (2, *WEAK)).astype(np.float32), rng.random((2, *WEAK), np.float32)
    yield "inverse", (x, 1 - x)
    yield "negative", (x, -x)
    yield "noise", (x, noise)
    yield "nearly equal", (x, x + np.float32(1e-4) * noise)
    points = rng.random((2, 2, *WEAK)) < 0.01
    yield "points", (points + 0.02 * rng.random(points.shape)).astype(np.float32)


HARD = dict(hard_pairs())


@pytest.mark.parametrize("name", HARD)
def test_hard_pairs_have_the_definitions_values_between_minus_one_and_one(name):
    x, y = HARD[name]
    exact = definition(x, y)
    # Compiled as for users. At the tests' level (conftest.py) JAX 0.12 gives the products other
    # offsets than those that it subtracts, by which maps change by up to 2e-5.
    for found in maps_of(x, y, compiler_options=(("xla_backend_optimization_level", 3),)):
        assert found.dtype == jnp.float32
        # Differences of neighbouring float32 values are exact; sums of 121 terms remain.
        np.testing.assert_allclose(found, exact, atol=2e-6)
        assert found.min() >= -1 - 1e-6 and found.max() <= 1
    assert exact.min() < {"inverse": -0.9, "noise": 0}.get(name, 2)
    # The middle amplitude is at the contrast where C2 hides rounding least.
    if "textures 100" in name or name == "textures 0.9 0.05":  # as hard as intended
        assert np.abs(definition(x, y, naive=True) - exact).max() > 1e-5


@pytest.mark.parametrize("name", ["points", "steps"])
def test_the_smallest_window_has_the_definitions_values_beside_points_and_edges(name):
    exact = definition(*HARD[name], window=3)
    for found in maps_of(*HARD[name], window=3):
        np.testing.assert_allclose(found, exact, atol=2e-6)


def test_precision_does_not_depend_on_that_of_matrix_products():
    image = jax.ShapeDtypeStruct((2, 20, 20, 1), jnp.float32)
    gradient = jax.grad(functools.partial(total, **OPTIONS), 1)
    traced = str(jax.make_jaxpr(gradient)(image, image))
    assert "dot_general" not in traced and "conv_general" not in traced
    assert "bf16" not in traced


@pytest.mark.parametrize(
    ("size", "border", "kind"),  # two blocks, and six of which two overlap
    [((6, 7), "valid", "gaussian"), ((23, 17), "reflect", "uniform")],
)
def test_gradients_agree_with_finite_differences(monkeypatch, size, border, kind):
    monkeypatch.setattr(ssim, "ROWS", 4)
    options = OPTIONS | {"window": 5, "border": border, "kind": kind}
    with jax.enable_x64(True):
        images = [z.astype(np.float64) for z in pairs((*size, 2))]
        check_grads(jax.jit(functools.partial(ssim_map, **options)), images, 1, modes=["rev"])


def with_gradients(x, y, *, window):
    """Return the map, and the gradients of a sum that weights its rows differently."""

    @jax.jit
    def found(x, y):
        maps, pull = jax.vjp(functools.partial(ssim_map, **OPTIONS | {"window": window}), x, y)
        weight = jnp.cos(jnp.arange(maps.shape[1], dtype=maps.dtype)).reshape(1, -1, 1, 1)
        return maps, *pull(jnp.broadcast_to(weight, maps.shape))

    return [np.asarray(z) for z in found(x, y)]


@pytest.mark.parametrize(
    ("window", "shape"),  # one row of the map, two, and more than two blocks
    [(3, (3, 15, 3)), (3, (4, 15, 1)), (11, (150, 24, 3)), (19, (150, 24, 3))],
)
def test_blocks_in_float32_agree_with_the_whole_in_float64(monkeypatch, window, shape):
    x, y = pairs(shape)
    blocks = with_gradients(x, y, window=window)
    monkeypatch.setattr(ssim, "by_platform", as_on_accelerators)
    if window == 11:
        for one, other in zip(blocks, with_gradients(x, y, window=window), strict=True):
            # The same sums in another order: float32 rounding, 2e-7 as measured.
            np.testing.assert_allclose(one, other, atol=2e-6 * np.abs(other).max())
    with jax.enable_x64(True):
        exact = with_gradients(x.astype(np.float64), y.astype(np.float64), window=window)
    for one, other in zip(blocks, exact, strict=True):
        # Relative to the largest: where contributions of windows cancel, digits are lost.
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


def test_neither_offsets_nor_bfloat16_spoil_gradients():
    x, y = HARD["textures 100.0 0.05"]
    found = gradients_of_the_sum(x, y)
    with jax.enable_x64(True):
        exact = gradients_of_the_sum(x.astype(np.float64), y.astype(np.float64))
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())
    for name in ("bfloat16 0.001", "bfloat16 0.3"):
        _, gradient = gradients_of_the_sum(*HARD[name])
        assert gradient.dtype == jnp.bfloat16
        assert np.isfinite(np.asarray(gradient).astype(np.float32)).all()


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_gradients_are_finite_where_images_are_equal_or_flat(value):
    flat, (x, _) = np.full((2, *WEAK), value, np.float32), pairs(WEAK)
    for a, b in ((flat, flat), (x, x), (flat, x), (x, flat)):
        for gradient in gradients_of_the_sum(a, b):
            assert np.isfinite(gradient).all()
            if a is b:  # the maximum
                np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_equal_images_have_one_everywhere_and_images_may_be_exchanged():
    x, y = pairs(SHAPES[1])
    for border in ("reflect", "valid"):
        for same in maps_of(x, x, border=border):
            np.testing.assert_array_equal(same, 1)
        both = zip(maps_of(x, y, border=border), maps_of(y, x, border=border), strict=True)
        for found, exchanged in both:
            # The compiler fuses products and sums in only one order.
            np.testing.assert_allclose(found, exchanged, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "images"),
    # The map itself; its cotangent; and the gradient of x, which was not requested.
    [(total, 1.1), (jax.grad(total, 1), 3.1)],
    ids=["map", "gradient"],
)
def test_a_large_image_takes_little_memory_beside_itself(function, images):
    image = jax.ShapeDtypeStruct((1, 8192, 512, 1), jnp.float32)
    program = jax.jit(functools.partial(function, **OPTIONS)).lower(image, image).compile()
    assert program.memory_analysis().temp_size_in_bytes <= images * image.size * 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window": 8}, "must be odd"),
        ({"window": 0}, "must be odd"),
        ({"window": 21, "border": "reflect"}, "larger than the images of 20x25"),
        ({"data_range": 0.0}, "must be above 0"),
        ({"data_range": float("nan")}, "must be above 0"),
        ({"kind": "box"}, '"gaussian" or "uniform"'),
        ({"border": "same"}, '"reflect" or "valid"'),
    ],
)
def test_options_and_sizes_that_do_not_fit_are_refused(changes, words):
    size = (2, 20, 25, 1)
    with pytest.raises(ValueError, match=words):
        ssim._check(size, size, **OPTIONS | changes)
    with pytest.raises(ValueError, match="equal shape"):
        ssim._check(size, (2, 20, 24, 1), **OPTIONS)
