"""How each method learns and what its residual is: one file per family.

A method is a `Method` record of pure functions (`methods.base`); networks are in `models`, loops,
files and devices are elsewhere. A new method is one file here, one config and one row below.
"""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import aae, bergmann, cae, dae, knn, vae, vit_flow, vit_recon
from recon_ad.methods.base import Method

# Code outside adds its own, as examples/linear_ae.py does.
METHODS: dict[str, Callable[..., Method]] = {
    "cae": cae.build,
    "vae": vae.build,
    "aae": aae.build,
    "l2_ae": bergmann.build_l2,
    "ssim_ae": bergmann.build_ssim,
    "ssim_l1": bergmann.build_ssim_l1,
    "fm_ae": bergmann.build_fm,
    "dae": dae.build,
    "knn": knn.build,
    "vit_flow": vit_flow.build,
    "vit_recon": vit_recon.build,
}

# Those that look at what a pretrained encoder makes of an image, seen whole (configs/vit.py).
ON_FEATURES = ("knn", "vit_flow", "vit_recon")
WITH_ENCODER = (*ON_FEATURES, "fm_ae")  # fm_ae needs it in training only

# Fields of `config.method` that some methods only read: to the others they make no difference.
READ_BY: Mapping[str, tuple[str, ...]] = {
    "width": ("cae", "vae", "aae", "l2_ae", "ssim_ae", "ssim_l1", "fm_ae"),
    "kl_weight": ("vae",),
    "critic_steps": ("aae",),
    "critic_clip": ("aae",),
    "encoder_rate": ("aae",),
    "ssim_threshold": ("ssim_l1",),
    "l1_threshold": ("ssim_l1",),
    "feature_weight": ("fm_ae",),
    "noise": ("dae",),
    "widths": ("dae",),
    "bottleneck": ("dae",),
    "memory": ("knn",),
    "coreset": ("knn",),
    "flow_steps": ("vit_flow",),
    "flow_coupling": ("vit_flow",),
    "flow_ratio": ("vit_flow",),
}


def build_method(config: ConfigDict, *, channels: int) -> Method:
    """The method that `config.method.name` asks for, for images with that many channels.

    Raises:
      UserError: there is no such method, or its settings do not fit.
    """
    check_method(config.method.name)
    return METHODS[config.method.name](config, channels=channels)


def check_method(name: str) -> None:
    """Raises UserError where there is no such method."""
    if name not in METHODS:
        raise UserError(
            f"config.method.name is {name!r}, which is no method here; "
            f"choose one of: {', '.join(METHODS)}."
        )
