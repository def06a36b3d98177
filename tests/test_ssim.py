"""The SSIM map against scikit-image, dm-pix and float64; its gradient by finite differences."""

import functools
import re

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from scipy import ndimage
from ssim_reference import scikit_image

from recon_ad.ops import ssim
from recon_ad.ops.ssim import ssim_map

OPTIONS = {"data_range": 1.0, "window": 11, "kind": "gaussian", "border": "valid"}
WINDOWS = [3, 7, 11, 15, 19]
# Height, width, channels: less, exactly and more than a block; not square.
SHAPES = [(24, 37, 1), (64 + 18, 23, 3), (150, 20, 5)]


def map_of(x, y, **changes):
    options = {**OPTIONS, **changes}
    return jax.jit(functools.partial(ssim_map, **options))(jnp.asarray(x), jnp.asarray(y))


def pairs(shape, *, seed=0, images=2):
    """Smooth images and blurred, noisy ones: S takes all values from about 0 to 1."""
    rng = np.random.default_rng(seed)
    x = ndimage.gaussian_filter(rng.random((images, *shape)), (0, 1, 1, 0))
    x = (x - x.min()) / (x.max() - x.min())
    y = ndimage.gaussian_filter(x, (0, 1, 1, 0)) + 0.05 * rng.standard_normal(x.shape)
    return x.astype(np.float32), np.clip(y, 0, 1).astype(np.float32)


