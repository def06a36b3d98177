"""Residual maps: the difference between an image and its reconstruction at each pixel.

Images are float32 [b, h, w, c] in [0, 1]. Maps are float32 [b, h, w], averaged over channels, and
have the image's height and width. Higher values are more anomalous.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_ad.ops.ssim import ssim_map

Images = Float[Array, "b h w c"]
Map = Float[Array, "b h w"]


def squared(images: Images, reconstructions: Images) -> Map:
    """Compute (x − x̃)², in [0, 1] (Schneider et al. 2022, eq. 1)."""
    difference = images - reconstructions
    return _mean(difference * difference)  # not a power, which is slow in ONNX Runtime


def absolute(images: Images, reconstructions: Images) -> Map:
    """Compute |x − x̃|, in [0, 1]."""
    return _mean(jnp.abs(images - reconstructions))


def structural(images: Images, reconstructions: Images, *, window: int, kind: str) -> Map:
    """Compute (1 − S) / 2, in [0, 1], with mirrored borders.

    S is the structural similarity of Wang et al. 2004 (see `ops.ssim`).
    """
    similarity = ssim_map(
        images, reconstructions, data_range=1.0, window=window, kind=kind, border="reflect"
    )
    # Channels are averaged before scaling, because ONNX Runtime is slow at scaling an array whose
    # last axis has length 1.
    return (1.0 - _mean(similarity)) / 2.0


def _mean(values: Float[Array, "b h2 w2 c"]) -> Float[Array, "b h2 w2"]:
    """Average over channels.

    A single channel is indexed instead, because runtimes are slow at a mean over one value.
    """
    return values[..., 0] if values.shape[-1] == 1 else jnp.mean(values, axis=-1)
