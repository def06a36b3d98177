"""Names the shape of an encoder (`recon_ad.models.vit`), without JAX."""

from typing import NamedTuple

MLP_RATIO = 4  # width of the layers between attentions, in widths of a token


class Spec(NamedTuple):
    """The shape of an encoder.

    Attributes:
      patch: side of a patch in px.
      width: d, length of a token.
      depth: number of blocks.
      heads: of the attention.
      grid: side in patches of the images that it was trained on.
      distilled: whether a distillation token follows the class token.
      registers: number of register tokens.
      layer_scale: whether each branch has a factor for each channel.
    """

    patch: int
    width: int
    depth: int
    heads: int
    grid: int
    distilled: bool = False
    registers: int = 0
    layer_scale: bool = False

    @property
    def prefix(self) -> int:
        """Number of tokens before the patches."""
        return 1 + self.distilled + self.registers