def reference(x, y, *, data_range=1.0, window=11, kind="gaussian"):
    """The definition in float64, "valid", with variances as means of squared differences."""
    x, y = (np.asarray(z).astype(np.float64) for z in (x, y))
    w = np.exp(-0.5 * ((np.arange(window) - window // 2) / 1.5) ** 2)
    w = w if kind == "gaussian" else np.ones(window)
    w = np.outer(w, w) / w.sum() ** 2
    a, b = (np.lib.stride_tricks.sliding_window_view(z, w.shape, (1, 2)) for z in (x, y))
    ma, mb = (np.einsum("...kl,kl", z, w) for z in (a, b))
    a, b = a - ma[..., None, None], b - mb[..., None, None]
    va, vb, cov = (np.einsum("...kl,...kl,kl->...", p, q, w) for p, q in ((a, a), (b, b), (a, b)))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("border", ["reflect", "valid"])
def test_gaussian_maps_agree_with_scikit_image(shape, border):
    x, y = pairs(shape)
    expected = scikit_image(x, y, gaussian_weights=True)  # 11 px, SciPy's "reflect"
    expected = expected if border == "reflect" else expected[:, 5:-5, 5:-5]
    np.testing.assert_allclose(map_of(x, y, border=border), expected, atol=1e-5)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("border", ["reflect", "valid"])
def test_uniform_maps_agree_with_scikit_image(window, border):
    x, y = pairs(SHAPES[1])
    expected, edge = scikit_image(x, y, win_size=window), window // 2
    expected = expected if border == "reflect" else expected[:, edge:-edge, edge:-edge]
    result = map_of(x, y, window=window, kind="uniform", border=border)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("window", "shape"),
    [(11, shape) for shape in SHAPES] + [(w, SHAPES[1]) for w in (3, 7, 15, 19)],
)
def test_valid_maps_agree_with_dm_pix(window, shape):
    x, y = pairs(shape)
    with jax.enable_x64(True):  # in float32 it is itself up to 1e-4 away from the truth
        wide = [jnp.asarray(z, jnp.float64) for z in (x, y)]
        expected = np.asarray(dm_pix.ssim(*wide, filter_size=window, return_map=True))
    np.testing.assert_allclose(map_of(x, y, window=window), expected, atol=1e-5)


@pytest.mark.parametrize("border", ["reflect", "valid"])
@pytest.mark.parametrize("kind", ["gaussian", "uniform"])
def test_definition_for_any_range(border, kind):
    x, y = pairs((30, 40, 2))
    x, y = 255 * x, 255 * y
    around = ((0, 0), (3, 3), (3, 3), (0, 0))
    padded = [np.pad(z, around, mode="symmetric") if border == "reflect" else z for z in (x, y)]
    expected = reference(*padded, data_range=255.0, window=7, kind=kind)
    result = map_of(x, y, data_range=255.0, window=7, kind=kind, border=border)
    np.testing.assert_allclose(result, expected, atol=2e-6)


def textures(offset, amplitude, *, seed=1, digits=None):
    """Two weak textures on bright surfaces; in bfloat16, rounded before they are compared."""
    rng = np.random.default_rng(seed)
    images = offset + amplitude * rng.uniform(-1, 1, (2, 2, 80, 30, 1))
    return [jnp.asarray(z, digits or jnp.float32) for z in images]


# The middle case stands at the contrast where C2 hides rounding least.
@pytest.mark.parametrize("offset", [0.9, 100.0])
@pytest.mark.parametrize("amplitude", [1e-3, 0.05, 0.3])
def test_weak_contrast_on_bright_surfaces_survives_float32(offset, amplitude):
    x, y = textures(offset, amplitude)
    expected = reference(x, y)
    # Differences of float32 neighbours are exact; what is left are sums of 121 terms.
    np.testing.assert_allclose(map_of(x, y), expected, atol=2e-6)
    naive = dm_pix.ssim(x, y, return_map=True)
    if offset > 1 or amplitude == 0.05:
        assert np.abs(naive - expected).max() > 1e-5  # the case is as hard as it claims


@pytest.mark.parametrize("amplitude", [1e-3, 0.02, 0.3])
def test_bfloat16_images_are_compared_in_float32(amplitude):
    x, y = textures(0.9, amplitude, digits=jnp.bfloat16)
    result = map_of(x, y)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, reference(x, y), atol=2e-6)
    gradient = jax.grad(lambda y: map_of(x, y).sum())(y)
    assert gradient.dtype == jnp.bfloat16 and np.isfinite(gradient.astype(np.float32)).all()


def test_steps_from_dark_to_bright_do_not_spoil_the_flat_parts():
    x, y = np.zeros((2, 1, 80, 60, 1), np.float32)
    x[:, :, 30:] = y[:, 40:] = 1
    x, y = x + 0.02 * pairs((80, 60, 1), images=1)[0], y + 0.02 * pairs((80, 60, 1), images=1)[1]
    np.testing.assert_allclose(map_of(x, y), reference(x, y), atol=2e-6)


def test_precision_does_not_depend_on_that_of_matrix_products():
    x, y = (jnp.asarray(z) for z in pairs((20, 20, 1)))
    traced = str(jax.make_jaxpr(jax.grad(lambda y: ssim_map(x, y, **OPTIONS).sum()))(y))
    assert "dot_general" not in traced and "conv_general" not in traced
    assert "bf16" not in traced


@pytest.mark.parametrize(("border", "kind"), [("reflect", "uniform"), ("valid", "gaussian")])
@pytest.mark.parametrize("size", [(12, 11), (23, 17)])  # two blocks, and six of which two overlap
def test_gradients_agree_with_finite_differences(monkeypatch, border, kind, size):
    monkeypatch.setattr(ssim, "ROWS", 4)
    with jax.enable_x64(True):
        x, y = (jnp.asarray(z, jnp.float64) for z in pairs((*size, 2)))

        def function(x, y):
            x, y = jnp.asarray(x), jnp.asarray(y)
            return ssim_map(x, y, **{**OPTIONS, "border": border, "kind": kind})

        check_grads(function, (x, y), order=1, modes=["rev"])


@pytest.mark.parametrize("argument", [0, 1])
@pytest.mark.parametrize("window", [3, 11, 19])
def test_float32_gradients_agree_with_float64(argument, window):
    x, y = pairs((150, 24, 3))

    def gradient(x, y):
        weight = jnp.cos(jnp.arange(150 - window + 1.0, dtype=x.dtype)).reshape(1, -1, 1, 1)

        def loss(*a):
            return (ssim_map(*a, **{**OPTIONS, "window": window}) * weight).sum()

        return jax.jit(jax.grad(loss, argument))(x, y)

    result = gradient(jnp.asarray(x), jnp.asarray(y))
    with jax.enable_x64(True):
        expected = np.asarray(gradient(jnp.asarray(x, np.float64), jnp.asarray(y, np.float64)))
    # Relative to the largest: where contributions of windows cancel, so do digits.
    np.testing.assert_allclose(result, expected, atol=1e-5 * np.abs(expected).max())


def test_offsets_do_not_spoil_gradients():
    x, y = textures(100.0, 0.05)

    def gradient(x, y):
        return jax.grad(lambda y: map_of(x, y).sum())(y)

    result = gradient(x, y)
    with jax.enable_x64(True):
        expected = np.asarray(gradient(*(jnp.asarray(z, jnp.float64) for z in (x, y))))
    np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_gradients_are_finite_where_images_are_equal_or_flat(value):
    flat, (x, _) = np.full((1, 20, 20, 1), value, np.float32), pairs((20, 20, 1), images=1)
    gradients = jax.jit(jax.grad(lambda *z: ssim_map(*z, **OPTIONS).sum(), (0, 1)))
    for a, b in ((flat, flat), (x, x), (flat, x), (x, flat)):
        for gradient in gradients(a, b):
            assert np.isfinite(gradient).all()
            if a is b:  # the maximum
                np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("border", ["reflect", "valid"])
def test_equal_images_have_one_everywhere(border):
    x, _ = pairs((70, 30, 3))
    np.testing.assert_array_equal(map_of(x, x, border=border), 1)


def test_images_may_be_exchanged():
    x, y = pairs((70, 30, 3))
    # The compiler fuses products and sums in one order only.
    np.testing.assert_allclose(map_of(x, y), map_of(y, x), atol=1e-6)


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (0.3, 0.3001), (0.9, 0.1), (0.0, 0.0)])
def test_flat_images_have_the_luminance_term_alone(a, b):
    x, y = (np.full((1, 20, 15, 1), value, np.float32) for value in (a, b))
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    np.testing.assert_allclose(map_of(x, y), expected, rtol=1e-6, atol=1e-6)


