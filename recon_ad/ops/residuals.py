"""Residual maps: how an image and its reconstruction differ, pixel by pixel.

Images are float32 [b, h, w, c] in [0, 1]; maps are float32 [b, h, w], averaged over channels, of
the image's own size, higher is more anomalous.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_ad.ops.ssim import ssim_map

Images = Float[Array, "b h w c"]
Map = Float[Array, "b h w"]


def squared(images: Images, reconstructions: Images) -> Map:
    """(x − x̃)², in [0, 1] (Schneider et al. 2022, eq. 1)."""
    difference = images - reconstructions
    return _mean(difference * difference)  # not a power, which is slow in ONNX Runtime


def absolute(images: Images, reconstructions: Images) -> Map:
    """|x − x̃|, in [0, 1]."""
    return _mean(jnp.abs(images - reconstructions))


def structural(images: Images, reconstructions: Images, *, window: int, kind: str) -> Map:
    """(1 − S) / 2, in [0, 1] (S of Wang et al. 2004; see `ops.ssim`); borders are mirrored."""
    similarity = ssim_map(
        images, reconstructions, data_range=1.0, window=window, kind=kind, border="reflect"
    )
    # Channels are averaged before scaling: ONNX Runtime is slow at a number and an array whose last
    # axis is 1.
    return (1.0 - _mean(similarity)) / 2.0


def _mean(values: Float[Array, "b h2 w2 c"]) -> Float[Array, "b h2 w2"]:
    """The mean over channels. One channel is taken as it is: runtimes are slow at a mean of one."""
    return values[..., 0] if values.shape[-1] == 1 else jnp.mean(values, axis=-1)
