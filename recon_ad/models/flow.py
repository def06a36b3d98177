"""An invertible normalising flow on feature maps with an exact log-determinant (FastFlow).

The flow follows Yu et al. 2021. Maps are float32 [b, r, k, d]. Each step scales and shifts the
channels and shuffles them in a fixed way. The first half of the channels then scales and shifts the
second half (affine coupling, Dinh et al. 2017) through a small network. Every other step's network
sees the position's surroundings, by 3×3 convolutions or by attention to all positions; the others
see each position by itself. The flow begins as the identity apart from the shuffling.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from recon_ad.models.layers import Conv
from recon_ad.models.vit import Attention

COUPLINGS = ("convolution", "attention")

# Scales of a coupling stay within e^±CLAMP, as in FrEIA, which keeps training finite.
CLAMP = 2.0

Maps = Float[Array, "b r k d"]
Kept = Float[Array, "b r k d1"]  # the input channels of a coupling
Changed = Float[Array, "b r k d2"]  # the channels that it scales and shifts


class Subnet(nn.Module):
    """Network from half of the channels to log-scales and shifts of the others, initially zeros.

    Attributes:
      hidden: Number of channels between its two layers.
      out: Number of channels to scale and shift.
      looks: Access to the surroundings, by "convolution" or "attention". "" sees each position by
        itself.
    """

    hidden: int
    out: int
    looks: str = ""

    @nn.compact
    def __call__(self, x: Kept) -> tuple[Changed, Changed]:
        """Return log-scales within ±CLAMP, and shifts."""
        if self.looks == "convolution":
            y = Conv(self.hidden, size=3, name="first")(x)
            y = Conv(2 * self.out, size=3, slope=0.0, name="second")(y)
        else:
            y = nn.Dense(self.hidden, name="first")(x)
            if self.looks == "attention":
                tokens = y.reshape(y.shape[0], -1, self.hidden)
                y = y + Attention(1, jnp.float32, name="attn")(tokens).reshape(y.shape)
            y = nn.Dense(2 * self.out, name="second")(nn.relu(y))
        strength = self.param("strength", nn.initializers.zeros_init(), (1, 1, 1, 1))
        log_scale, shift = jnp.split(y * strength, 2, axis=-1)
        return CLAMP * jnp.tanh(log_scale / CLAMP), shift


class Flow(nn.Module):
    """Invertible network from feature maps to maps of independent normal numbers.

    Attributes:
      steps: Number of steps.
      channels: Number of channels, d.
      ratio: Hidden channels of a step's network, as a multiple of its input's.
      coupling: Access of every other step to its surroundings, one of `COUPLINGS`.
    """

    steps: int
    channels: int
    ratio: float
    coupling: str

    def setup(self) -> None:
        """Define the layers, and the shuffles, which depend only on the number of channels."""
        first, second = self.channels - self.channels // 2, self.channels // 2
        hidden = max(1, round(self.ratio * first))
        self.subnets = [
            Subnet(hidden, second, self.coupling if i % 2 == 0 else "") for i in range(self.steps)
        ]
        zeros, shape = nn.initializers.zeros_init(), (self.steps, self.channels)
        self.log_scales = self.param("log_scales", zeros, shape)
        self.shifts = self.param("shifts", zeros, shape)
        random = np.random.default_rng(self.channels)
        self.orders = [random.permutation(self.channels) for _ in range(self.steps)]

    def __call__(self, x: Maps) -> dict[str, Array]:
        """Return `latent` [b, r, k, d] and the `log_determinant` [b, r, k] of each position."""
        total = jnp.zeros(x.shape[:-1])
        for i, subnet in enumerate(self.subnets):
            scale, shift = self._affine(i)
            x = jnp.take(x * jnp.exp(scale) + shift, self.orders[i], axis=-1)
            kept, changed = self._halves(x)
            log_scale, shift = subnet(kept)
            x = jnp.concatenate([kept, changed * jnp.exp(log_scale) + shift], axis=-1)
            total = total + jnp.sum(log_scale, axis=-1) + jnp.sum(scale)
        return {"latent": x, "log_determinant": total}

    def inverse(self, latent: Maps) -> Maps:
        """Return the maps whose latent is given."""
        x = latent
        for i in reversed(range(self.steps)):
            kept, changed = self._halves(x)
            log_scale, shift = self.subnets[i](kept)
            x = jnp.concatenate([kept, (changed - shift) * jnp.exp(-log_scale)], axis=-1)
            scale, shift = self._affine(i)
            x = (jnp.take(x, np.argsort(self.orders[i]), axis=-1) - shift) * jnp.exp(-scale)
        return x

    def _affine(self, step: int) -> tuple[Float[Array, "1 1 1 d"], Float[Array, "1 1 1 d"]]:
        log_scale, shift = jnp.asarray(self.log_scales)[step], jnp.asarray(self.shifts)[step]
        return log_scale.reshape(1, 1, 1, -1), shift.reshape(1, 1, 1, -1)

    def _halves(self, x: Maps) -> tuple[Kept, Changed]:
        first = self.channels - self.channels // 2
        return x[..., :first], x[..., first:]
