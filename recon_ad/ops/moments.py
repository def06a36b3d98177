"""Image moments of an anomaly map, and the numbers derived from them.

Maps are float32 [h, w]; invalid pixels do not count. Coordinates are computed as sums of ones, so
that a map of any height and width can be exported and padding changes no number.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

FLOOR = 1e-4  # smaller normalised central moments are rounding and pixel sampling
DEGREES = (1, 2, 2, 2, 4, 3, 4)  # degrees of Hu's moments in the normalised central moments
TINY = 1e-12  # smallest divisor, for an empty map
# Limit of a central moment. Distant specks have larger ones, whose products overflow float32.
LARGEST = 1e8

Map = Float[Array, "h w"]
Valid = Bool[Array, "h w"]


def coordinates(along: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return the coordinates of the pixels' centres: 0.5, 1.5, and so on."""
    return jnp.cumsum(jnp.ones_like(along)) - 0.5


def central_moments(weights: Map) -> Float[Array, "4 4"]:
    """Compute η_pq = μ_pq / μ_00^(1 + (p+q)/2) at index [q, p], for p and q up to 3.

    x has the power p and y the power q. The moments do not change with a shift of the shape nor,
    apart from pixel sampling, with its scale; they do change with its brightness. A μ_00 below 1
    counts as 1, so that all moments go to 0 with the weights. They are clipped to ±`LARGEST`.
    """
    mass = jnp.sum(weights)
    divisor = jnp.maximum(mass, 1.0)
    powers = []
    for along in (jnp.sum(weights, axis=1), jnp.sum(weights, axis=0)):
        at = coordinates(along)
        for _ in range(2):  # the second pass removes the rounding error of the first mean
            at = at - jnp.sum(at * along) / jnp.maximum(mass, TINY)
        at = at / jnp.sqrt(divisor)
        powers.append(jnp.stack([jnp.ones_like(at), at, at**2, at**3]))
    y, x = powers
    products = jnp.matmul(y, weights, precision=lax.Precision.HIGHEST)
    moments = jnp.matmul(products, x.T, precision=lax.Precision.HIGHEST) / divisor
    return jnp.clip(moments, -LARGEST, LARGEST)


def hu_moments(weights: Map) -> Float[Array, "7"]:
    """Compute the seven invariants of Hu (1962), "Visual pattern recognition by moment invariants".

    They do not change with shift, rotation and scale. The last one changes its sign under
    reflection.
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
    """Return sign(h) log10(|h| / floor), or 0 if |h| is below the floor.

    The floor keeps the value from jumping when h changes its sign. It is `FLOOR` to the power of
    the moment's degree. Above it, the value is the usual −sign(h) log10 |h| but for a constant and
    the sign.
    """
    floors = jnp.asarray([FLOOR**degree for degree in DEGREES], hu.dtype)
    # Not by sign and absolute value: OpenVINO then uses the absolute value for both.
    above, below = (jnp.log10(jnp.maximum(h, floors)) for h in (hu, -hu))
    return above - below


def in_units(anomaly_map: Map, valid: Valid, unit: Float[Array, ""]) -> Map:
    """Divide a map by a pixel threshold; negative and invalid pixels become 0."""
    return jnp.where(valid, jnp.maximum(anomaly_map, 0.0), 0.0) / unit


DESCRIPTION = (
    *(f"Hu {i + 1} of the map" for i in range(7)),
    *(f"Hu {i + 1} of the excess over the threshold" for i in range(7)),
    "log of the greatest value",
    "log of the mean",
    "log of the standard deviation",
    "log of the area above the threshold",
    "log of the sum of the excess",
    "log of the mean excess over that area",
    "log of the standard deviation of the excess there",
)


def describe(anomaly_map: Map, valid: Valid, unit: Float[Array, ""]) -> Float[Array, " n"]:
    """Compute the shape, area and intensity of a map in units of a pixel threshold (`DESCRIPTION`).

    Logarithms are of 1 + x; areas are in px.

    Args:
      anomaly_map: Smoothed raw map. Negative values count as 0.
      valid: Mask of the pixels that count.
      unit: Pixel threshold, above 0.
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
    """Render a map as a picture of a fixed size, v / (1 + v) in [0, 1).

    v is the map in units of the threshold. The bounding box of the valid pixels fills the picture.
    Interpolation is bilinear and antialiased.

    Args:
      anomaly_map: Smoothed raw map.
      valid: Mask of the pixels that count.
      unit: Pixel threshold, which becomes 0.5.
      side: Side of the picture in px.
    """
    values = in_units(anomaly_map, valid, unit)
    counted = valid.astype(values.dtype)
    rows, columns = (_resampling(jnp.max(counted, axis=axis), side) for axis in (1, 0))
    products = jnp.matmul(rows, values / (1.0 + values), precision=lax.Precision.HIGHEST)
    return jnp.matmul(products, columns.T, precision=lax.Precision.HIGHEST)


def _resampling(counted: Float[Array, " n"], side: int) -> Float[Array, "s n"]:
    """Compute the matrix of `ops.resampling` in traced code, for a length that may be unknown.

    The new samples cover the range from the first to the last counted pixel.
    """
    at = coordinates(counted)
    first = jnp.min(jnp.where(counted > 0, at, jnp.inf)) - 0.5
    last = jnp.max(jnp.where(counted > 0, at, 0.0)) + 0.5
    scale = (last - first) / side
    centres = first + (jnp.arange(side, dtype=counted.dtype) + 0.5) * scale
    distances = jnp.abs(at[None, :] - centres[:, None]) / jnp.maximum(scale, 1.0)
    inside = ((at > first) & (at < last)).astype(counted.dtype)
    weights = jnp.maximum(1.0 - distances, 0.0) * inside[None, :]
    return weights / jnp.sum(weights, axis=1, keepdims=True)
