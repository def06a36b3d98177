"""The network of `dae` in PyTorch, for benchmarks/inference.py.

Images are float32 [b, c, h, w] with sides that are multiples of 16.
"""

import torch
import torch.nn.functional as F
from jaxtyping import PyTree

from benchmarks.peers.torch_bergmann import conv, conv_transpose
from recon_ad.models.dae import SLOPE


class ResidualBlock(torch.nn.Module):
    """A block with the parameters of `recon_ad.models.dae.ResidualBlock`."""

    def __init__(self, params: PyTree):
        super().__init__()
        self.conv1, self.conv2 = conv(params["conv1"]), conv(params["conv2"])
        self.scale = torch.nn.Parameter(torch.tensor(float(params["scale"].item())))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        y = self.conv1(F.leaky_relu(x, SLOPE))
        return x + self.scale * self.conv2(F.leaky_relu(y, SLOPE))


class ResidualAE(torch.nn.Module):
    """The network with the parameters of `recon_ad.models.dae.ResidualAE`, with four halvings."""

    def __init__(self, params: PyTree):
        super().__init__()
        halvings = range(1, 5)
        self.down = torch.nn.ModuleList(conv(params[f"down{i}"], stride=2) for i in halvings)
        self.encode = torch.nn.ModuleList(ResidualBlock(params[f"encode{i}"]) for i in halvings)
        self.to_code, self.from_code = conv(params["code"]), conv(params["decode"])
        self.decode = torch.nn.ModuleList(
            ResidualBlock(params[f"decode{i}"]) for i in reversed(halvings)
        )
        self.up = torch.nn.ModuleList(conv_transpose(params[f"up{i}"]) for i in reversed(halvings))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction."""
        x = images
        for i, (down, block) in enumerate(zip(self.down, self.encode, strict=True)):
            x = block(down(F.leaky_relu(x, SLOPE) if i else x))
        x = self.from_code(self.to_code(F.leaky_relu(x, SLOPE)))
        for block, up in zip(self.decode, self.up, strict=True):
            x = up(F.leaky_relu(block(x), SLOPE))
        return torch.sigmoid(x)
