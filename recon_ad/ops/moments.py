"""Image moments of an anomaly map, and the numbers that they make of it.

Maps are float32 [h, w]; pixels that are not valid do not count. Coordinates are sums of ones, so
that a map of any height and width can be exported, and a map may be padded without changing any
number.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

FLOOR = 1e-4  # of a normalised central moment; what is smaller is rounding, and how pixels lie
DEGREES = (1, 2, 2, 2, 4, 3, 4)  # of Hu's moments in the normalised central ones
TINY = 1e-12  # divisor where there is nothing
# Of a central moment: specks far apart have larger ones, whose products float32 does not hold.
LARGEST = 1e8

Map = Float[Array, "h w"]
Valid = Bool[Array, "h w"]


def coordinates(along: Float[Array, " n"]) -> Float[Array, " n"]:
    """Of the pixels' centres: 0.5, 1.5, and so on."""
    return jnp.cumsum(jnp.ones_like(along)) - 0.5


def central_moments(weights: Map) -> Float[Array, "4 4"]:
    """η_pq = μ_pq / μ_00^(1 + (p+q)/2) at [q, p], x to the p and y to the q, p and q up to 3.

    They do not change with the shift and, but for how pixels sample it, the scale of what is shown;
    with brightness they do. A μ_00 below 1 counts as 1, so that all go to 0 where the weights do.
    """
    mass = jnp.sum(weights)
    divisor = jnp.maximum(mass, 1.0)
    powers = []
    for along in (jnp.sum(weights, axis=1), jnp.sum(weights, axis=0)):
        at = coordinates(along)
        for _ in range(2):  # once more for what the first mean was off by rounding
            at = at - jnp.sum(at * along) / jnp.maximum(mass, TINY)
        at = at / jnp.sqrt(divisor)
        powers.append(jnp.stack([jnp.ones_like(at), at, at**2, at**3]))
    y, x = powers
    products = jnp.matmul(y, weights, precision=lax.Precision.HIGHEST)
    moments = jnp.matmul(products, x.T, precision=lax.Precision.HIGHEST) / divisor
    return jnp.clip(moments, -LARGEST, LARGEST)


def hu_moments(weights: Map) -> Float[Array, "7"]:
    """The seven invariants of Hu (1962), "Visual pattern recognition by moment invariants".

    They do not change with shift, rotation and scale; the last changes its sign in a mirror.
    """
    n = central_moments(weights)
    n20, n02, n11 = n[0, 2], n[2, 0], n[1, 1]
    n30, n03, n21, n12 = n[0, 3], n[3, 0], n[1, 2], n[2, 1]
    a, b = n30 + n12, n21 + n03
    c, d = n30 - 3 * n12, 3 * n21 - n03
    e, f = a**2 - 3 * b**2, 3 * a**2 - b**2
    return jnp.stack(
        [
            n20 + n02,
            (n20 - n02) ** 2 + 4 * n11**2,
            c**2 + d**2,
            a**2 + b**2,
            c * a * e + d * b * f,
            (n20 - n02) * (a**2 - b**2) + 4 * n11 * a * b,
            d * a * e - c * b * f,
        ]
    )


def log_scaled(hu: Float[Array, "7"]) -> Float[Array, "7"]:
    """sign(h) log10 |h| above a floor, which is 0: so it does not jump where h changes its sign.

    The floor is `FLOOR` to the power of the moment's degree. For h above it that is the usual
    −sign(h) log10 |h| but for a constant and the sign.
    """
    floors = jnp.asarray([FLOOR**degree for degree in DEGREES], hu.dtype)
    # Not by sign and absolute value: OpenVINO then takes the second for both.
    above, below = (jnp.log10(jnp.maximum(h, floors)) for h in (hu, -hu))
    return above - below


def in_units(anomaly_map: Map, valid: Valid, unit: Float[Array, ""]) -> Map:
    """The map divided by a pixel threshold; 0 where it is negative or not valid."""
    return jnp.where(valid, jnp.maximum(anomaly_map, 0.0), 0.0) / unit


DESCRIPTION = (
    *(f"Hu {i + 1} of the map" for i in range(7)),
    *(f"Hu {i + 1} of what exceeds the threshold" for i in range(7)),
    "log of the greatest value",
    "log of the mean",
    "log of the standard deviation",
    "log of the area above the threshold",
    "log of the sum of what exceeds it",
    "log of its mean over that area",
    "log of its standard deviation there",
)


def describe(anomaly_map: Map, valid: Valid, unit: Float[Array, ""]) -> Float[Array, " n"]:
    """Shape, area and intensity of a map in units of a pixel threshold, as `DESCRIPTION` says.

    Logarithms are of 1 + x; areas are in px.

    Args:
      anomaly_map: smoothed, raw; negative values count as 0.
      valid: pixels that count.
      unit: the pixel threshold, above 0.
    """
    values = in_units(anomaly_map, valid, unit)
    count = jnp.maximum(jnp.sum(valid.astype(values.dtype)), 1.0)
    mean = jnp.sum(values) / count
    variance = jnp.sum(jnp.where(valid, (values - mean) ** 2, 0.0)) / count
    excess = jnp.maximum(values - 1.0, 0.0)
    above = (values > 1.0).astype(values.dtype)
    area = jnp.sum(above)
    mean_excess = jnp.sum(excess) / jnp.maximum(area, 1.0)
    excess_variance = jnp.sum(above * (excess - mean_excess) ** 2) / jnp.maximum(area, 1.0)
    statistics = [
        jnp.max(values),
        mean,
        jnp.sqrt(variance),
        area,
        jnp.sum(excess),
        mean_excess,
        jnp.sqrt(excess_variance),
    ]
    shapes = [log_scaled(hu_moments(weights)) for weights in (values, excess)]
    return jnp.concatenate([*shapes, jnp.log1p(jnp.stack(statistics))])


def picture(
    anomaly_map: Map, valid: Valid, unit: Float[Array, ""], *, side: int
) -> Float[Array, "s s"]:
    """The map as a picture in [0, 1) of a fixed size: v / (1 + v), v in units of the threshold.

    The valid pixels' bounding box fills it; interpolation is bilinear and antialiased.

    Args:
      anomaly_map: smoothed, raw.
      valid: pixels that count.
      unit: the pixel threshold, which becomes 0.5.
      side: of the picture, in px.
    """
    values = in_units(anomaly_map, valid, unit)
    counted = valid.astype(values.dtype)
    rows, columns = (_resampling(jnp.max(counted, axis=axis), side) for axis in (1, 0))
    products = jnp.matmul(rows, values / (1.0 + values), precision=lax.Precision.HIGHEST)
    return jnp.matmul(products, columns.T, precision=lax.Precision.HIGHEST)


def _resampling(counted: Float[Array, " n"], side: int) -> Float[Array, "s n"]:
    """As `ops.resampling` has it, traced, as the length may be unknown; from first to last 1."""
    at = coordinates(counted)
    first = jnp.min(jnp.where(counted > 0, at, jnp.inf)) - 0.5
    last = jnp.max(jnp.where(counted > 0, at, 0.0)) + 0.5
    scale = (last - first) / side
    centres = first + (jnp.arange(side, dtype=counted.dtype) + 0.5) * scale
    distances = jnp.abs(at[None, :] - centres[:, None]) / jnp.maximum(scale, 1.0)
    inside = ((at > first) & (at < last)).astype(counted.dtype)
    weights = jnp.maximum(1.0 - distances, 0.0) * inside[None, :]
    return weights / jnp.sum(weights, axis=1, keepdims=True)
