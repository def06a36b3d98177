"""How each method learns and what its residual is: one file per family.

A method is a `Method` record of pure functions (`methods.base`); networks are in `models`, loops,
files and devices are elsewhere. A new method is one file here, one config and one row below.
"""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import aae, bergmann, cae, dae, vae
from recon_ad.methods.base import Method

METHODS: Mapping[str, Callable[..., Method]] = {
    "cae": cae.build,
    "vae": vae.build,
    "aae": aae.build,
    "l2_ae": bergmann.build_l2,
    "ssim_ae": bergmann.build_ssim,
    "ssim_l1": bergmann.build_ssim_l1,
    "dae": dae.build,
}


def build_method(config: ConfigDict, *, channels: int) -> Method:
    """The method that `config.method.name` asks for, for images with that many channels.

    Raises:
      UserError: there is no such method, or its settings do not fit.
    """
    name = config.method.name
    if name not in METHODS:
        raise UserError(
            f"config.method.name is {name!r}, which is no method here; "
            f"choose one of: {', '.join(METHODS)}."
        )
    return METHODS[name](config, channels=channels)
