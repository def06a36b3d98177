"""Speed of the transposed convolution of stride 2 with its gradients, as used on accelerators.

The value and the gradients with respect to images and kernel are compared with those of
`lax.conv_transpose`, which XLA compiles for GPUs to a convolution with a window as large as the
image (xla#34273). The sizes are those in the middle of a decoder: 32×32 pixels with 64 channels
become 64×64 with 32. Everything is in float32.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from benchmarks.frameworks.training import of_function
from benchmarks.harness import devices as settings
from benchmarks.harness.book import OURS, Book
from benchmarks.harness.subjects import Scale
from benchmarks.harness.turns import in_turns
from recon_ad.ops.conv import DIMENSIONS, conv_transpose_twice

CLOSE = 1e-4  # tolerance, as a fraction of the largest value
PLAIN = "lax.conv_transpose"
CHANNELS = (64, 32)  # input and output


def plain(x: Float[Array, "b h w c"], kernel: Array, bias: Array) -> Float[Array, "b h2 w2 o"]:
    """Compute the operation with JAX's own function."""
    y = lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)
    return y + bias


def with_gradients(function: Callable[..., Array], weights: Array) -> Callable[..., object]:
    """Return a program for the weighted sum of a function's output and its gradients."""

    def total(x: Array, kernel: Array, bias: Array) -> Array:
        return jnp.sum(weights * function(x, kernel, bias))

    return jax.jit(jax.value_and_grad(total, (0, 1)))


def measure(book: Book, scale: Scale) -> None:
    """Measure kernels of 3×3 and 4×4."""
    settings.set_precision("float32")
    rng = np.random.default_rng(0)
    side, (channels, outputs) = scale.side // 4, CHANNELS
    for width in (3, 4):
        what = f"transposed convolution, {width}×{width}, with gradients"
        if not book.in_time(what):
            continue
        with book.attempt(what):
            x, weights, kernel = (
                jnp.asarray(rng.standard_normal(shape, np.float32))
                for shape in (
                    (scale.patches, side, side, channels),
                    (scale.patches, 2 * side, 2 * side, outputs),
                    (width, width, channels, outputs),
                )
            )
            programs = {
                name: functools.partial(
                    with_gradients(function, weights), x, kernel, jnp.zeros(outputs)
                )
                for name, function in ((OURS, conv_transpose_twice), (PLAIN, plain))
            }
            ours, theirs = (jax.tree.leaves(program()) for program in programs.values())
            apart = max(
                float(jnp.abs(a - b).max() / jnp.abs(b).max())
                for a, b in zip(ours, theirs, strict=True)
            )
            assert apart < CLOSE, apart
            runners = {name: of_function(program) for name, program in programs.items()}
            timings = in_turns(runners, seconds=scale.seconds, burst=scale.burst)
            book.add(
                what, timings, precision="float32", per_step=None, apart={PLAIN: apart},
                shape="x".join(map(str, x.shape)),
            )  # fmt: skip
