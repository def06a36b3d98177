"""Convolutions written so that XLA's CPU backend is fast at them.

Arrays are float32 NHWC, kernels HWIO, padding as "SAME" in `jax.lax`. XLA on a CPU runs a
convolution with dilated input, which is what a transposed convolution and its gradients are, about
ten times slower than a plain one. On accelerators the library's own kernels are used.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv_transpose_twice(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"]
) -> Float[Array, "b h2 w2 o"]:
    """`lax.conv_transpose` with a 3x3 kernel and stride 2: doubles height and width."""
    if jax.default_backend() != "cpu":
        return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)
    return _by_phases(x, kernel)


def _by_phases(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"]
) -> Float[Array, "b h2 w2 o"]:
    # Output row 2i is kernel[0] · x[i−1] + kernel[2] · x[i], row 2i+1 is kernel[1] · x[i], and so
    # for columns. So each of the four phases (row and column even or odd) is a 2x2 convolution; one
    # convolution computes all four as channels, which are then interleaved.
    b, h, w, _ = x.shape
    c, o = kernel.shape[2:]
    zero = jnp.zeros((c, o), kernel.dtype)
    source = {(0, 0): 0, (0, 1): 2, (1, 1): 1}  # (phase, tap) -> kernel index

    def tap(p: int, q: int, u: int, v: int) -> Float[Array, "c o"]:
        if (p, u) in source and (q, v) in source:
            return kernel[source[p, u], source[q, v]]
        return zero

    taps = [
        [jnp.stack([tap(p, q, u, v) for p in (0, 1) for q in (0, 1)], axis=1) for v in (0, 1)]
        for u in (0, 1)
    ]
    phases = jnp.stack([jnp.stack(row) for row in taps]).reshape(2, 2, c, 4 * o)
    padded = jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)))
    y = lax.conv_general_dilated(padded, phases, (1, 1), "VALID", dimension_numbers=DIMENSIONS)
    y = y.reshape(b, h, w, 2, 2, o).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 2 * h, 2 * w, o)
