"""Mean SSIM by others, each imported where it is asked for: not every machine has all of them.

Gaussian window of 11 px, windows inside the image only. JAX's take NHWC, PyTorch's NCHW, float32 in
[0, 1].
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
    """Somebody's SSIM.

    Attributes:
      framework: "jax" or "torch", whose arrays it takes.
      package: that it needs, as it is imported; "" for none.
      mean: () -> its mean of two batches; imports the package.
    """

    framework: str
    package: str
    mean: Callable[[], Mean]

    @property
    def there(self) -> bool:
        """Whether it can be asked."""
        return not self.package or importlib.util.find_spec(self.package) is not None


def ours(x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]) -> Array:
    """recon_ad's."""
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
        # Of its map without the border, where it reflects.
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
