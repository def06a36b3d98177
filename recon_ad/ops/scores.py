"""Named rules that turn a smoothed map into one image score.

Maps are float32 [h, w]; invalid pixels do not count.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from recon_ad.errors import UserError

HALVINGS = 40  # bisection steps, which shrink an interval to about 1e-12 of its length

Values = Float[Array, "h w"]
Valid = Bool[Array, "h w"]
Score = Float[Array, ""]


def maximum(values: Values, valid: Valid) -> Score:
    """Return the largest value."""
    return jnp.max(jnp.where(valid, values, -jnp.inf))


def total(values: Values, valid: Valid) -> Score:
    """Return the sum, which grows with the image (Buzzega et al., section 3.3)."""
    return jnp.sum(jnp.where(valid, values, 0.0))


def mean(values: Values, valid: Valid) -> Score:
    """Return the mean value."""
    return total(values, valid) / jnp.sum(valid.astype(values.dtype))


def maximum_and_mean(values: Values, valid: Valid) -> Score:
    """Return the largest value plus half the mean.

    Small defects raise the maximum; surfaces that differ as a whole raise the mean.
    """
    return maximum(values, valid) + mean(values, valid) / 2


def mean_of_top(values: Values, valid: Valid, *, one_in: int) -> Score:
    """Return the mean of the largest valid values: one in `one_in`, and at least one.

    The smallest of these is found by halving the range of the values `HALVINGS` times. Exporters
    cannot rank as many values as an image of unknown size has, and TensorRT ranks no more than
    3840.
    """
    counted = jnp.where(valid, values, -jnp.inf)
    needed = jnp.maximum(jnp.ceil(total(jnp.ones_like(values), valid) / one_in), 1.0)

    low, high = jnp.min(jnp.where(valid, values, jnp.inf)), jnp.max(counted)
    for _ in range(HALVINGS):  # unrolled, because some runtimes have no loops
        middle = low + (high - low) / 2
        enough = jnp.sum((counted > middle).astype(values.dtype)) >= needed
        low, high = jnp.where(enough, middle, low), jnp.where(enough, high, middle)
    above = counted > high
    missing = needed - jnp.sum(above.astype(values.dtype))
    return (jnp.sum(jnp.where(above, values, 0.0)) + missing * high) / needed


SCORES: Mapping[str, Callable[[Values, Valid], Score]] = {
    "max": maximum,
    "mean": mean,
    "sum": total,
    "max+mean/2": maximum_and_mean,
    "top_1%": lambda values, valid: mean_of_top(values, valid, one_in=100),
}
ADDITIVE = ("sum",)  # rules by which an image's score is the sum of its regions' scores


def check_score(name: str) -> None:
    """Raise UserError if the score rule is unknown."""
    if name not in SCORES:
        raise UserError(
            f"unknown config.inference.score {name!r}; choose one of: {', '.join(SCORES)}."
        )
