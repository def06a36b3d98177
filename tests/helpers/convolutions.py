"""The layers of autoencoders in NumPy, for one image in float64, and parameters for them."""

import functools

import jax
import numpy as np


def drawn(shapes, spread=None):
    """Draw random arrays of these shapes.

    Biases are random too, because their initial zeros would not show whether the network uses them.
    """
    random = np.random.default_rng(0)

    def draw(shape):
        by_size = np.sqrt(1.9 / np.prod(shape.shape[:-1])) if len(shape.shape) > 1 else 0.1
        own = by_size if spread is None else spread
        return random.normal(0, own, shape.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


def drawn_params(model, *given, spread=None, **more):
    """Draw random parameters for a model."""
    init = functools.partial(model.init, **more)
    return drawn(jax.eval_shape(init, jax.random.key(0), *given)["params"], spread)


def parameter_count(model, *shapes):
    """Count the parameters for arguments of those shapes, without creating any."""
    given = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    leaves = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0), *given))
    return sum(leaf.size for leaf in leaves)


def exact(layer):
    return (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))


def leaky(x, slope):
    return np.where(x > 0, x, slope * x)


def dense(x, layer):
    kernel, bias = exact(layer)
    return x @ kernel + bias


def convolve(x, layer, stride=1):
    """Convolve with TensorFlow's SAME padding, which puts an odd pixel at the end."""
    kernel, bias = exact(layer)
    side = len(kernel)
    missing = [max((-(-n // stride) - 1) * stride + side - n, 0) for n in x.shape[:2]]
    x = np.pad(x, [*((n // 2, n - n // 2) for n in missing), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (0, 1))
    return np.einsum("ijcuv,uvco->ijo", windows[::stride, ::stride], kernel) + bias


def transpose_convolve(x, layer):
    """Convolve transposed with stride 2: each pixel adds its kernel, and the rim is cut off."""
    kernel, bias = exact(layer)
    side, (h, w, _) = len(kernel), x.shape
    wide = np.zeros((2 * h + side - 2, 2 * w + side - 2, kernel.shape[3]))
    for i in range(side):
        for j in range(side):
            # Flax stores the kernel unflipped, as the correlation over the dilated input.
            spread = x @ kernel[side - 1 - i, side - 1 - j]
            wide[i : i + 2 * h : 2, j : j + 2 * w : 2] += spread
    before = (side - 2) // 2
    return wide[before:, before:][: 2 * h, : 2 * w] + bias
