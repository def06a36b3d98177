"""A text table of the encoders and the location of their weights, and the verification of files."""

import math

from recon_ad.pretrained import presets
from recon_ad.pretrained.hub import cached
from recon_ad.pretrained.names import expected
from recon_ad.pretrained.weights import read_encoder


def parameters(name: str) -> int:
    """Return the number of an encoder's parameters, without a head."""
    spec = presets.preset(name).spec
    shapes = expected(spec, 0 if spec.registers else spec.prefix)
    return sum(math.prod(shape) for shape in shapes.values())


def encoder_table() -> str:
    """Return one line for each encoder: its size, its licence, and the location of its weights."""
    width = max(map(len, presets.PRESETS))
    lines = [f"{'name':{width}}  parameters  patch  image     size  licence     weights"]
    for name, one in presets.PRESETS.items():
        count, side, file = parameters(name), one.spec.patch * one.spec.grid, cached(name)
        # A file that is not in the cache has four bytes per number, as timm publishes it.
        size = file.stat().st_size if file else 4 * count
        lines.append(
            f"{name:{width}}  {count / 1e6:8.1f} M  {one.spec.patch:2} px {side:3} px  "
            f"{size / 1e6:4.0f} MB  {one.licence}  {'in the cache' if file else 'on the hub'}"
        )
    return "\n".join(lines)


def verified(name: str, weights: str) -> str:
    """Read an encoder's weights and return a line that describes them.

    Args:
      name: Name in `PRESETS`.
      weights: Weights as for `read_encoder`.

    Raises:
      UserError: If the weights cannot be read (`read_encoder`).
    """
    read = read_encoder(name, weights)
    return f"{read.file}: {name}, {parameters(name):,} parameters, SHA-256 {read.sha256}"
