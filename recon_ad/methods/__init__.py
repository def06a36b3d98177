"""How each method learns and what its residual is: one file per family.

A method is a `Method` record of pure functions (`methods.base`); networks are in `models`, loops,
files and devices are elsewhere. A new method is one file here, one config and one row below. One's
own is any module with `build(config, *, channels) -> Method`, named by its import path.
"""

import importlib
from collections.abc import Callable

from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import aae, bergmann, cae, dae, knn, subspace, vae, vit_flow, vit_recon
from recon_ad.methods.base import Method

# By name, or by import path where it is a user's own (`add_method`).
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
    "subspace": subspace.build,
    "vit_flow": vit_flow.build,
    "vit_recon": vit_recon.build,
}

# Those that look at what a pretrained encoder makes of an image.
ON_FEATURES = ("knn", "subspace", "vit_flow", "vit_recon")
WITH_ENCODER = (*ON_FEATURES, "fm_ae")  # fm_ae needs it in training only


def build_method(config: ConfigDict, *, channels: int) -> Method:
    """The method that `config.method.name` asks for, for images with that many channels.

    Raises:
      UserError: there is no such method, or its settings do not fit.
    """
    check_method(config.method.name)
    return METHODS[config.method.name](config, channels=channels)


def add_method(path: str) -> None:
    """Makes a user's own method known, which is named by the import path of its module.

    Importing a module runs it. So only a user names one: in a config, by `--methods`, or by calling
    this. A detector that is opened does not.

    Args:
      path: such as "my_package.my_method", whose `build` is called as those of this package are.

    Raises:
      UserError: there is no such module, or it has no `build`.
    """
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # one that the method's own code misses
        raise UserError(
            f"there is no module {path}: give the import path of your method, and run the command "
            "from the folder that its package is in."
        ) from None
    if not callable(getattr(module, "build", None)):
        raise UserError(f"the module {path} has no function build(config, *, channels).")
    METHODS[path] = module.build


def use_method(name: str) -> None:
    """Makes sure of the method that a user's own config names, which may be an import path.

    Raises:
      UserError: there is no such method.
    """
    if "." in name:
        add_method(name)
    check_method(name)


def check_method(name: str) -> None:
    """Raises UserError where there is no such method."""
    if name in METHODS:
        return
    if "." in name:
        raise UserError(
            f"config.method.name is {name}, a method of someone's own, whose code is not run "
            f"unasked: if you trust it, add --methods={name}, or in Python call "
            f"recon_ad.methods.add_method({name!r}) before."
        )
    raise UserError(
        f"config.method.name is {name!r}, which is no method here; choose one of: "
        f"{', '.join(METHODS)}. One of your own is in a package, as my_package.my_method."
    )
