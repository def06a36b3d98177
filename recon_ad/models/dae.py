"""A residual autoencoder for images of any shape (after Buzzega et al., section 3.2).

The paper specifies residual blocks (He et al. 2016), a bottleneck "much smaller than the image",
and a network that adapts to any input shape. Widths and depth are ours. All layers are
convolutions, so the bottleneck is the number of channels at a sixteenth of the resolution.

Images are float32 NHWC in [0, 1].
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_ad.models.layers import Conv, UpConv

DOWNSCALING = 16
SLOPE = 0.2


class ResidualBlock(nn.Module):
    """Block x + s · conv(conv(x)) with a leaky ReLU before each convolution.

    The scale s begins at zero, so the block begins as the identity.

    Attributes:
      channels: Channels of x and the result.
    """

    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Apply the block."""
        y = Conv(self.channels, slope=SLOPE, name="conv1")(x)
        scale = self.param("scale", nn.initializers.zeros_init(), (1, 1, 1, 1))
        return x + scale * Conv(self.channels, slope=SLOPE, name="conv2")(y)


class ResidualAE(nn.Module):
    """Encoder and decoder that halve and double the resolution four times, with residual blocks.

    Attributes:
      channels: Channels of the images.
      widths: Channels at a half, a quarter, an eighth and a sixteenth of the resolution.
      bottleneck: Channels of the code's map.
    """

    channels: int
    widths: tuple[int, int, int, int]
    bottleneck: int

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> dict[str, Array]:
        """Return `code` [b, ⌈h/16⌉, ⌈w/16⌉, n] and `reconstruction` [b, h, w, c] in (0, 1)."""
        _, h, w, _ = images.shape
        # Padded at the end by mirroring, or by the last pixel if the image is too small for that.
        after = [(0, -side % DOWNSCALING) for side in (h, w)]
        mode = "reflect" if all(p < n for (_, p), n in zip(after, (h, w), strict=True)) else "edge"
        x = jnp.pad(images, ((0, 0), *after, (0, 0)), mode=mode)
        for i, width in enumerate(self.widths, start=1):
            x = Conv(width, 2, 4, slope=SLOPE if i > 1 else None, name=f"down{i}")(x)
            x = ResidualBlock(width, name=f"encode{i}")(x)
        code = Conv(self.bottleneck, slope=SLOPE, name="code")(x)
        x = Conv(self.widths[-1], name="decode")(code)
        for i, width in reversed(list(enumerate(self.widths, start=1))):
            x = ResidualBlock(width, name=f"decode{i}")(x)
            narrower = self.widths[i - 2] if i > 1 else self.channels
            x = UpConv(narrower, 4, slope=SLOPE, name=f"up{i}")(x)
        return {"code": code, "reconstruction": nn.sigmoid(x)[:, :h, :w]}
