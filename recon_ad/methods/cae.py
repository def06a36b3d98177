"""The "standard" convolutional autoencoder (Schneider et al. 2022, section 2.1).

Learns by the mean squared error (eq. 3); the anomaly map is the squared residual (eq. 1), averaged
over channels.
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
    """What the networks of Schneider et al. 2022 need.

    Args:
      config: of the method.
      others: variants that the method has beside theirs, for the message.

    Raises:
      UserError: the patch size is not a multiple of 16, the code has no length, or there is no
        such variant.
    """
    base.check_patch_size(config, multiple=DOWNSCALING)
    base.check_code(config)
    variant = config.method.variant
    if variant not in ENCODERS:
        raise UserError(
            f"config.method.variant is {variant!r}; choose one of "
            f"{', '.join([*ENCODERS, *others])}."
        )


def losses(
    params: PyTree, images: Images, key: Key[Array, ""] | None, *, model: CAE
) -> dict[str, Float[Array, " b"]]:
    """The mean squared error per image (eq. 3, averaged over channels too)."""
    del key  # nothing is random here
    out = model.apply({"params": params}, images)
    return {"loss": reconstruction.mean_squared_error(images, out["reconstruction"])}


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """The method for patches of `config.data.patch_size` with that many channels.

    Raises:
      UserError: see `check_settings`.
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
