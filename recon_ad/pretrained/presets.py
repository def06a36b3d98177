"""Presets of encoders by their names in timm."""

from collections.abc import Mapping
from typing import NamedTuple

from recon_ad.errors import UserError
from recon_ad.models.spec import Spec

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Width and heads, depth.
SIZES = {
    "tiny": (192, 3, 12),
    "small": (384, 6, 12),
    "base": (768, 12, 12),
    "large": (1024, 16, 24),
}


class Preset(NamedTuple):
    """Available encoder.

    Attributes:
      spec: Shape of the encoder.
      mean: Mean of the three channels, by which images in [0, 1] are normalised.
      std: Standard deviation of the three channels, by which images are normalised.
      hub: Repository on the Hugging Face hub.
      licence: Licence of the weights there.
    """

    spec: Spec
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    hub: str
    licence: str


def _preset(
    name: str,
    tag: str,
    *,
    px: int,
    patch: int = 16,
    normalised: tuple[tuple[float, float, float], ...] = IMAGENET,
    **more: bool | int,
) -> tuple[str, Preset]:
    width, heads, depth = SIZES[name.split("_")[1]]
    spec = Spec(patch, width, depth, heads, px // patch, **more)
    hub = f"timm/{name.removesuffix(f'_{tag}')}.{tag}"
    return name, Preset(spec, *normalised, hub, "Apache-2.0")


_DEIT = ("tiny", "small", "base")
_DINOV2 = ("small", "base", "large")
# fmt: off
PRESETS: Mapping[str, Preset] = dict([
    *(_preset(f"deit_{s}_patch16_224", "fb_in1k", px=224) for s in _DEIT),
    _preset("deit_base_patch16_384", "fb_in1k", px=384),
    *(_preset(f"deit_{s}_distilled_patch16_224", "fb_in1k", px=224, distilled=True) for s in _DEIT),
    _preset("deit_base_distilled_patch16_384", "fb_in1k", px=384, distilled=True),
    *(_preset(f"vit_{s}_patch16_224", "augreg_in21k_ft_in1k", px=224, normalised=HALVES)
      for s in SIZES),
    *(_preset(f"vit_{s}_patch{p}_224_dino", "dino", px=224, patch=p)
      for s in ("small", "base") for p in (8, 16)),
    *(_preset(f"vit_{s}_patch14_dinov2", "lvd142m", px=518, patch=14, layer_scale=True)
      for s in _DINOV2),
    *(_preset(f"vit_{s}_patch14_reg4_dinov2", "lvd142m", px=518, patch=14, layer_scale=True,
              registers=4) for s in _DINOV2),
])
# fmt: on


def preset(name: str) -> Preset:
    """Return the preset with this name.

    Raises:
      UserError: If the name is unknown.
    """
    if name not in PRESETS:
        raise UserError(
            f"unknown encoder {name!r} (config.encoder.name); choose one of: {', '.join(PRESETS)}."
        )
    return PRESETS[name]
