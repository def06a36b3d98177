"""From a smoothed map to one image score: named rules.

Maps are float32 [h, w]; invalid pixels do not count.
"""

import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

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


def mean_of_top(values: Values, valid: Valid, *, share: float) -> Score:
    """The mean of the largest values, that share of all valid ones, and one at least."""
    ranked = jnp.where(valid, values, -jnp.inf).reshape(-1)
    # The map may be padded: as many as could be needed are ranked, as many as are needed count.
    largest, _ = lax.top_k(ranked, max(1, math.ceil(share * ranked.size)))
    needed = jnp.maximum(jnp.ceil(share * jnp.sum(valid.astype(jnp.float32))), 1.0)
    kept = jnp.arange(largest.size) < needed
    return jnp.sum(jnp.where(kept, largest, 0.0)) / needed


SCORES: Mapping[str, Callable[[Values, Valid], Score]] = {
    "max": maximum,
    "mean": mean,
    "sum": total,
    "top_1%": lambda values, valid: mean_of_top(values, valid, share=0.01),
}
