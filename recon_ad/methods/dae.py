"""The denoising autoencoder (Buzzega et al., section 3.2).

The network learns to restore the clean image from one with Gaussian noise, by the mean squared
error. The anomaly map is the squared residual of the image without added noise. The network accepts
any shape.
"""

import jax
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base, reconstruction
from recon_ad.methods.reconstruction import Images
from recon_ad.models.dae import ResidualAE


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """Build the method for images with this number of channels.

    Raises:
      UserError: If the noise is negative, or the network does not have four widths and a
        bottleneck.
    """
    c = config.dae
    if c.noise < 0:
        raise UserError(
            f"config.dae.noise is {c.noise}, but a standard deviation must be 0 or more."
        )
    if len(c.widths) != 4 or min(*c.widths, c.bottleneck) < 1:
        raise UserError(
            f"config.dae.widths is {tuple(c.widths)} and bottleneck {c.bottleneck}, but the "
            "network needs four widths and a bottleneck, each of 1 channel or more."
        )
    model = ResidualAE(channels, tuple(c.widths), c.bottleneck)

    def init(key: Key[Array, ""], images: Images) -> PyTree:
        return model.init(key, images)["params"]

    def losses(
        params: PyTree, images: Images, key: Key[Array, ""] | None
    ) -> dict[str, Float[Array, " b"]]:
        noisy = images if key is None else images + c.noise * jax.random.normal(key, images.shape)
        out = model.apply({"params": params}, noisy)
        return {"loss": reconstruction.mean_squared_error(images, out["reconstruction"])}

    return reconstruction.build(
        config,
        init=init,
        losses=losses,
        reconstruct=lambda variables, images: model.apply(variables, images)["reconstruction"],
        protocol={"noise": c.noise},
    )
