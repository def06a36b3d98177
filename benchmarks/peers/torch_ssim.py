"""SSIM as it is usually written in PyTorch: five maps filtered by separable convolutions.

Images are float32 [b, c, h, w] in [0, 1]. pytorch-msssim computes the same. Here all five maps are
one batch and the window is a buffer, so that torch.compile and CUDA graphs work.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float

from recon_ad.ops.ssim import K1, K2, window_weights

Images = Float[torch.Tensor, "b c h w"]


class SSIM(torch.nn.Module):
    """The SSIM map for Gaussian windows that lie inside the image.

    Args:
      window: Side of the window in px.
      channels: Number of the images' channels.
    """

    def __init__(self, window: int, channels: int):
        super().__init__()
        side = torch.from_numpy(window_weights(window, kind="gaussian")).float()
        self.register_buffer("column", side.reshape(1, 1, -1, 1).repeat(channels, 1, 1, 1))

    def forward(self, x: Images, y: Images) -> Float[torch.Tensor, "b c h2 w2"]:
        """Return S at each pixel."""
        five, channels = torch.cat([x, y, x * x, y * y, x * y]), x.shape[1]
        five = F.conv2d(five, self.column, groups=channels)
        five = F.conv2d(five, self.column.transpose(2, 3), groups=channels)
        mx, my, xx, yy, xy = five.chunk(5)
        product, squares = mx * my, mx * mx + my * my
        luminance = (2 * product + K1**2) / (squares + K1**2)
        return luminance * (2 * (xy - product) + K2**2) / (xx + yy - squares + K2**2)


class StructuralResidual(torch.nn.Module):
    """The residual (1 − S) / 2 at the images' own size, with mirrored borders.

    Args:
      window: Side of the window in px.
      channels: Number of the images' channels.
      size: Height and width of the images.
    """

    def __init__(self, window: int, channels: int, size: tuple[int, int]):
        super().__init__()
        self.ssim, radius = SSIM(window, channels), window // 2
        for name, side in zip(("rows", "columns"), size, strict=True):
            k = torch.arange(side)
            around = torch.cat([k[:radius].flip(0), k, k[-radius:].flip(0)])
            self.register_buffer(name, around)

    def forward(self, x: Images, y: Images) -> Images:
        """Return the residual of each channel."""
        x, y = (z[:, :, self.rows][..., self.columns] for z in (x, y))
        return (1 - self.ssim(x, y)) / 2
