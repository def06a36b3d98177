"""Vision Transformers as encoders: plain, distilled, with LayerScale and with registers.

The sources are Dosovitskiy et al. 2021 (plain), Touvron et al. 2021 (DeiT, distilled), Oquab et al.
2024 (DINOv2, LayerScale) and Darcet et al. 2024 (registers).

Images are float32 [b, h, w, 3], normalised as the weights require; h and w are multiples of the
patch. Tokens are [b, n, d]: first the tokens that are not patches (class, distillation, registers),
then the patches row by row. Parameters are float32. Computation is in `dtype`, except LayerNorm and
the softmax, which stay in float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from recon_ad.models.spec import MLP_RATIO, Spec
from recon_ad.ops.resampling import resample

EPSILON = 1e-6  # epsilon of LayerNorm in all these networks


class Attention(nn.Module):
    """Softmax attention of all tokens to all.

    Attributes:
      heads: Number of heads that the channels are split into.
      dtype: Type of the products.
    """

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Return the attended tokens."""
        b, n, d = x.shape
        qkv = nn.Dense(3 * d, dtype=self.dtype, name="qkv")(x)
        q, k, v = jnp.moveaxis(qkv.reshape(b, n, 3, self.heads, d // self.heads), (2, 3), (0, 2))
        scaled = q * (d // self.heads) ** -0.5
        # Matrix products, because ONNX Runtime is slow at einsum.
        keys = k.swapaxes(2, 3)
        weights = jnp.matmul(scaled, keys, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(weights, axis=-1).astype(self.dtype)
        attended = jnp.matmul(weights, v)
        joined = jnp.moveaxis(attended, 1, 2).reshape(b, n, d)
        return nn.Dense(d, dtype=self.dtype, name="proj")(joined)


class Block(nn.Module):
    """Attention and two linear layers, each on normalised tokens and added to them.

    Attributes:
      spec: Shape of the encoder.
      dtype: Type of the products.
    """

    spec: Spec
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Return the next tokens."""
        attended = Attention(self.spec.heads, self.dtype, name="attn")(_norm("norm1")(x))
        x = x + self._scaled("scale1", attended)
        y = nn.Dense(MLP_RATIO * x.shape[-1], dtype=self.dtype, name="fc1")(_norm("norm2")(x))
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="fc2")(nn.gelu(y, approximate=False))
        return x + self._scaled("scale2", y)

    def _scaled(self, name: str, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        if not self.spec.layer_scale:
            return x
        scale = self.param(name, nn.initializers.ones_init(), (x.shape[-1],))
        return x * jnp.asarray(scale, x.dtype).reshape(1, 1, -1)


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(EPSILON, dtype=jnp.float32, name=name)


class ViT(nn.Module):
    """Vision Transformer encoder.

    Attributes:
      spec: Shape of the encoder.
      blocks: Indices from 0 of the blocks whose tokens are returned. Blocks after the last of them
        are not computed.
      size: Height and width of the images in patches, which `positions` has to match (`fitted`).
      dtype: Type of the products, float32 or bfloat16.
    """

    spec: Spec
    blocks: tuple[int, ...]
    size: tuple[int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"]) -> dict[str, Array]:
        """Return float32 [b, n, d] tokens: `block{i}` for each of `blocks`, and `norm`.

        `norm` is the normalised output of the last block.
        """
        spec, (rows, columns) = self.spec, self.size
        b = images.shape[0]
        # Patches become rows: a convolution whose stride equals its kernel is one matrix product.
        x = images.reshape(b, rows, spec.patch, columns, spec.patch, 3)
        x = jnp.moveaxis(x, 3, 2).reshape(b, rows * columns, 3 * spec.patch**2)
        x = nn.Dense(spec.width, dtype=self.dtype, name="embed")(x)
        small = nn.initializers.normal(0.02)
        positions = self.param("positions", small, (rows, columns, spec.width))
        prefix = self.param("prefix", small, (spec.prefix, spec.width))
        x = x.astype(jnp.float32) + jnp.asarray(positions).reshape(1, -1, spec.width)
        before = jnp.broadcast_to(jnp.asarray(prefix), (b, *prefix.shape))
        x = jnp.concatenate([before, x], axis=1)
        found = {}
        for i in range(max(self.blocks) + 1):
            x = Block(spec, self.dtype, name=f"block{i}")(x).astype(jnp.float32)
            if i in self.blocks:
                found[f"block{i}"] = x
        return found | {"norm": _norm("norm")(x)}


def fitted(
    params: PyTree, size: tuple[int, int], *, blocks: tuple[int, ...], antialias: bool
) -> PyTree:
    """Return the parameters for images of another size, without the unused blocks.

    Args:
      params: Parameters of the whole encoder, as `recon_ad.pretrained` reads them.
      size: Height and width in patches.
      blocks: Blocks as in `ViT`.
      antialias: Whether positions are interpolated with antialiasing (`ops.resampling`). Libraries
        differ: timm and DINOv2 with registers antialias, DINOv2 without registers does not.
    """
    positions = params["positions"]
    if positions.shape[:2] != size:
        positions = resample(jnp.asarray(positions)[None], size, kind="cubic", antialias=antialias)[
            0
        ]
    unused = [name for name in params if name.startswith("block") and int(name[5:]) > max(blocks)]
    return {k: v for k, v in params.items() if k not in unused} | {"positions": positions}
