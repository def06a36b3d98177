"""The "standard" convolutional autoencoder (Schneider et al. 2022, section 2.1).

The loss is the mean squared error (eq. 3). The anomaly map is the squared residual (eq. 1),
averaged over channels.
"""

import functools
from collections.abc import Sequence

from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base, reconstruction
from recon_ad.methods.reconstruction import Images
from recon_ad.models.cae import CAE, DOWNSCALING, ENCODERS


def check_settings(config: ConfigDict, *, others: Sequence[str] = ()) -> None:
    """Check the settings that the networks of Schneider et al. 2022 need.

    Args:
      config: Config of the run.
      others: Further variants of the method, for the message.

    Raises:
      UserError: If the patch size is not a multiple of 16, the code has no length, or the variant
        is unknown.
    """
    base.check_patch_size(config, multiple=DOWNSCALING)
    base.check_code(config)
    variant = config.method.variant
    if variant not in ENCODERS:
        raise UserError(
            f"unknown config.method.variant {variant!r}; choose one of: "
            f"{', '.join([*ENCODERS, *others])}."
        )


def losses(
    params: PyTree, images: Images, key: Key[Array, ""] | None, *, model: CAE
) -> dict[str, Float[Array, " b"]]:
    """Return the mean squared error per image (eq. 3, averaged over channels too)."""
    del key  # nothing is random here
    out = model.apply({"params": params}, images)
    return {"loss": reconstruction.mean_squared_error(images, out["reconstruction"])}


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """Build the method for patches of `config.data.patch_size` with this number of channels.

    Raises:
      UserError: See `check_settings`.
    """
    check_settings(config)
    size = config.data.patch_size
    model = CAE(
        config.method.variant, (size, size), channels, config.method.n_z, config.method.width
    )

    def init(key: Key[Array, ""], images: Images) -> PyTree:
        return model.init(key, images)["params"]

    return reconstruction.build(
        config,
        init=init,
        losses=functools.partial(losses, model=model),
        reconstruct=lambda variables, images: model.apply(variables, images)["reconstruction"],
        encode=lambda variables, images: model.apply(variables, images, method="encode"),
    )
