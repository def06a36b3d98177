"""Linen's layers, computed by `ops.conv`.

Parameters have linen's names, shapes and, apart from `gain`, initialisation. Images are float32
[b, h, w, c]. If `slope` is given, a layer begins with a leaky ReLU of its input. With the
activation inside the layer, its gradient needs no further stored values.
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
    """Convolution of 3x3, or of 4x4 with stride 2, with "SAME" padding as `nn.Conv`.

    Attributes:
      features: Output channels.
      stride: Stride of the convolution.
      size: Side of the kernel.
      enlarge: Number of times that each pixel is repeated, in rows and columns, before it.
      slope: Slope of the leaky ReLU before it. None applies no activation.
      gain: Initial variance of the kernel times the number of inputs.
    """

    features: int
    stride: int = 1
    size: int = 3
    enlarge: int = 1
    slope: float | None = None
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Return the convolved images."""
        kernel, bias = _params(self, self.size, x.shape[-1], self.features, gain=self.gain)
        if self.enlarge > 1:
            return conv.conv_enlarged(x, kernel, bias, times=self.enlarge, slope=self.slope)
        return conv.conv(x, kernel, bias, stride=self.stride, slope=self.slope)


class UpConv(nn.Module):
    """Transposed convolution of 3x3 or 4x4 and stride 2, with "SAME" padding as `nn.ConvTranspose`.

    Attributes:
      features: Output channels.
      size: Side of the kernel.
      slope: Slope of the leaky ReLU before it. None applies no activation.
      gain: Initial variance of the kernel times the number of inputs, of which an output sees about
        a quarter.
    """

    features: int
    size: int = 3
    slope: float | None = None
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 o"]:
        """Return images of twice the height and width."""
        kernel, bias = _params(self, self.size, x.shape[-1], self.features, gain=self.gain)
        return conv.conv_transpose_twice(x, kernel, bias, slope=self.slope)
