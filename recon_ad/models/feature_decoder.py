"""The trained half of Dinomaly (Guo et al. 2025): a noisy bottleneck and a decoder with linear
attention, which paint the features of a frozen Vision Transformer again.

Tokens are float32 [b, n, d], patches only. Dropout is what makes the bottleneck noisy; linear
attention, which cannot focus, keeps the decoder from passing on what it sees.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

# As published; that linear layers have no biases but in the attention is anomalib's reading.
DROPPED = 0.2
MLP_RATIO = 4
EPSILON = 1e-8  # of LayerNorm
TINY = 1e-6  # that the sum of a token's weights is more than

Tokens = Float[Array, "b n d"]


class LinearAttention(nn.Module):
    """Attention with elu(x) + 1 in place of the softmax (Katharopoulos et al. 2020).

    Attributes:
      heads: that the channels are split into.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """The attended tokens."""
        b, n, d = x.shape
        qkv = nn.Dense(3 * d, name="qkv")(x).reshape(b, n, 3, self.heads, d // self.heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        q, k = nn.elu(q) + 1, nn.elu(k) + 1
        values = jnp.einsum("bnhc,bnhe->bhce", k, v)
        weight = jnp.einsum("bnhc,bhc->bnh", q, jnp.sum(k, axis=1))
        # elu(x) + 1 is 0 for x below −17.
        attended = jnp.einsum("bnhc,bhce->bnhe", q, values) / (weight + TINY)[..., None]
        return nn.Dense(d, name="proj")(attended.reshape(b, n, d))


class Block(nn.Module):
    """Linear attention, then two linear layers, each on normalised tokens and added to them.

    Attributes:
      heads: of the attention.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """The next tokens."""
        d = x.shape[-1]
        x = x + LinearAttention(self.heads, name="attn")(nn.LayerNorm(EPSILON, name="norm1")(x))
        y = nn.LayerNorm(EPSILON, name="norm2")(x)
        y = nn.gelu(nn.Dense(MLP_RATIO * d, use_bias=False, name="fc1")(y), approximate=False)
        return x + nn.Dense(d, use_bias=False, name="fc2")(y)


class FeatureDecoder(nn.Module):
    """Bottleneck and decoder.

    Attributes:
      depth: number of the decoder's blocks.
      heads: of their attention.
    """

    depth: int
    heads: int

    @nn.compact
    def __call__(self, tokens: Tokens, *, noisy: bool) -> dict[str, Array]:
        """`block{i}` [b, n, d] of each of the decoder's blocks.

        Args:
          tokens: the mean over the encoder's blocks.
          noisy: whether the bottleneck drops numbers, by the key "dropout".
        """
        d = tokens.shape[-1]
        drop = nn.Dropout(DROPPED, deterministic=not noisy)
        x = nn.Dense(MLP_RATIO * d, use_bias=False, name="fc1")(drop(tokens))
        x = drop(nn.gelu(x, approximate=False))
        x = drop(nn.Dense(d, use_bias=False, name="fc2")(x))
        found = {}
        for i in range(self.depth):
            x = found[f"block{i}"] = Block(self.heads, name=f"block{i}")(x)
        return found
