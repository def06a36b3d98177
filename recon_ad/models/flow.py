"""A normalising flow on feature maps (FastFlow, Yu et al. 2021): invertible, with its exact
log-determinant.

Maps are float32 [b, r, k, d]. Each step scales and shifts the channels, shuffles them in a fixed
way, and lets the first half of them scale and shift the second (affine coupling, Dinh et al. 2017)
by a small network, which by turns looks at the surroundings, by 3×3 convolutions or by attention to
all positions, and at each position by itself. It begins as the identity but for the shuffling.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from recon_ad.models.layers import Conv
from recon_ad.models.vit import Attention

COUPLINGS = ("convolution", "attention")

# Scales of a coupling stay within e^±CLAMP, as in FrEIA, with which training stays finite.
CLAMP = 2.0

Maps = Float[Array, "b r k d"]
Kept = Float[Array, "b r k d1"]  # the channels that a coupling looks at
Changed = Float[Array, "b r k d2"]  # and those that it scales and shifts


class Subnet(nn.Module):
    """Half of the channels to log-scales and shifts of the other half, zeros at first.

    Attributes:
      hidden: channels between its two convolutions.
      out: channels to scale and shift.
      looks: at its surroundings by a "convolution" or by "attention"; "": not at all.
    """

    hidden: int
    out: int
    looks: str = ""

    @nn.compact
    def __call__(self, x: Kept) -> tuple[Changed, Changed]:
        """Log-scales within ±CLAMP, and shifts."""
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
    """Feature maps to maps of independent normal numbers, and back.

    Attributes:
      steps: of the flow.
      channels: d.
      ratio: hidden channels of a step's network, as a multiple of its input's.
      coupling: how every other step looks at its surroundings, one of `COUPLINGS`.
    """

    steps: int
    channels: int
    ratio: float
    coupling: str

    def setup(self) -> None:
        """The layers, and the shuffles, which hang on the number of channels only."""
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
        """Returns `latent` [b, r, k, d] and `log_determinant` [b, r, k], by position."""
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
        """The maps that have that latent."""
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
