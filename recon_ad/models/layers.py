"""linen's layers on `ops.conv`; parameters are named, shaped and, but for `gain`, initialised as
linen's.

Images are float32 [b, h, w, c]. Each layer begins with a leaky ReLU of its input where `slope` is
given: with the activation inside, its gradient needs nothing more to be stored.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_ad.ops import conv


def _params(
    module: nn.Module, size: int, channels: int, features: int, *, gain: float
) -> tuple[Array, Array]:
    shape = (size, size, channels, features)
    init = nn.initializers.variance_scaling(gain, "fan_in", "truncated_normal")
    kernel = module.param("kernel", init, shape)
    bias = module.param("bias", nn.initializers.zeros_init(), (features,))
    return jnp.asarray(kernel), jnp.asarray(bias)


class Conv(nn.Module):
    """A 3x3 convolution, or a 4x4 one of stride 2, "SAME", as `nn.Conv`.

    Attributes:
      features: output channels.
      stride: of the convolution.
      size: of the kernel.
      enlarge: how many times each pixel is repeated, in rows and columns, before it.
      slope: of the leaky ReLU before it; None: none.
      gain: the kernel's variance at the start, times the number of inputs.
    """

    features: int
    stride: int = 1
    size: int = 3
    enlarge: int = 1
    slope: float | None = None
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """The convolved images."""
        kernel, bias = _params(self, self.size, x.shape[-1], self.features, gain=self.gain)
        if self.enlarge > 1:
            return conv.conv_enlarged(x, kernel, bias, times=self.enlarge, slope=self.slope)
        return conv.conv(x, kernel, bias, stride=self.stride, slope=self.slope)


class UpConv(nn.Module):
    """A 3x3 or 4x4 transposed convolution of stride 2, "SAME", as `nn.ConvTranspose`.

    Attributes:
      features: output channels.
      size: of the kernel.
      slope: of the leaky ReLU before it; None: none.
      gain: the kernel's variance at the start, times the number of inputs, of which an output sees
        about a quarter.
    """

    features: int
    size: int = 3
    slope: float | None = None
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """The images, twice as high and wide."""
        kernel, bias = _params(self, self.size, x.shape[-1], self.features, gain=self.gain)
        return conv.conv_transpose_twice(x, kernel, bias, slope=self.slope)
