"""From a smoothed map to one image score: named rules.

Maps are float32 [h, w]; invalid pixels do not count.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from recon_ad.errors import UserError

HALVINGS = 40  # of an interval: to the millionth part of its millionth

Values = Float[Array, "h w"]
Valid = Bool[Array, "h w"]
Score = Float[Array, ""]


def maximum(values: Values, valid: Valid) -> Score:
    """The largest value."""
    return jnp.max(jnp.where(valid, values, -jnp.inf))


def total(values: Values, valid: Valid) -> Score:
    """The sum, which grows with the image (Buzzega et al., section 3.3)."""
    return jnp.sum(jnp.where(valid, values, 0.0))


def mean(values: Values, valid: Valid) -> Score:
    """The mean value."""
    return total(values, valid) / jnp.sum(valid.astype(values.dtype))


def maximum_and_mean(values: Values, valid: Valid) -> Score:
    """The largest value plus half the mean.

    Small defects show in the one, surfaces that differ as a whole in the other.
    """
    return maximum(values, valid) + mean(values, valid) / 2


def mean_of_top(values: Values, valid: Valid, *, one_in: int) -> Score:
    """The mean of the largest values, one in so many of all valid ones, and one at least.

    The smallest of these is found by halving the range of the values `HALVINGS` times: exporters
    cannot rank as many values as an image of unknown size asks for, and TensorRT no more than 3840.
    """
    counted = jnp.where(valid, values, -jnp.inf)
    needed = jnp.maximum(jnp.ceil(total(jnp.ones_like(values), valid) / one_in), 1.0)

    low, high = jnp.min(jnp.where(valid, values, jnp.inf)), jnp.max(counted)
    for _ in range(HALVINGS):  # not a loop that is traced, which not every runtime has
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
ADDITIVE = ("sum",)  # rules whose score of an image is the sum of its regions' scores


def check_score(name: str) -> None:
    """Raises UserError where there is no such rule."""
    if name not in SCORES:
        raise UserError(f"config.inference.score is {name!r}; choose one of: {', '.join(SCORES)}.")
