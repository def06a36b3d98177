"""Which encoders there are and whether their weights are here, as text; files are verified."""

import math

from recon_ad.pretrained import presets
from recon_ad.pretrained.hub import cached
from recon_ad.pretrained.names import expected
from recon_ad.pretrained.weights import read_encoder


def parameters(name: str) -> int:
    """Returns how many numbers an encoder has, without a head."""
    spec = presets.preset(name).spec
    shapes = expected(spec, 0 if spec.registers else spec.prefix)
    return sum(math.prod(shape) for shape in shapes.values())


def encoder_table() -> str:
    """Returns a line for each encoder: its size, its licence, and where its weights are."""
    width = max(map(len, presets.PRESETS))
    lines = [f"{'name':{width}}  parameters  patch  image     size  licence     weights"]
    for name, one in presets.PRESETS.items():
        count, side, file = parameters(name), one.spec.patch * one.spec.grid, cached(name)
        # A file that is not here has four bytes a number, as timm publishes them.
        size = file.stat().st_size if file else 4 * count
        lines.append(
            f"{name:{width}}  {count / 1e6:8.1f} M  {one.spec.patch:2} px {side:3} px  "
            f"{size / 1e6:4.0f} MB  {one.licence}  {'in the cache' if file else 'on the hub'}"
        )
    return "\n".join(lines)


def verified(name: str, weights: str) -> str:
    """Reads an encoder's weights and returns, in a line, what was found.

    Args:
      name: in `PRESETS`.
      weights: as `read_encoder` takes them.

    Raises:
      UserError: as `read_encoder`.
    """
    read = read_encoder(name, weights)
    return f"{read.file}: {name}, {parameters(name):,} parameters, SHA-256 {read.sha256}"