def test_values_lie_between_minus_one_and_one():
    rng = np.random.default_rng(2)
    x = rng.choice([0.0, 1.0], (2, 70, 30, 1)).astype(np.float32)
    others = {"inverse": 1 - x, "negative": -x, "noise": rng.random(x.shape).astype(np.float32)}
    others["nearly equal"] = x + np.float32(1e-4) * others["noise"]
    least = {}
    for name, y in others.items():
        result = np.asarray(map_of(x, y))
        assert result.min() >= -1 - 1e-6 and result.max() <= 1
        least[name] = result.min()
    assert least["inverse"] < -0.9 and least["noise"] < 0


def test_channels_are_compared_by_themselves():
    x, y = pairs((70, 30, 3))
    alone = [map_of(x[..., c : c + 1], y[..., c : c + 1]) for c in range(3)]
    # The same sums, fused by the compiler in another way.
    np.testing.assert_allclose(map_of(x, y), np.concatenate(alone, -1), atol=1e-6)


@pytest.mark.parametrize("height", [11, 12, 150])
@pytest.mark.parametrize("channels", [1, 3])
def test_blocks_agree_with_the_whole(monkeypatch, height, channels):
    x, y = pairs((height, 15, channels))
    results = []
    for on in (True, False):
        monkeypatch.setattr(ssim, "lowered", lambda on=on: on)

        def loss(*z):
            return (ssim_map(*z, **OPTIONS) ** 2).sum()

        gradients = jax.jit(jax.grad(loss, (0, 1)))(x, y)
        results.append((map_of(x, y), *gradients))
    for blocks, whole in zip(*results, strict=True):
        # The same sums in another order: float32's rounding, 2e-7 as measured.
        np.testing.assert_allclose(blocks, whole, atol=2e-6 * np.abs(whole).max())


def memory(height, function):
    image = jax.ShapeDtypeStruct((1, height, 512, 1), jnp.float32)
    return jax.jit(function).lower(image, image).compile().memory_analysis().temp_size_in_bytes


def test_a_large_image_takes_little_memory_beside_itself():
    def loss(x, y):
        return ssim_map(x, y, **OPTIONS).mean()

    image = (8192 - 1024) * 512 * 4  # by how many bytes a map or an image grows
    forward, gradient = (memory(8192, f) - memory(1024, f) for f in (loss, jax.grad(loss, 1)))
    # The map itself; with it its cotangent, and the gradient of x, which nobody asked for.
    assert forward <= 1.1 * image
    assert gradient <= 3.1 * image


@pytest.mark.parametrize("border", ["reflect", "valid"])
def test_batches_stay_on_their_devices(border):
    assert len(jax.devices()) == 8
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    x, y = pairs((80, 30, 3), images=16)

    def loss(x, y):
        maps = ssim_map(x, y, **{**OPTIONS, "border": border})
        return maps.mean(), maps

    step = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (mean, maps), gradients = step(x, y)
    split = [jax.device_put(z, sharding) for z in (x, y)]
    program = step.lower(*split).compile()
    moved = re.findall(r"all-gather|all-to-all|collective-permute", program.as_text())
    assert not moved
    (split_mean, split_maps), split_gradients = program(*split)
    assert split_maps.sharding.is_equivalent_to(sharding, 4)
    for a, b in zip(
        (mean, maps, *gradients), (split_mean, split_maps, *split_gradients), strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6 * np.abs(a).max())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window": 8}, "must be odd"),
        ({"window": 0}, "must be odd"),
        ({"window": 21}, "larger than the images of 20x25"),
        ({"window": 21, "border": "reflect"}, "larger than the images of 20x25"),
        ({"data_range": 0.0}, "must be above 0"),
        ({"data_range": float("nan")}, "must be above 0"),
        ({"kind": "box"}, '"gaussian" or "uniform"'),
        ({"border": "same"}, '"reflect" or "valid"'),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, words):
    x, y = pairs((20, 25, 1))
    with pytest.raises(ValueError, match=words):
        map_of(x, y, **changes)


def test_images_of_different_sizes_are_refused():
    x, y = pairs((20, 25, 1))
    with pytest.raises(ValueError, match="one size"):
        ssim._check(x.shape, y[:, :19].shape, **OPTIONS)
