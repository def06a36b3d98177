"""Transposed convolutions written so that XLA's CPU backend is fast at them and their gradients.

Arrays are float32 NHWC, kernels HWIO, padding "SAME" as in `jax.lax`. On a CPU XLA is slow at
convolutions with dilated input, and at gradients with respect to kernels, while it multiplies
matrices well. So here, on a CPU only:

- a transposed convolution of stride 2 is one 2x2 convolution that computes the four phases of the
  output as channels;
- its gradient with respect to the kernel is one product of two-dimensional matrices for each tap
  (with more than two dimensions XLA takes a path several times slower).

What is computed is the same; on accelerators their libraries' kernels are used. benchmarks/
cae_step.py measures the difference.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def lowered() -> bool:
    """The one switch: whether convolutions are rewritten."""
    return jax.default_backend() == "cpu"


def conv_transpose_twice(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c o"]
) -> Float[Array, "b h2 w2 o"]:
    """`lax.conv_transpose` with a 3x3 kernel and stride 2: doubles height and width."""
    if not lowered():
        return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)
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
    y = conv_valid(jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))), phases)
    y = y.reshape(b, h, w, 2, 2, o).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, 2 * h, 2 * w, o)


@jax.custom_vjp
def conv_valid(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k l c o"]
) -> Float[Array, "b h2 w2 o"]:
    """A convolution of stride 1 without padding."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=DIMENSIONS)


def _conv_valid_bwd(
    saved: tuple[Float[Array, "b h w c"], Float[Array, "k l c o"]],
    grad: Float[Array, "b h2 w2 o"],
) -> tuple[Float[Array, "b h w c"], Float[Array, "k l c o"]]:
    x, kernel = saved
    rows, columns = kernel.shape[:2]
    flipped = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    around = [(rows - 1, rows - 1), (columns - 1, columns - 1)]
    to_x = lax.conv_general_dilated(grad, flipped, (1, 1), around, dimension_numbers=DIMENSIONS)
    return to_x, kernel_gradient(x, grad, size=(rows, columns))


conv_valid.defvjp(lambda x, kernel: (conv_valid(x, kernel), (x, kernel)), _conv_valid_bwd)


def kernel_gradient(
    x: Float[Array, "b h w c"], grad: Float[Array, "b h2 w2 o"], *, size: tuple[int, int]
) -> Float[Array, "k l c o"]:
    """Gradient with respect to the kernel of `conv_valid`: for each tap, xᵀ · grad."""
    h, w, o = grad.shape[1:]
    c = x.shape[3]
    columns = grad.reshape(-1, o)
    taps = [
        lax.dot_general(
            x[:, i : i + h, j : j + w].reshape(-1, c), columns, (((0,), (0,)), ((), ()))
        )
        for i in range(size[0])
        for j in range(size[1])
    ]
    return jnp.stack(taps).reshape(*size, c, o)
