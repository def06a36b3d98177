"""3x3 and 4x4 convolutions in forms whose values and gradients XLA's CPU backend computes fast.

Arrays are float32 NHWC, kernels HWIO, padding "SAME" as in `jax.lax`. Every convolution begins with
a leaky ReLU (`slope`; None for none) and ends with a bias.

On a CPU, XLA multiplies matrices well. It is slow at convolutions with dilated input, at gradients
with respect to kernels, and at filling fresh memory, which the system hands out page by page.
Programs for a CPU, and only they, are therefore written as follows:

- A kernel's gradient is one product of two-dimensional matrices, pixels times 3x3 windows.
- A transposed convolution of stride 2, also as the gradient of a convolution of stride 2, is one
  2x2 convolution that computes the four phases of the output as channels.
- A 4x4 convolution of stride 2, transposed or not, is a 2x2 one with 2x2 blocks as channels.
- For few input or output channels, nine shifted copies of these replace the windows.
- A convolution of an image enlarged by repeating its pixels is a convolution of the small image.
- Under differentiation, a few images at a time pass through all operations, so that intermediate
  results stay in the cache. (Inference has no such loop.)

Other runtimes than XLA compute a single output channel by input channels (`_to_one`).

The results are the same. Accelerators use their libraries' kernels, for which a transposed
convolution is written as the gradient that it is. benchmarks/frameworks measures the whole step.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from recon_ad.ops.platforms import by_platform

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Bytes processed at a time: few enough for the cache, and enough for several cores.
CHUNK = 10 * 2**20
FEW = 3  # largest number of channels that counts as few

Images = Float[Array, "b h w c"]
Outputs = Float[Array, "b h2 w2 o"]
Kernel = Float[Array, "s s c o"]  # s is 3, or 4 with stride 2
Bias = Float[Array, " o"]


def conv(
    x: Images, kernel: Kernel, bias: Bias, *, stride: int = 1, slope: float | None = None
) -> Outputs:
    """Apply a leaky ReLU, then a convolution of any stride."""
    halves = stride == 2 and x.shape[1] % 2 == x.shape[2] % 2 == 0
    plain = _activated(functools.partial(_plain, stride=stride), slope)
    if halves:
        rewritten = _halving if kernel.shape[0] == 3 else _halving_blocks
    elif stride != 1 or kernel.shape[0] != 3:
        return plain(x, kernel, bias)
    elif x.shape[3] <= FEW:
        rewritten = _from_few
    else:
        rewritten = _to_few if kernel.shape[3] <= FEW else _same
    portable = _activated(_to_one, slope) if kernel.shape[3] == stride == 1 else None
    return by_platform(
        x, kernel, bias,
        cpu=functools.partial(rewritten, slope), accelerator=plain, portable=portable,
    )  # fmt: skip


def conv_transpose_twice(
    x: Images, kernel: Kernel, bias: Bias, *, slope: float | None = None
) -> Outputs:
    """Apply a leaky ReLU, then `lax.conv_transpose` of stride 2, which doubles height and width."""
    rewritten = _doubling if kernel.shape[0] == 3 else _doubling_blocks
    return by_platform(
        x, kernel, bias,
        cpu=functools.partial(rewritten, slope),
        accelerator=_activated(_spread, slope),
        portable=_activated(_transposed, slope),
    )  # fmt: skip


def conv_enlarged(
    x: Images, kernel: Kernel, bias: Bias, *, times: int, slope: float | None = None
) -> Outputs:
    """Apply a leaky ReLU, repeat every pixel `times` x `times`, then convolve."""

    def repeated(x: Images, kernel: Kernel) -> Outputs:
        return _plain(jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2), kernel)

    if times < 3:
        return _activated(repeated, slope)(x, kernel, bias)
    return by_platform(
        x, kernel, bias,
        cpu=functools.partial(_enlarged, slope, times), accelerator=_activated(repeated, slope),
    )  # fmt: skip


def _enlarged(slope: float | None, times: int, x: Images, kernel: Kernel, bias: Bias) -> Outputs:
    # Each input row becomes several output rows. The first depends on this row and the one above,
    # the last on this row and the one below, and those between, all equal, on this row alone. So
    # three rows and three columns are computed: nine convolutions of the input, with sums of taps.
    b, h, w, c = x.shape
    o = kernel.shape[3]
    taps = np.zeros((3, 3, 3), kernel.dtype)  # row computed, input row (above, this, below), tap
    taps[[0, 0, 0], [0, 1, 1], [0, 1, 2]] = 1
    taps[1, 1] = 1
    taps[[2, 2, 2], [1, 1, 2], [0, 1, 2]] = 1
    sums = jnp.einsum("pak,qbl,klco->abcpqo", taps, taps, kernel).reshape(3, 3, c, 9 * o)
    y = _same(slope, x, sums, jnp.tile(bias, 9))
    y = y.reshape(b, h, w, 3, 3, o).swapaxes(2, 3)
    for axis in (2, 4):
        first, between, last = jnp.split(y, 3, axis)
        y = jnp.concatenate([first, *[between] * (times - 2), last], axis)
    return y.reshape(b, h * times, w * times, o)


def _leaky(x: Images, slope: float | None) -> Images:
    return x if slope is None else jax.nn.leaky_relu(x, slope)


def _plus(y: Outputs, bias: Bias) -> Outputs:
    return y + bias.reshape(1, 1, 1, -1)


def _activated(
    forward: Callable[[Images, Kernel], Outputs], slope: float | None
) -> Callable[[Images, Kernel, Bias], Outputs]:
    """Return leaky ReLU, `forward` and bias as one function."""
    return lambda x, kernel, bias: _plus(forward(_leaky(x, slope), kernel), bias)


def _plain(x: Images, kernel: Float[Array, "k l c o"], *, stride: int = 1) -> Outputs:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=DIMENSIONS
    )


def _transposed(x: Images, kernel: Kernel) -> Outputs:
    return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)


def _to_one(x: Images, kernel: Kernel) -> Outputs:
    """Convolve each channel by itself and add them up.

    ONNX Runtime and OpenVINO compute one output channel as slowly as 8 or 16, and this in less than
    half of the time.
    """
    apart = kernel.transpose(0, 1, 3, 2)
    y = lax.conv_general_dilated(
        x, apart, (1, 1), "SAME", dimension_numbers=DIMENSIONS, feature_group_count=x.shape[3]
    )
    return y.sum(3, keepdims=True)


@jax.custom_vjp
def _spread(x: Images, kernel: Kernel) -> Outputs:
    """Compute the transposed convolution as the gradient of a convolution of stride 2.

    Its own gradients are that convolution and its kernel's gradient, and libraries have all three.
    The kernel's gradient of `lax.conv_transpose` becomes a convolution with a window as large as
    the image in XLA for GPUs (xla#34273).
    """
    b, h, w, _ = x.shape
    image = jax.ShapeDtypeStruct((b, 2 * h, 2 * w, kernel.shape[3]), x.dtype)
    (y,) = jax.linear_transpose(lambda y: _plain(y, _flip(kernel), stride=2), image)(x)
    return y


def _spread_gradients(saved: tuple[Images, Kernel], grad: Outputs) -> tuple[Images, Kernel]:
    x, flipped = saved[0], _flip(saved[1])
    (to_flipped,) = jax.linear_transpose(lambda k: _plain(grad, k, stride=2), flipped)(x)
    return _plain(grad, flipped, stride=2), _flip(to_flipped)


_spread.defvjp(lambda x, kernel: (_spread(x, kernel), (x, kernel)), _spread_gradients)


def _twice(x: Images, kernel: Kernel) -> Outputs:
    # Output row 2i is kernel[0] · x[i−1] + kernel[2] · x[i], row 2i+1 is kernel[1] · x[i], and the
    # same holds for columns. Each of the four phases (row and column even or odd) is a 2x2
    # convolution; one convolution computes all four as channels, which are then interleaved.
    b, h, w, c = x.shape
    o = kernel.shape[3]
    taps = np.zeros((2, 2, 3), kernel.dtype)  # phase, input row (above, this), tap
    taps[[0, 0, 1], [0, 1, 1], [0, 2, 1]] = 1
    phases = jnp.einsum("pak,qbl,klco->abcpqo", taps, taps, kernel).reshape(2, 2, c, 4 * o)
    y = lax.conv_general_dilated(x, phases, (1, 1), ((1, 0), (1, 0)), dimension_numbers=DIMENSIONS)
    return y.reshape(b, h, w, 2, 2 * o).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, o)


def _flip(kernel: Float[Array, "k l c o"]) -> Float[Array, "k l o c"]:
    """Return the kernel of the transposed convolution; applied twice, it returns the original."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _dot(a: Float[Array, "..."], b: Float[Array, "..."], i: int, j: int) -> Float[Array, "m n"]:
    """Multiply matrices, summing over axis i of a and axis j of b.

    XLA is several times slower with more than two axes.
    """
    return lax.dot_general(a, b, (((i,), (j,)), ((), ())))


def _windows(x: Images, *, stride: int = 1) -> Float[Array, "n k"]:
    """Return the 3x3 window of each output pixel as a row of a matrix."""
    b, h, w, c = x.shape
    before = 2 - stride  # "SAME"
    x = jnp.pad(x, ((0, 0), (before, 1), (before, stride), (0, 0)))
    if stride == 2:
        # Copies two neighbours at once.
        pairs = x.reshape(b, h + 1, w // 2 + 1, 2 * c)
        rows = jnp.concatenate([pairs[:, :, :-1], pairs[:, :, 1:, :c]], axis=3)
    else:
        rows = jnp.concatenate([x[:, :, j : j + w] for j in range(3)], axis=3)
    return jnp.stack([rows[:, i : i + h : stride] for i in range(3)], axis=3).reshape(-1, 9 * c)


def _kernel_gradient(windows: Float[Array, "n k"], grad: Outputs) -> Kernel:
    o = grad.shape[3]
    taps = _dot(grad.reshape(-1, o), windows, 0, 0)
    return taps.reshape(o, 3, 3, -1).transpose(1, 2, 3, 0)


def _shifts(x: Images) -> Float[Array, "k n"]:
    """Return the image shifted by each tap, as rows of a matrix."""
    _, h, w, c = x.shape
    x = jnp.pad(x.transpose(3, 0, 1, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = [x[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return jnp.stack(taps).reshape(9 * c, -1)


def _sum_from_few(x: Images, kernel: Kernel) -> Outputs:
    _, h, w, few = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        x[:, i : i + h, j : j + w, c : c + 1] * kernel[i, j, c].reshape(1, 1, 1, -1)
        for i in range(3)
        for j in range(3)
        for c in range(few)
    )


def _sum_to_few(x: Images, kernel: Kernel) -> Outputs:
    b, h, w, c = x.shape
    o = kernel.shape[3]
    parts = _dot(kernel.swapaxes(2, 3).reshape(9 * o, c), x.reshape(-1, c), 1, 1)
    parts = parts.reshape(3, 3, o, b, h, w)
    zero = jnp.zeros((), x.dtype)
    y = sum(
        lax.pad(parts[i, j], zero, ((0, 0, 0), (0, 0, 0), (1 - i, i - 1, 0), (1 - j, j - 1, 0)))
        for i in range(3)
        for j in range(3)
    )
    return y.transpose(1, 2, 3, 0)


def _in_chunks(
    function: Callable[..., tuple[Array, ...]], batches: tuple[Array, ...], *, size: int, sums: int
) -> tuple[Array, ...]:
    """Compute `function(*batches)` for a few images at a time.

    Args:
      function: Function whose first results are batches and whose last `sums` results are summed
        over the images.
      batches: Arguments of the function.
      size: Working size of the function, in numbers per image.
      sums: Number of summed results.
    """
    b = batches[0].shape[0]
    limit = CHUNK // (size * batches[0].dtype.itemsize)
    n = max([d for d in range(1, b + 1) if b % d == 0 and d <= limit], default=1)
    if n == b:
        return function(*batches)
    # A chunk takes every (b / n)-th image, so that devices which share the batch share each chunk.
    groups = [batch.reshape(n, b // n, *batch.shape[1:]) for batch in batches]

    def chunk(i):
        return function(*(lax.dynamic_index_in_dim(g, i, 1, keepdims=False) for g in groups))

    shapes = jax.eval_shape(chunk, 0)
    # The initial values are overwritten. Zeros would be shared between loops and copied for each.
    any_value = batches[0].reshape(-1)[0]
    state = [jnp.broadcast_to(any_value, (n, b // n, *s.shape[1:])) for s in shapes]
    batched = len(shapes) - sums
    state[batched:] = [jnp.zeros(s.shape, s.dtype) for s in shapes[batched:]]

    def body(i, state):
        return [
            lax.dynamic_update_index_in_dim(s, v, i, 1) if k < batched else s + v
            for k, (s, v) in enumerate(zip(state, chunk(i), strict=True))
        ]

    state = lax.fori_loop(0, b // n, body, state)
    return tuple(s.reshape(b, *s.shape[2:]) if k < batched else s for k, s in enumerate(state))


def _rewritten(
    forward: Callable[[Images, Kernel], Outputs],
    gradients: Callable[[Images, Kernel, Outputs], tuple[Images, Kernel]],
    *,
    chunks: bool = True,
) -> Callable[[float | None, Images, Kernel, Bias], Outputs]:
    """Return leaky ReLU, `forward` and bias as one function, with `forward`'s gradients given."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def op(slope, x, kernel, bias):
        return _activated(forward, slope)(x, kernel, bias)

    def size(x, y):
        sizes = x.size // len(x), y.size // len(y)
        return max(sizes) + 9 * min(sizes)

    def op_fwd(slope, x, kernel, bias):
        if not chunks:
            return op(slope, x, kernel, bias), (x, kernel)
        y = jax.eval_shape(forward, x, kernel)
        (y,) = _in_chunks(lambda x: (op(slope, x, kernel, bias),), (x,), size=size(x, y), sums=0)
        return y, (x, kernel)

    def op_bwd(slope, saved, grad):
        x, kernel = saved

        def chunk(x, grad):
            to_x, to_kernel = gradients(_leaky(x, slope), kernel, grad)
            if slope is not None:
                to_x = jnp.where(x >= 0, to_x, slope * to_x)
            return to_x, to_kernel, grad.sum((0, 1, 2))

        return _in_chunks(chunk, (x, grad), size=size(x, grad), sums=2)

    op.defvjp(op_fwd, op_bwd)
    return op


_same = _rewritten(
    _plain, lambda x, k, grad: (_plain(grad, _flip(k)), _kernel_gradient(_windows(x), grad))
)
_halving = _rewritten(
    functools.partial(_plain, stride=2),
    lambda x, k, grad: (_twice(grad, _flip(k)), _kernel_gradient(_windows(x, stride=2), grad)),
)


def _doubling_gradients(x, kernel, grad):
    windows = _windows(grad, stride=2)
    to_x = _dot(windows, _flip(kernel).reshape(windows.shape[1], -1), 1, 0)
    return to_x.reshape(x.shape), _flip(_kernel_gradient(windows, x))


_doubling = _rewritten(_twice, _doubling_gradients)


# 4x4, stride 2: output (i, j) depends on the four 2x2 blocks around it. With blocks as channels,
# the kernel is 2x2 and nothing is computed twice.
def _blocks(x: Images) -> Float[Array, "b h3 w3 c4"]:
    """Return the 2x2 blocks of the images after padding them by one pixel on each side."""
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x.reshape(b, h // 2 + 1, 2, w // 2 + 1, 2 * c).swapaxes(2, 3)
    return x.reshape(b, h // 2 + 1, w // 2 + 1, 4 * c)


def _from_blocks(blocks: Float[Array, "b h3 w3 c4"]) -> Images:
    """Assemble the images from their blocks and drop the border."""
    b, h, w, c = blocks.shape
    x = blocks.reshape(b, h, w, 2, c // 2).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, c // 4)
    return x[:, 1:-1, 1:-1]


def _block_kernel(kernel: Kernel) -> Float[Array, "2 2 c4 o"]:
    _, _, c, o = kernel.shape
    return kernel.reshape(2, 2, 2, 2, c, o).swapaxes(1, 2).reshape(2, 2, 4 * c, o)


def _halve_blocks(x: Images, kernel: Kernel) -> Outputs:
    return lax.conv_general_dilated(
        _blocks(x), _block_kernel(kernel), (1, 1), "VALID", dimension_numbers=DIMENSIONS
    )


def _double_blocks(x: Images, kernel: Kernel) -> Outputs:
    back = _flip(_block_kernel(_flip(kernel)))
    return _from_blocks(
        lax.conv_general_dilated(x, back, (1, 1), ((1, 1),) * 2, dimension_numbers=DIMENSIONS)
    )


def _block_kernel_gradient(x: Images, grad: Outputs) -> Kernel:
    blocks = _blocks(x)
    _, h, w, o = grad.shape
    around = [blocks[:, i : i + h, j : j + w] for i in range(2) for j in range(2)]
    windows = jnp.concatenate(around, axis=3).reshape(-1, 16 * x.shape[3])
    taps = _dot(grad.reshape(-1, o), windows, 0, 0).reshape(o, 2, 2, 2, 2, -1)
    return taps.transpose(1, 3, 2, 4, 5, 0).reshape(4, 4, -1, o)


_halving_blocks = _rewritten(
    _halve_blocks,
    lambda x, k, grad: (_double_blocks(grad, _flip(k)), _block_kernel_gradient(x, grad)),
)
_doubling_blocks = _rewritten(
    _double_blocks,
    lambda x, k, grad: (_halve_blocks(grad, _flip(k)), _flip(_block_kernel_gradient(grad, x))),
)


def _few_kernel_gradient(few, many):
    taps = _dot(_shifts(few), many.reshape(-1, many.shape[3]), 1, 0)
    return taps.reshape(3, 3, few.shape[3], many.shape[3])


_from_few = _rewritten(
    _sum_from_few,
    lambda x, k, grad: (_sum_to_few(grad, _flip(k)), _few_kernel_gradient(x, grad)),
    chunks=False,  # a single pass without intermediate results
)
_to_few = _rewritten(
    _sum_to_few,
    lambda x, k, grad: (_sum_from_few(grad, _flip(k)), _flip(_few_kernel_gradient(grad, x))),
)
