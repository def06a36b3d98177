"""Others' mean SSIM. Each package is imported only when needed, because it may be missing.

The window is a Gaussian of 11 px, and only windows inside the image count. JAX's functions take
NHWC and PyTorch's NCHW, both float32 in [0, 1].
"""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Array, Float

from recon_ad.ops.ssim import ssim_map

WINDOW = 11

Images = Float[torch.Tensor, "b c h w"]
Mean = Callable[..., Array | torch.Tensor]


class Peer(NamedTuple):
    """An implementation of SSIM.

    Attributes:
      framework: Framework whose arrays it takes, "jax" or "torch".
      package: Import name of the package that it needs; "" for none.
      mean: Function that imports the package and returns its mean SSIM of two batches.
    """

    framework: str
    package: str
    mean: Callable[[], Mean]

    @property
    def there(self) -> bool:
        """True if its package is installed."""
        return not self.package or importlib.util.find_spec(self.package) is not None


def ours(x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]) -> Array:
    """Compute the mean SSIM of recon_ad."""
    options = {"data_range": 1.0, "window": WINDOW, "kind": "gaussian", "border": "valid"}
    return ssim_map(x, y, **options).mean()


def _dm_pix() -> Mean:
    import dm_pix

    return lambda x, y: dm_pix.ssim(x, y, filter_size=WINDOW, return_map=True).mean()


def _torchmetrics() -> Mean:
    import benchmarks.peers.torchvision_operators  # noqa: F401

    # isort: split
    from torchmetrics.functional.image import structural_similarity_index_measure

    def mean(x: Images, y: Images) -> torch.Tensor:
        # The mean of the map without the border, where torchmetrics mirrors the image.
        _, full = structural_similarity_index_measure(x, y, data_range=1.0, return_full_image=True)
        edge = WINDOW // 2
        return full[..., edge:-edge, edge:-edge].mean()

    return mean


def _kornia() -> Mean:
    import kornia

    return lambda x, y: kornia.metrics.ssim(x, y, WINDOW, padding="valid").mean()


def _msssim() -> Mean:
    import pytorch_msssim

    return functools.partial(pytorch_msssim.ssim, data_range=1.0, win_size=WINDOW)


PEERS: Mapping[str, Peer] = {
    "recon_ad": Peer("jax", "", lambda: ours),
    "dm_pix": Peer("jax", "dm_pix", _dm_pix),
    "torchmetrics": Peer("torch", "torchmetrics", _torchmetrics),
    "kornia": Peer("torch", "kornia", _kornia),
    "pytorch_msssim": Peer("torch", "pytorch_msssim", _msssim),
}
