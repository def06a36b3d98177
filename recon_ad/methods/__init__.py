"""Training and residual of each method, one file per family.

A method is a `Method` record of pure functions (`methods.base`). Networks are in `models`; loops,
files and devices are elsewhere. A new method needs one file here, one config and one row below. A
user's own method is any module with `build(config, *, channels) -> Method`, named by its import
path. `build` is called once for equal configs, so the record must depend on nothing else.
"""

import difflib
import functools
import importlib
import json
from collections.abc import Callable

from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import aae, bergmann, cae, dae, knn, subspace, vae, vit_flow, vit_recon
from recon_ad.methods.average import averaged
from recon_ad.methods.base import KEPT, Method

# Methods by name, or by import path if they are a user's own (`add_method`).
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

# Methods on the features of a pretrained encoder.
ON_FEATURES = ("knn", "subspace", "vit_flow", "vit_recon")
WITHOUT_LEARNING = ("knn", "subspace")  # their steps only collect features
WITH_ENCODER = (*ON_FEATURES, "fm_ae")  # fm_ae needs the encoder only in training


def build_method(config: ConfigDict, *, channels: int) -> Method:
    """Build the method named by `config.method.name` for images with this number of channels.

    With `config.optim.average` its result has the average of the weights. Equal configs share one
    record, so that JAX compiles its functions once in a process.

    Raises:
      UserError: If the method is unknown, or its settings do not fit.
    """
    check_method(config.method.name)
    return built(METHODS[config.method.name], config.to_json(sort_keys=True), channels)


@functools.lru_cache(maxsize=KEPT)
def built(build: Callable[..., Method], config_json: str, channels: int) -> Method:
    """Build a method from its config as JSON, in which a run and its detector have equal ones."""
    config = ConfigDict(json.loads(config_json))
    method = build(config, channels=channels)
    decay = config.optim.average
    if not decay:
        return method
    if config.method.name in WITHOUT_LEARNING:
        raise UserError(
            f"config.optim.average is {decay}, but {config.method.name} has no weights to average: "
            "set it to 0."
        )
    return averaged(method, decay=decay)


def add_method(path: str) -> None:
    """Register a user's own method, which is named by the import path of its module.

    Importing a module runs its code. Only a user therefore names one: in a config, by `--methods`,
    or by calling this function. Opening a detector never does.

    Args:
      path: Import path such as "my_package.my_method". Its `build` is called like those of this
        package.

    Raises:
      UserError: If the module does not exist or has no `build`.
    """
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # a module that the method's own code needs is missing
        raise UserError(
            f"no module {path}: give the import path of your method, and run the command from the "
            "folder that contains its package."
        ) from None
    if not callable(getattr(module, "build", None)):
        raise UserError(f"the module {path} has no function build(config, *, channels).")
    METHODS[path] = module.build


def use_method(name: str) -> None:
    """Check that the method of a user's own config exists, and import it if it is an import path.

    Raises:
      UserError: If the method is unknown.
    """
    if "." in name:
        add_method(name)
    check_method(name)


def check_method(name: str) -> None:
    """Raise UserError if the method is unknown."""
    if name in METHODS:
        return
    if "." in name:
        raise UserError(
            f"config.method.name is {name}, which is not a built-in method, and its code is only "
            f"run on request: if you trust it, add --methods={name}, or in Python first call "
            f"recon_ad.methods.add_method({name!r})."
        )
    near = difflib.get_close_matches(name, METHODS, n=1)
    guess = f"did you mean {near[0]}? Otherwise " if near else ""
    raise UserError(
        f"unknown method {name!r} (method=, or config.method.name); {guess}choose one of: "
        f"{', '.join(METHODS)}, or give the import path of your own method, such as "
        "my_package.my_method."
    )
