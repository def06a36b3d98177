"""The autoencoders of Schneider et al. 2022 (Tables 2 and 3) and their critic (Table 4).

Images are float32 NHWC in [0, 1]; codes are float32 [b, n_z].

The table's "deconvolutions" that keep the resolution are ordinary 3x3 convolutions: with stride 1
a transposed convolution is the same family of maps. Those that double it are 3x3 transposed
convolutions of stride 2. The synthetic variant quadruples the resolution in one layer. A 3x3
transposed convolution of stride 4 would leave every fourth row and column without any input
(holes), so that layer is nearest-neighbour enlargement by 4 followed by a 3x3 convolution.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_ad.models.layers import Conv, UpConv

# Channels and strides of the encoder's convolutions, then of the decoder's (Table 2).
# In the synthetic column, "conv2" and "conv3" give a wrong source resolution (a misprint).
ENCODERS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "synthetic": ((16, 1), (32, 2), (64, 2), (64, 4), (16, 1)),
    "industrial": ((16, 1), (32, 2), (64, 2), (64, 2), (64, 2), (16, 1)),
}
DECODERS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "synthetic": ((64, 1), (64, 4), (32, 2), (16, 2)),
    "industrial": ((64, 1), (64, 2), (64, 2), (32, 2), (16, 2)),
}
DOWNSCALING = 16  # between image and the bottleneck's feature map, in both variants
CODE_CHANNELS = 16
HIDDEN = 1024  # r of Table 3
# The paper does not give the leaky ReLU's slope; 0.01 is the default of the common frameworks.
SLOPE = 0.01
MEAN, LOG_VARIANCE = "lin21", "lin22"  # the VAE's innermost layers
# Initial log σ², which the paper does not give. With σ = 1 the code contains more noise than image,
# and chess is hardly learnt at first.
START = -5.0


def scaled(count: int, width: float) -> int:
    """Return a layer's number of channels scaled by `width`, at least one."""
    return max(1, round(count * width))


