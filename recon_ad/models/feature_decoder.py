"""The trained half of Dinomaly (Guo et al. 2025), which reconstructs a frozen encoder's features.

It is a noisy bottleneck and a decoder with linear attention; the encoder is a Vision Transformer.
Tokens are float32 [b, n, d]. Dropout makes the bottleneck noisy. Linear attention cannot focus,
which keeps the decoder from passing its input on.

`published` selects Dinomaly's own code (`models/vision_transformer.py`, `dinomaly_mvtec_sep.py` of
github.com/guojiajeremy/Dinomaly, Apache-2.0): all linear layers have biases and a narrow
initialisation. Otherwise the linear layers outside the attention have no biases, as in anomalib's
implementation (Apache-2.0), and all layers have linen's initialisation.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

# These values are as published.
DROPPED = 0.2
MLP_RATIO = 4
EPSILON = 1e-8  # epsilon of LayerNorm
NARROW = nn.initializers.truncated_normal(0.01, lower=-3.0, upper=3.0)  # cut off at ± 0.03
# This value is ours. It is added to the sum of a token's weights, so that no divisor is 0.
TINY = 1e-6

Tokens = Float[Array, "b n d"]


def _linear(width: int, *, published: bool, bias: bool, name: str) -> nn.Dense:
    init = NARROW if published else nn.initializers.lecun_normal()
    return nn.Dense(width, use_bias=published or bias, kernel_init=init, name=name)


class LinearAttention(nn.Module):
    """Attention with elu(x) + 1 in place of the softmax (Katharopoulos et al. 2020).

    Attributes:
      heads: Number of heads that the channels are split into.
      published: Whether the layers are as published (see the module).
    """

    heads: int
    published: bool

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Return the attended tokens."""
        b, n, d = x.shape
        linear = functools.partial(_linear, published=self.published, bias=True)
        qkv = linear(3 * d, name="qkv")(x).reshape(b, n, 3, self.heads, d // self.heads)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        q, k = nn.elu(q) + 1, nn.elu(k) + 1
        values = jnp.einsum("bnhc,bnhe->bhce", k, v)
        weight = jnp.einsum("bnhc,bhc->bnh", q, jnp.sum(k, axis=1))
        # elu(x) + 1 is 0 for x below −17.
        attended = jnp.einsum("bnhc,bhce->bnhe", q, values) / (weight + TINY)[..., None]
        return linear(d, name="proj")(attended.reshape(b, n, d))


class Block(nn.Module):
    """Linear attention and two linear layers, each on normalised tokens and added to them.

    Attributes:
      heads: Number of heads of the attention.
      published: Whether the layers are as published (see the module).
    """

    heads: int
    published: bool

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        """Return the next tokens."""
        d = x.shape[-1]
        linear = functools.partial(_linear, published=self.published, bias=False)
        attention = LinearAttention(self.heads, self.published, name="attn")
        x = x + attention(nn.LayerNorm(EPSILON, name="norm1")(x))
        y = nn.LayerNorm(EPSILON, name="norm2")(x)
        y = nn.gelu(linear(MLP_RATIO * d, name="fc1")(y), approximate=False)
        return x + linear(d, name="fc2")(y)


class FeatureDecoder(nn.Module):
    """Bottleneck and decoder.

    Attributes:
      depth: Number of the decoder's blocks.
      heads: Number of heads of their attention.
      published: Whether the layers are as published (see the module).
    """

    depth: int
    heads: int
    published: bool

    @nn.compact
    def __call__(self, tokens: Tokens, *, noisy: bool) -> dict[str, Array]:
        """Return the tokens `block{i}` [b, n, d] of each of the decoder's blocks.

        Args:
          tokens: Mean over the encoder's blocks.
          noisy: Whether the bottleneck applies dropout, with the key "dropout".
        """
        d = tokens.shape[-1]
        drop = nn.Dropout(DROPPED, deterministic=not noisy)
        linear = functools.partial(_linear, published=self.published, bias=False)
        x = drop(nn.gelu(linear(MLP_RATIO * d, name="fc1")(drop(tokens)), approximate=False))
        x = drop(linear(d, name="fc2")(x))
        found = {}
        for i in range(self.depth):
            x = found[f"block{i}"] = Block(self.heads, self.published, name=f"block{i}")(x)
        return found
