"""The autoencoder of Bergmann et al. 2019.

The encoder has nine convolutions; those that halve the resolution are 4x4. The decoder is its
mirror image. A leaky ReLU with slope 0.2 follows each layer except the code's and the last. The
ninth convolution covers the whole remaining image, as does the first of the decoder, so both are
linear layers. No reachable source of the paper gives the whole table; it is taken from the
MindSpore model zoo's SSIM-AE, which names the paper. The sigmoid at the end is ours; it makes the
reconstruction an image.

The initialisation is ours too. Images are centred, and kernels have He et al.'s variance, which
keeps the signal's variance through the encoder. The decoder's transposed convolutions halve its
spread, so that a reconstruction begins near gray. Without this, the loss stays at that of a gray
image for hundreds of steps, or for good.

Images are float32 NHWC in [0, 1]; codes are float32 [b, n_z].
"""

import functools

import flax.linen as nn
from jaxtyping import Array, Float

from recon_ad.models.cae import START, drawn, scaled
from recon_ad.models.layers import Conv, UpConv

# Channels and strides. Layers of stride 2 have 4x4 kernels, those of stride 1 have 3x3 kernels.
ENCODER = ((32, 2), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (64, 1), (32, 1))
DECODER = ((64, 1), (128, 1), (64, 2), (64, 1), (32, 2), (32, 1), (32, 2))
DOWNSCALING = 16
CODE_CHANNELS = 32
SLOPE = 0.2
GAIN = 2 / (1 + SLOPE**2)  # gain after a leaky ReLU (He et al. 2015, eq. 15)
MEAN, LOG_VARIANCE = "conv9", "conv9_variance"  # the innermost layers


class Encoder(nn.Module):
    """Network from image to code.

    Attributes:
      n_z: Length of the code.
      heads: Names of the innermost layers.
      width: Channels as a multiple of the paper's.
    """

    n_z: int
    heads: tuple[str, ...] = (MEAN,)
    width: float = 1.0

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> tuple[Float[Array, "b n_z"], ...]:
        """Encode images whose sides are multiples of 16, and return one result for each head."""
        b, h, w, c = images.shape
        # This gives about unit variance. Columns and channels are one axis, because ONNX Runtime is
        # slow at scaling an array whose last axis is 1.
        x = (4.0 * (images.reshape(b, h, w * c) - 0.5)).reshape(b, h, w, c)
        for i, (channels, stride) in enumerate(ENCODER, start=1):
            slope = SLOPE if i > 1 else None
            gain = GAIN if i > 1 else 1.0
            channels = scaled(channels, self.width)
            x = Conv(channels, stride, 2 + stride, slope=slope, gain=gain, name=f"conv{i}")(x)
        x = nn.leaky_relu(x, SLOPE).reshape(x.shape[0], -1)
        starts = {MEAN: 0.0, LOG_VARIANCE: START}
        return tuple(
            nn.Dense(self.n_z, name=name, bias_init=nn.initializers.constant(starts[name]))(x)
            for name in self.heads
        )


class Decoder(nn.Module):
    """Network from code to image.

    Attributes:
      size: Height and width of the image, multiples of 16.
      channels: Channels of the image.
      width: Channels of the layers as a multiple of the paper's.
    """

    size: tuple[int, int]
    channels: int
    width: float = 1.0

    @nn.compact
    def __call__(self, code: Float[Array, "b n_z"]) -> Float[Array, "b h w c"]:
        """Decode codes to images in (0, 1)."""
        h, w = (side // DOWNSCALING for side in self.size)
        code_channels = scaled(CODE_CHANNELS, self.width)
        x = nn.Dense(h * w * code_channels, name="deconv1")(code)
        x = x.reshape(-1, h, w, code_channels)
        hidden = ((scaled(o, self.width), stride) for o, stride in DECODER)
        for i, (channels, stride) in enumerate((*hidden, (self.channels, 2)), start=2):
            kind = functools.partial(UpConv, size=4) if stride == 2 else Conv
            x = kind(channels, slope=SLOPE, gain=GAIN, name=f"deconv{i}")(x)
        return nn.sigmoid(x)


class BergmannAE(nn.Module):
    """Encoder and decoder, with 1 050 565 parameters at 128x128x1 and n_z = 100.

    Attributes:
      size: Height and width of the images, multiples of 16.
      channels: Channels of the images.
      n_z: Length of the code.
      width: Channels of the layers as a multiple of the paper's.
    """

    size: tuple[int, int]
    channels: int
    n_z: int
    width: float = 1.0

    def setup(self) -> None:
        """Define the encoder and the decoder."""
        self.encoder = Encoder(self.n_z, width=self.width)
        self.decoder = Decoder(self.size, self.channels, self.width)

    def __call__(self, images: Float[Array, "b h w c"]) -> dict[str, Array]:
        """Return `code` [b, n_z] and `reconstruction` [b, h, w, c] in (0, 1)."""
        (code,) = self.encoder(images)
        return {"code": code, "reconstruction": self.decoder(code)}


class BergmannVAE(nn.Module):
    """Variational form of `BergmannAE`, with one head each for the code's mean and log σ².

    Attributes:
      size: Height and width of the images, multiples of 16.
      channels: Channels of the images.
      n_z: Length of the code.
      width: Channels of the layers as a multiple of the paper's.
    """

    size: tuple[int, int]
    channels: int
    n_z: int
    width: float = 1.0

    def setup(self) -> None:
        """Define the encoder and the decoder."""
        self.encoder = Encoder(self.n_z, (MEAN, LOG_VARIANCE), self.width)
        self.decoder = Decoder(self.size, self.channels, self.width)

    def __call__(
        self, images: Float[Array, "b h w c"], noise: Float[Array, "b n_z"] | None
    ) -> dict[str, Array]:
        """Return the same arrays as `models.cae.VAE`."""
        return drawn(*self.encoder(images), noise, self.decoder)
