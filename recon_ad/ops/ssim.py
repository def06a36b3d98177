"""The structural similarity map (SSIM) of two batches of images, and its gradient.

Images are floating point [b, h, w, c]. Each channel is compared by itself; maps are not reduced.
S (Wang et al. 2004, eq. 13) is computed from the sum u = x + y and the difference
v = x − y, which need four filtered maps instead of five:

    S = (1 − μv² / (μx² + μy² + C1)) · (1 − σv² / (σx² + σy² + C2)),
    μx² + μy² = (μu² + μv²) / 2,  σx² + σy² = (σu² + σv²) / 2.

S is therefore exactly 1 where the images are equal, and rounding grows only with their difference.

E[x²] − E[x]² cancels: with 8 bits of mantissa nothing is left of it, with 24 bits the error is 1e-4
on bright surfaces. Here variances are sums of squared differences from the window's middle pixel,
first along columns and then along rows (law of total variance), so that no offset of the images
matters. All arithmetic is at least float32, and in XLA there is no matrix product whose precision a
backend could choose.

The window is applied as weighted sums of shifted images, which compilers turn into fast loops. A
CPU processes some rows at a time, so that intermediate results stay in the cache and a large image
needs little more memory than itself and its map. The gradient is written out and recomputes the
maps instead of keeping them. benchmarks/frameworks measures it.

Other runtimes (`platforms.for_other_runtimes`) do not fuse shifts into loops. For them the
statistics are those of `ops.windows`, whose products are slower than shifts in XLA on a CPU.
benchmarks/residuals.py measures both in those runtimes.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, PyTree

from recon_ad.ops.platforms import by_platform
from recon_ad.ops.windows import window_moments

ROWS = 64  # number of the map's rows that a CPU computes at a time
SIGMA = 1.5  # standard deviation of the Gaussian window in pixels (Wang et al. 2004)
K1, K2 = 0.01, 0.03  # Wang et al. 2004

# Images and maps with width and channels in one axis, where neighbours are `channels` apart.
Flat = Float[Array, "b h wc"]
FlatMap = Float[Array, "b h2 wc2"]
# Sum and difference of two images, stacked: the images, and statistics of columns and of windows.
Pair = Float[Array, "2 b h wc"]
PairColumns = Float[Array, "2 b h2 wc"]
PairMap = Float[Array, "2 b h2 wc2"]


class _Options(NamedTuple):
    """Settings known before tracing; `blocks` selects processing some rows at a time."""

    weights: tuple[float, ...]
    c1: float
    c2: float
    channels: int
    blocks: bool


def ssim_map(
    x: Float[Array, "b h w c"],
    y: Float[Array, "b h w c"],
    *,
    data_range: float,
    window: int,
    kind: str,
    border: str,
) -> Float[Array, "b h2 w2 c"]:
    """Compute S in [−1, 1] at each pixel and channel (Wang et al. 2004, eq. 13).

    S is 1 where the images agree. Variances are divided by the sum of the weights (not by one
    less), as with scikit-image's `gaussian_weights=True, use_sample_covariance=False`.

    Args:
      x: Images.
      y: Images of the same number and size. x and y may be exchanged.
      data_range: L, the difference between the largest and smallest possible value.
      window: Side of the square window in pixels, odd.
      kind: "gaussian" (standard deviation 1.5 px, cut off at the window) or "uniform".
      border: "reflect" continues images by their mirror image, edge pixels included (SciPy's
        "reflect"), and the map has their size. "valid" uses only windows inside the images, and the
        map is smaller by window − 1.

    Returns:
      The map, as float32, or float64 if the images are.

    Raises:
      ValueError: If the arguments do not fit together.
    """
    _check(x.shape, y.shape, data_range=data_range, window=window, kind=kind, border=border)
    dtype = jnp.promote_types(jnp.promote_types(x.dtype, y.dtype), jnp.float32)
    x, y = x.astype(dtype), y.astype(dtype)
    weights = tuple(window_weights(window, kind=kind).tolist())
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    whole, in_blocks = (_Options(weights, c1, c2, x.shape[3], blocks) for blocks in (False, True))
    return by_platform(
        x,
        y,
        cpu=functools.partial(_by_shifts, in_blocks, border=border),
        accelerator=functools.partial(_by_shifts, whole, border=border),
        portable=functools.partial(_by_products, whole, border=border),
    )


def window_weights(window: int, *, kind: str) -> Float[np.ndarray, " n"]:
    """Return the symmetric weights along one side of the separable window, which add up to 1."""
    offsets = np.arange(window) - window // 2
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2) if kind == "gaussian" else np.ones(window)
    return weights / weights.sum()


def _check(
    x: tuple[Any, ...],  # during export, the number of images may be a symbol
    y: tuple[Any, ...],
    *,
    data_range: float,
    window: int,
    kind: str,
    border: str,
) -> None:
    if x != y:
        raise ValueError(f"SSIM needs images of equal shape, but these are {x} and {y}.")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"The SSIM window is {window} px, but must be odd to have a middle pixel.")
    if window > min(x[1:3]):
        raise ValueError(
            f"The SSIM window of {window} px is larger than the images of {x[1]}x{x[2]} px: "
            "choose a smaller window or larger images."
        )
    if not data_range > 0:
        raise ValueError(f"The data range of SSIM is {data_range}, but must be above 0.")
    if kind not in ("gaussian", "uniform"):
        raise ValueError(f'The SSIM window is "{kind}", but must be "gaussian" or "uniform".')
    if border not in ("reflect", "valid"):
        raise ValueError(f'The border of SSIM is "{border}", but must be "reflect" or "valid".')


def _by_shifts(
    options: _Options, x: Float[Array, "b h w c"], y: Float[Array, "b h w c"], *, border: str
) -> Float[Array, "b h2 w2 c"]:
    more = len(options.weights) - 1
    if border == "reflect":
        around = ((0, 0), (more // 2, more // 2), (more // 2, more // 2), (0, 0))
        x, y = (jnp.pad(images, around, mode="symmetric") for images in (x, y))
    b, h, w, c = x.shape
    flat = _ssim(options, x.reshape(b, h, -1), y.reshape(b, h, -1))
    return flat.reshape(b, h - more, w - more, c)


def _by_products(
    options: _Options, x: Float[Array, "b h w c"], y: Float[Array, "b h w c"], *, border: str
) -> Float[Array, "b h2 w2 c"]:
    x, y = (z.transpose(0, 3, 1, 2) for z in (x, y))
    # As one axis: of two, ONNX Runtime exchanges mean and transposition, and is slow where a last
    # axis of 1 remains.
    x0, y0 = (jnp.mean(z.reshape(*z.shape[:2], -1), 2)[..., None, None] for z in (x, y))
    z, offset = _sum_and_difference(x - x0, y - y0), _sum_and_difference(x0, y0)
    mean, variance = window_moments(z, weights=options.weights, border=border)
    return _similarity(options, *(mean + offset), *variance).transpose(0, 2, 3, 1)


def _sum_and_difference(x: Float[Array, "*s"], y: Float[Array, "*s"]) -> Float[Array, " 2 *s"]:
    return jnp.stack([x + y, x - y])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ssim(options: _Options, x: Flat, y: Flat) -> FlatMap:
    more = len(options.weights) - 1
    shape = (x.shape[0], x.shape[1] - more, x.shape[2] - more * options.channels)
    rows, starts = _blocks(options, shape[1])
    if len(starts) == 1:
        return _block(options, x, y, None)

    def body(i, out):
        start = jnp.asarray(starts)[i]
        near = [lax.dynamic_slice_in_dim(z, start, rows + more, axis=1) for z in (x, y)]
        part = _block(options, *near, start >= 0)
        return lax.dynamic_update_slice_in_dim(out, part, start, axis=1)

    # The initial values are overwritten. Zeros would be shared between loops and copied for each.
    return lax.fori_loop(0, len(starts), body, jnp.broadcast_to(x[:, :1, :1], shape))


def _forward(options: _Options, x: Flat, y: Flat) -> tuple[FlatMap, tuple[Flat, Flat]]:
    return _ssim(options, x, y), (x, y)


def _backward(options: _Options, saved: tuple[Flat, Flat], grad: FlatMap) -> tuple[Flat, Flat]:
    x, y = saved
    rows, starts = _blocks(options, grad.shape[1])
    if len(starts) == 1:
        return _block_gradients(options, x, y, grad, None)
    size = rows + len(options.weights) - 1

    def body(i, totals):
        start = jnp.asarray(starts)[i]
        near = [lax.dynamic_slice_in_dim(z, start, size, axis=1) for z in (x, y)]
        # The last block overlaps the one before it; rows that are already counted are left out.
        own = lax.dynamic_slice_in_dim(grad, start, rows, axis=1)
        own = jnp.where((start + jnp.arange(rows) >= i * rows).reshape(1, -1, 1), own, 0.0)
        parts = _block_gradients(options, *near, own, start >= 0)
        sums = [
            lax.dynamic_slice_in_dim(total, start, size, axis=1) + part
            for total, part in zip(totals, parts, strict=True)
        ]
        return tuple(
            lax.dynamic_update_slice_in_dim(total, part, start, axis=1)
            for total, part in zip(totals, sums, strict=True)
        )

    return lax.fori_loop(0, len(starts), body, (jnp.zeros_like(x), jnp.zeros_like(y)))


_ssim.defvjp(_forward, _backward)


def _blocks(options: _Options, height: int) -> tuple[int, np.ndarray]:
    """Return the number of the map's rows in a block, and the first row of each block."""
    if not options.blocks or height == 1:
        return height, np.zeros(1, np.int32)
    # At least two: XLA would unroll a loop of one and simplify `_stored` away.
    count = max(2, -(-height // ROWS))
    rows = -(-height // count)
    return rows, np.minimum(np.arange(count, dtype=np.int32) * rows, height - rows)


def _stored(
    function: Callable[..., PyTree[Array]], *args: Array, always: Bool[Array, ""] | None
) -> PyTree[Array]:
    """Compute `function(*args)` and store the result in memory before anything reads it.

    Otherwise a compiler may recompute a shifted value for each shift, which is 20 times as slow.
    XLA on a CPU ignores optimization barriers, but it cannot remove a condition whose value it does
    not know.

    Args:
      function: Function to compute.
      args: Arguments of the function.
      always: A condition that is always true, which the compiler cannot know. None selects an
        optimization barrier.
    """
    if always is None:
        return lax.optimization_barrier(function(*args))
    shapes = jax.eval_shape(function, *args)

    def never(*_):
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    return lax.cond(always, function, never, *args)


def _block(options: _Options, x: Flat, y: Flat, always: Bool[Array, ""] | None) -> FlatMap:
    z, offset = _pair(options, x, y, always)
    columns = _stored(functools.partial(_along_columns, options), z, always=always)

    def compare(mean, variance, offset):
        mean, variance = _along_rows(options, mean, variance)
        return _similarity(options, *(mean + offset), *variance)

    return _stored(compare, *columns, offset, always=always)


def _pair(
    options: _Options, x: Flat, y: Flat, always: Bool[Array, ""] | None
) -> tuple[Pair, Float[Array, "2 b 1 wc2"]]:
    """Return the sum and difference of the images less their offsets, and those of the offsets.

    Without subtracting the offsets, x + y would be rounded to their magnitude.
    """
    b, h, wc = x.shape
    c = options.channels
    # The mean of a middle row is close enough and saves a tenth of the time.
    means = [jnp.mean(z[:, h // 2].reshape(b, wc // c, c), 1) for z in (x, y)]
    x0, y0 = (jnp.tile(mean, (1, wc // c)).reshape(b, 1, wc) for mean in means)

    def pair(x, y, x0, y0):
        return _sum_and_difference(x - x0, y - y0)

    z = _stored(pair, x, y, x0, y0, always=always)
    return z, _sum_and_difference(x0, y0)[..., : wc - (len(options.weights) - 1) * c]


def _block_gradients(
    options: _Options, x: Flat, y: Flat, grad: FlatMap, always: Bool[Array, ""] | None
) -> tuple[Flat, Flat]:
    """Compute the gradients of the sum of `_block` times `grad`.

    XLA drops the gradient that a caller does not use.
    """
    # With μ = Σ w z and σ² = Σ w z² − μ², they are Σ w (∂μ − 2 μ ∂σ²) + 2 z Σ w ∂σ².
    c = options.channels
    more = len(options.weights) - 1

    def to_statistics(mean, variance, offset, grad):
        """Return ∂μ − 2 μ ∂σ² for x and for y, and ∂σ² for u and for v, padded with zeros."""
        similarity = functools.partial(_similarity, options)
        _, pull = jax.vjp(similarity, *(mean + offset), *variance)
        to_u, to_v, to_u_variance, to_v_variance = pull(grad)
        to_u = to_u - 2 * mean[0] * to_u_variance
        to_v = to_v - 2 * mean[1] * to_v_variance
        around = ((0, 0), (more, more), (more * c, more * c))
        maps = (to_u + to_v, to_u - to_v, to_u_variance, to_v_variance)
        return tuple(jnp.pad(m, around) for m in maps)

    # Windows are symmetric, so the transpose of averaging over windows is averaging over windows.
    def along_rows(*maps):
        return tuple(_mean(options, m, axis=-1, step=c) for m in maps)

    def to_images(z, *maps):
        to_x, to_y, to_u2, to_v2 = (_mean(options, m, axis=-2, step=1) for m in maps)
        from_u, from_v = 2 * z[0] * to_u2, 2 * z[1] * to_v2
        return to_x + from_u + from_v, to_y + from_u - from_v

    z, offset = _pair(options, x, y, always)
    columns = _stored(functools.partial(_along_columns, options), z, always=always)
    statistics = _stored(functools.partial(_along_rows, options), *columns, always=always)
    maps = _stored(to_statistics, *statistics, offset, grad, always=always)
    maps = _stored(along_rows, *maps, always=always)
    return _stored(to_images, z, *maps, always=always)


def _along_columns(options: _Options, z: Pair) -> tuple[PairColumns, PairColumns]:
    """Compute the mean and variance of each column of the window."""
    return _moments(options, z, axis=-2, step=1)


def _along_rows(
    options: _Options, mean: PairColumns, variance: PairColumns
) -> tuple[PairMap, PairMap]:
    """Compute the mean and variance of the window from those of its columns."""
    within = _mean(options, variance, axis=-1, step=options.channels)
    mean, between = _moments(options, mean, axis=-1, step=options.channels)
    return mean, within + between


def _similarity(
    options: _Options,
    u: Float[Array, "*s"],
    v: Float[Array, "*s"],
    u_variance: Float[Array, "*s"],
    v_variance: Float[Array, "*s"],
) -> Float[Array, "*s"]:
    """Compute S from means and variances of the sum and of the difference."""
    luminance = v**2 / ((u**2 + v**2) / 2 + options.c1)
    structure = v_variance / ((u_variance + v_variance) / 2 + options.c2)
    return (1 - luminance) * (1 - structure)


def _shifted(options: _Options, z: Array, *, axis: int, step: int) -> list[Array]:
    """Return the image shifted to each position in the window."""
    count = len(options.weights)
    size = z.shape[axis] - (count - 1) * step
    return [lax.slice_in_dim(z, k * step, k * step + size, axis=axis) for k in range(count)]


def _mean(options: _Options, z: Array, *, axis: int, step: int) -> Array:
    shifted = _shifted(options, z, axis=axis, step=step)
    return sum(w * near for w, near in zip(options.weights, shifted, strict=True))


def _moments(options: _Options, z: Array, *, axis: int, step: int) -> tuple[Array, Array]:
    """Compute the mean and variance along an axis from differences to the middle pixel.

    The middle pixel's own difference is 0, so its weight w0 is not among the others. By Cauchy and
    Schwarz the variance is at least w0 times its first term, so it is never below 0 despite
    rounding.
    """
    shifted = _shifted(options, z, axis=axis, step=step)
    middle = shifted[len(shifted) // 2]
    first = second = jnp.zeros_like(middle)
    for k, (w, near) in enumerate(zip(options.weights, shifted, strict=True)):
        if k != len(shifted) // 2:
            difference = near - middle
            first += w * difference
            second += w * difference**2
    return middle + first, second - first**2
