"""linen's layers on `ops.conv`; parameters are named, shaped and initialised as linen's."""

import flax.linen as nn
from jaxtyping import Array, Float

from recon_ad.ops import conv


class UpConv(nn.Module):
    """`nn.ConvTranspose(features, (3, 3), (2, 2), padding="SAME")`.

    Attributes:
      features: channels of the output.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Doubles height and width."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return conv.conv_transpose_twice(x, kernel) + bias.reshape(1, 1, 1, -1)
