"""A detector in PyTorch, from decoded images to masks and without JAX, for benchmarks/inference.py.

It does what our detectors do, as a user of PyTorch would write it. All tiles of all images are one
batch.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped


class Settings(NamedTuple):
    """Settings of the processing before and after the network.

    Attributes:
      tile: Side of a tile in px.
      corners: Top left corners of an image's tiles.
      tile_weights: Weights of a tile's pixels where tiles overlap.
      turned: Whether the network takes images rotated by 180 degrees (see torch_cae).
      weights: Weights of the residual maps, as in `config.residual`.
      map_thresholds: Thresholds of `ssim_l1` for 1 − S and |x − x̃|; None for other methods.
      ssim_window: Side of the SSIM window in px.
      smoothing: One-dimensional Gaussian window.
      score: Rule of the image score, "max" or "sum".
      image_threshold: Threshold of the score.
      pixel_threshold: Threshold of the map.
    """

    tile: int
    corners: list[tuple[int, int]]
    tile_weights: Float[torch.Tensor, "t t"]
    turned: bool
    weights: dict[str, float]
    map_thresholds: tuple[float, float] | None
    ssim_window: int
    smoothing: Float[torch.Tensor, " k"]
    score: str
    image_threshold: float
    pixel_threshold: float


class Judged(NamedTuple):
    """Score, label, anomaly map and mask of each image."""

    score: Float[torch.Tensor, " n"]
    label: Bool[torch.Tensor, " n"]
    anomaly_map: Float[torch.Tensor, "n h w"]
    mask: Bool[torch.Tensor, "n h w"]


class TorchDetector:
    """A network with its pre- and postprocessing, for images of one size and one channel."""

    def __init__(self, network: torch.nn.Module, settings: Settings, *, size: tuple[int, int]):
        self.network = network.eval().to(memory_format=torch.channels_last)
        self.settings = settings
        # For whole images the normalisation is always the same.
        self.share = self._filtered(torch.ones(1, 1, *size))
        places = len(settings.corners)
        self.weight = self._sum(settings.tile_weights.expand(1, places, -1, -1), size)

    @torch.no_grad()  # inference tensors cannot be compiled
    def __call__(self, images: Shaped[torch.Tensor, "n h w 1"]) -> Judged:
        """Judge 8-bit images."""
        s, (n, h, w, _) = self.settings, images.shape
        tiles = [images[:, y : y + s.tile, x : x + s.tile] for y, x in s.corners]
        tiles = torch.stack(tiles, 1).view(-1, 1, s.tile, s.tile).float() / 255
        if s.turned:
            tiles = tiles.flip(2, 3)
        # With one channel both memory formats are equal, so channels_last must be set explicitly.
        tiles = tiles.contiguous(memory_format=torch.channels_last)
        residual = self.residual(tiles, self.network(tiles))
        if s.turned:
            residual = residual.flip(2, 3)
        weighted = residual.view(n, -1, s.tile, s.tile) * s.tile_weights
        whole = self._sum(weighted, (h, w)) / self.weight
        maps = (self._filtered(whole[:, None]) / self.share)[:, 0]
        scores = maps.amax((1, 2)) if s.score == "max" else maps.sum((1, 2))
        return Judged(scores, scores > s.image_threshold, maps, maps > s.pixel_threshold)

    def residual(
        self, x: Float[torch.Tensor, "b 1 H W"], y: Float[torch.Tensor, "b 1 H W"]
    ) -> Float[torch.Tensor, "b 1 H W"]:
        """Return the residual maps of tiles and reconstructions."""
        s = self.settings
        if s.map_thresholds:
            of_ssim, of_l1 = s.map_thresholds
            structural = structural_residual(x, y, window=s.ssim_window)
            return torch.maximum(2 * structural / of_ssim, (x - y).abs() / of_l1)
        maps = {
            "squared": lambda: (x - y) ** 2,
            "absolute": lambda: (x - y).abs(),
            "ssim": lambda: structural_residual(x, y, window=s.ssim_window),
        }
        return sum(weight * maps[name]() for name, weight in s.weights.items() if weight)

    def _sum(
        self, values: Float[torch.Tensor, "n p t t"], size: tuple[int, int]
    ) -> Float[torch.Tensor, "n h w"]:
        """Add up overlapping tiles."""
        total, side = values.new_zeros(len(values), *size), self.settings.tile
        for i, (y, x) in enumerate(self.settings.corners):
            total[:, y : y + side, x : x + side] += values[:, i]
        return total

    def _filtered(self, maps: Float[torch.Tensor, "n 1 h w"]) -> Float[torch.Tensor, "n 1 h w"]:
        window = self.settings.smoothing
        radius = len(window) // 2
        maps = F.conv2d(maps, window.view(1, 1, -1, 1), padding=(radius, 0))
        return F.conv2d(maps, window.view(1, 1, 1, -1), padding=(0, radius))


def structural_residual(
    x: Float[torch.Tensor, "b 1 H W"], y: Float[torch.Tensor, "b 1 H W"], *, window: int
) -> Float[torch.Tensor, "b 1 H W"]:
    """Compute (1 − S) / 2 with kornia, the fastest of the others without a gradient."""
    from kornia.metrics import ssim  # only some methods need it, and it takes memory

    radius = window // 2
    around = [
        torch.cat([k[:radius].flip(0), k, k[-radius:].flip(0)])
        for k in (torch.arange(side) for side in x.shape[2:])
    ]
    x, y = (z[:, :, around[0]][..., around[1]].contiguous() for z in (x, y))
    return (1 - ssim(x, y, window, padding="valid")) / 2


def save(file: Path, network: torch.nn.Module, settings: Settings) -> None:
    """Save the network as a trace, so that opening it does not import the modules that use JAX."""
    torch.save((torch.fx.symbolic_trace(network), settings), file)


def load(file: Path, *, size: tuple[int, int]) -> TorchDetector:
    """Load what `save` wrote, for images of that height and width."""
    network, settings = torch.load(file, weights_only=False)
    return TorchDetector(network, settings, size=size)
