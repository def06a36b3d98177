"""The network of `l2_ae`, `ssim_ae` and `ssim_l1` in PyTorch, for benchmarks/inference.py.

Images are float32 [b, c, h, w]. For 4x4 kernels that halve or double the resolution, "SAME" pads
both sides equally, like PyTorch's `padding=1`, so nothing has to be rotated as in torch_cae.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import PyTree

from benchmarks.peers.torch_cae import linear, load
from recon_ad.models.bergmann import CODE_CHANNELS, DECODER, DOWNSCALING, ENCODER, SLOPE


class BergmannAE(torch.nn.Module):
    """The network with the parameters of `recon_ad.models.bergmann.BergmannAE`."""

    def __init__(self, size: tuple[int, int], params: PyTree):
        super().__init__()
        self.grid = [side // DOWNSCALING for side in size]
        encoder, decoder = params["encoder"], params["decoder"]
        self.encoder = torch.nn.ModuleList(
            conv(encoder[f"conv{i}"], stride=stride)
            for i, (_, stride) in enumerate(ENCODER, start=1)
        )
        self.to_code, self.from_code = linear(encoder["conv9"]), linear(decoder["deconv1"])
        strides = [stride for _, stride in DECODER] + [2]
        self.decoder = torch.nn.ModuleList(
            (conv_transpose if stride == 2 else conv)(decoder[f"deconv{i}"])
            for i, stride in enumerate(strides, start=2)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction."""
        x = 4.0 * (images - 0.5)
        for layer in self.encoder:
            x = F.leaky_relu(layer(x), SLOPE)
        x = self.from_code(self.to_code(x.permute(0, 2, 3, 1).flatten(1)))
        x = x.unflatten(1, (*self.grid, CODE_CHANNELS)).permute(0, 3, 1, 2)
        for layer in self.decoder:
            x = layer(F.leaky_relu(x, SLOPE))
        return torch.sigmoid(x)


def conv(params: PyTree, *, stride: int = 1) -> torch.nn.Conv2d:
    """Convert a `recon_ad.models.layers.Conv` with a 3x3 kernel, or a 4x4 one with stride 2."""
    kernel = np.asarray(params["kernel"]).transpose(3, 2, 0, 1)
    layer = torch.nn.Conv2d(*kernel.shape[1::-1], kernel.shape[2], stride, padding=1)
    return load(layer, kernel, params["bias"])


def conv_transpose(params: PyTree) -> torch.nn.ConvTranspose2d:
    """Convert a `recon_ad.models.layers.UpConv` with a 4x4 kernel."""
    # PyTorch's kernel is that of the gradient, rotated by 180 degrees relative to JAX's.
    kernel = np.asarray(params["kernel"])[::-1, ::-1].transpose(2, 3, 0, 1)
    layer = torch.nn.ConvTranspose2d(*kernel.shape[:2], 4, 2, padding=1)
    return load(layer, kernel, params["bias"])
