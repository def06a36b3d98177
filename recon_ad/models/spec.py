"""The shape of an encoder (`recon_ad.models.vit`), without JAX."""

from typing import NamedTuple

MLP_RATIO = 4  # width of the layers between attentions, as a multiple of a token's width


class Spec(NamedTuple):
    """Shape of an encoder.

    Attributes:
      patch: Side of a patch in px.
      width: Length of a token, d.
      depth: Number of blocks.
      heads: Number of heads of the attention.
      grid: Side in patches of the images that it was trained on.
      distilled: Whether a distillation token follows the class token.
      registers: Number of register tokens.
      layer_scale: Whether each branch has a factor for each channel.
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
