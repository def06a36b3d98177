"""The CAE in PyTorch, for benchmarks/frameworks and benchmarks/inference.py.

It is the same network, as fast as eager PyTorch allows. Images are float32 [b, c, h, w] in
channels_last. Images and kernels are rotated by 180 degrees: "SAME" pads even sizes only at the
end, for which PyTorch would have to copy the image. After the rotation the padding is at the
beginning, like PyTorch's `padding=1`.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, PyTree

from recon_ad.models.cae import CODE_CHANNELS, DECODERS, DOWNSCALING, ENCODERS, SLOPE


class CAE(torch.nn.Module):
    """The network with the parameters of `recon_ad.models.cae.CAE`, for images of h x w."""

    def __init__(self, variant: str, size: tuple[int, int], params: PyTree):
        super().__init__()
        self.grid = [side // DOWNSCALING for side in size]
        encoder, decoder = params["encoder"], params["decoder"]
        self.encoder = torch.nn.ModuleList(
            _conv(encoder[f"conv{i}"], stride=stride)
            for i, (_, stride) in enumerate(ENCODERS[variant], start=1)
        )
        self.decoder = torch.nn.ModuleList(
            _conv_transpose(decoder[f"deconv{i}"]) if stride == 2 else _conv(decoder[f"deconv{i}"])
            for i, (_, stride) in enumerate((*DECODERS[variant], (1, 1)), start=1)
        )
        self.times = [stride if stride > 2 else 1 for _, stride in (*DECODERS[variant], (1, 1))]
        # The dense layers expect the pixels in the original order.
        turned = np.arange(CODE_CHANNELS * self.grid[0] * self.grid[1])
        turned = turned.reshape(*self.grid, CODE_CHANNELS)[::-1, ::-1].reshape(-1)
        lin1, lin4 = encoder["lin1"], decoder["lin4"]
        self.lin1 = linear({"kernel": lin1["kernel"][turned], "bias": lin1["bias"]})
        self.lin2, self.lin3 = linear(encoder["lin2"]), linear(decoder["lin3"])
        self.lin4 = linear({"kernel": lin4["kernel"][:, turned], "bias": lin4["bias"][turned]})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction."""
        x = images
        for layer in self.encoder:
            # The windows of stride 4 skip one row and column.
            x = _activate(layer(x[:, :, 1:, 1:] if layer.stride == (4, 4) else x))
        x = x.permute(0, 2, 3, 1).flatten(1)
        x = _activate(self.lin3(self.lin2(_activate(self.lin1(x)))))
        x = _activate(self.lin4(x)).unflatten(1, (*self.grid, CODE_CHANNELS)).permute(0, 3, 1, 2)
        for i, (layer, times) in enumerate(zip(self.decoder, self.times, strict=True)):
            if times > 1:
                x = F.interpolate(x, scale_factor=times, mode="nearest")
            x = layer(x)
            x = _activate(x) if i + 1 < len(self.decoder) else torch.sigmoid(x)
        return x


def _activate(x):
    return F.leaky_relu(x, SLOPE)


def load(
    layer: torch.nn.Module, weight: Float[np.ndarray, "..."], bias: Float[np.ndarray, " o"]
) -> torch.nn.Module:
    """Set a layer's weight, in PyTorch's axis order, and its bias."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(weight)))
        layer.bias.copy_(torch.from_numpy(np.array(bias)))
    return layer


def _conv(params, stride=1):
    kernel = np.asarray(params["kernel"])[::-1, ::-1].transpose(3, 2, 0, 1)
    layer = torch.nn.Conv2d(
        kernel.shape[1], kernel.shape[0], 3, stride, padding=0 if stride == 4 else 1
    )
    return load(layer, kernel, params["bias"])


def _conv_transpose(params):
    # PyTorch's kernel is that of the gradient, rotated relative to JAX's. Rotating it again gives
    # JAX's kernel.
    kernel = np.asarray(params["kernel"]).transpose(2, 3, 0, 1)
    layer = torch.nn.ConvTranspose2d(
        kernel.shape[0], kernel.shape[1], 3, 2, padding=1, output_padding=1
    )
    return load(layer, kernel, params["bias"])


def linear(params: PyTree) -> torch.nn.Linear:
    """Convert one of our dense layers."""
    kernel = np.asarray(params["kernel"]).T
    return load(torch.nn.Linear(kernel.shape[1], kernel.shape[0]), kernel, params["bias"])
