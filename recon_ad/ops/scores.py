"""From a smoothed map to one image score: named rules.

Maps are float32 [h, w]; invalid pixels do not count.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def maximum(values: Float[Array, "h w"], valid: Bool[Array, "h w"]) -> Float[Array, ""]:
    """The largest value."""
    return jnp.max(jnp.where(valid, values, -jnp.inf))


def mean(values: Float[Array, "h w"], valid: Bool[Array, "h w"]) -> Float[Array, ""]:
    """The mean value."""
    return jnp.sum(jnp.where(valid, values, 0.0)) / jnp.sum(valid.astype(values.dtype))


SCORES: Mapping[str, Callable[[Array, Array], Array]] = {"max": maximum, "mean": mean}