def _activate(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return nn.leaky_relu(x, SLOPE)


class Encoder(nn.Module):
    """Network from image to code: convolutions and the first linear layers.

    Attributes:
      variant: "synthetic" or "industrial", the two columns of Table 2.
      n_z: Length of the code.
      heads: Names of the innermost linear layers, which all follow "lin1".
      width: Channels as a multiple of the paper's.
    """

    variant: str
    n_z: int
    heads: tuple[str, ...] = ("lin2",)
    width: float = 1.0

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"]) -> tuple[Float[Array, "b n_z"], ...]:
        """Encode images whose sides are multiples of 16, and return one result for each head."""
        x = images
        for i, (channels, stride) in enumerate(ENCODERS[self.variant], start=1):
            channels = scaled(channels, self.width)
            x = Conv(channels, stride, slope=SLOPE if i > 1 else None, name=f"conv{i}")(x)
        x = _activate(x)
        x = x.reshape(x.shape[0], -1)
        x = _activate(nn.Dense(scaled(HIDDEN, self.width), name="lin1")(x))
        biases = {LOG_VARIANCE: nn.initializers.constant(START)}
        return tuple(
            nn.Dense(self.n_z, name=name, bias_init=biases.get(name, nn.initializers.zeros_init()))(
                x
            )
            for name in self.heads
        )


class Decoder(nn.Module):
    """Network from code to image: the last two linear layers and the deconvolutions.

    Attributes:
      variant: "synthetic" or "industrial".
      size: Height and width of the image, multiples of 16.
      channels: Channels of the image.
      width: Channels of the layers as a multiple of the paper's.
    """

    variant: str
    size: tuple[int, int]
    channels: int
    width: float = 1.0

    @nn.compact
    def __call__(self, code: Float[Array, "b n_z"]) -> Float[Array, "b h w c"]:
        """Decode codes to images in (0, 1)."""
        h, w = (side // DOWNSCALING for side in self.size)
        code_channels = scaled(CODE_CHANNELS, self.width)
        x = _activate(nn.Dense(scaled(HIDDEN, self.width), name="lin3")(code))
        x = nn.Dense(h * w * code_channels, name="lin4")(x)
        x = x.reshape(-1, h, w, code_channels)
        hidden = ((scaled(o, self.width), stride) for o, stride in DECODERS[self.variant])
        layers = (*hidden, (self.channels, 1))
        for i, (channels, stride) in enumerate(layers, start=1):
            name = f"deconv{i}"
            if stride == 2:
                x = UpConv(channels, slope=SLOPE, name=name)(x)
            else:
                x = Conv(channels, enlarge=stride, slope=SLOPE, name=name)(x)
        return nn.sigmoid(x)


class CAE(nn.Module):
    """Encoder and decoder (eq. 2).

    They have 2 444 021 parameters (synthetic) or 2 517 877 (industrial) at 128x128x1 and n_z = 100.

    Attributes:
      variant: "synthetic" or "industrial", the two columns of Table 2.
      size: Height and width of the images, multiples of 16.
      channels: Channels of the images.
      n_z: Length of the code.
      width: Channels of the layers as a multiple of the paper's.
    """

    variant: str
    size: tuple[int, int]
    channels: int
    n_z: int
    width: float = 1.0

    def setup(self) -> None:
        """Name the two halves, so that other methods can regularise or replace one."""
        self.encoder = Encoder(self.variant, self.n_z, width=self.width)
        self.decoder = Decoder(self.variant, self.size, self.channels, self.width)

    def encode(self, images: Float[Array, "b h w c"]) -> Float[Array, "b n_z"]:
        """Return the code."""
        (code,) = self.encoder(images)
        return code

    def __call__(self, images: Float[Array, "b h w c"]) -> dict[str, Array]:
        """Return `code` [b, n_z] and `reconstruction` [b, h, w, c] in (0, 1)."""
        code = self.encode(images)
        return {"code": code, "reconstruction": self.decoder(code)}


def drawn(
    mean: Float[Array, "b n_z"],
    log_variance: Float[Array, "b n_z"],
    noise: Float[Array, "b n_z"] | None,
    decoder: Callable[[Float[Array, "b n_z"]], Float[Array, "b h w c"]],
) -> dict[str, Array]:
    """Draw a VAE's code with the given noise, decode it, and return all arrays by name."""
    code = mean if noise is None else mean + jnp.exp(0.5 * log_variance) * noise  # eq. 6
    return {
        "mean": mean,
        "log_variance": log_variance,
        "code": code,
        "reconstruction": decoder(code),
    }


class VAE(nn.Module):
    """Variational form of `CAE`, with one head each for the code's mean and log σ².

    It has 102 500 parameters more.

    Attributes:
      variant: "synthetic" or "industrial", the two columns of Table 2.
      size: Height and width of the images, multiples of 16.
      channels: Channels of the images.
      n_z: Length of the code.
      width: Channels of the layers as a multiple of the paper's.
    """

    variant: str
    size: tuple[int, int]
    channels: int
    n_z: int
    width: float = 1.0

    def setup(self) -> None:
        """Define the encoder and the decoder."""
        self.encoder = Encoder(self.variant, self.n_z, (MEAN, LOG_VARIANCE), self.width)
        self.decoder = Decoder(self.variant, self.size, self.channels, self.width)

    def __call__(
        self, images: Float[Array, "b h w c"], noise: Float[Array, "b n_z"] | None
    ) -> dict[str, Array]:
        """Return `mean`, `log_variance` and `code` [b, n_z], and `reconstruction` in (0, 1).

        Args:
          images: Images [b, h, w, c] in [0, 1].
          noise: Samples of N(0, 1) with which the code is drawn. None gives the mean code.
        """
        return drawn(*self.encoder(images), noise, self.decoder)


class Critic(nn.Module):
    """Critic of Table 4, with leaky ReLU on both layers and 1 021 parameters at n_z = 100."""

    @nn.compact
    def __call__(self, code: Float[Array, "b n_z"]) -> Float[Array, " b"]:
        """Return one value for each code, higher for codes that resemble samples of the prior."""
        x = _activate(nn.Dense(10, name="lind1")(code))
        return _activate(nn.Dense(1, name="lind2")(x))[:, 0]
