"""Residual maps: how an image and its reconstruction differ, pixel by pixel.

Images are float32 [b, h, w, c] in [0, 1]; maps are float32 [b, h, w], averaged over channels, of
the image's own size, higher is more anomalous.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def squared(
    images: Float[Array, "b h w c"], reconstructions: Float[Array, "b h w c"]
) -> Float[Array, "b h w"]:
    """(x − x̃)², in [0, 1] (Schneider et al. 2022, eq. 1)."""
    return jnp.mean((images - reconstructions) ** 2, axis=-1)
