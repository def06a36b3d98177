"""The denoising autoencoder (Buzzega et al., section 3.2).

Learns to give the clean image for one with Gaussian noise, by the mean squared error; the anomaly
map is the squared residual of the image as it is. The network takes any shape.
"""

import jax
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base, reconstruction
from recon_ad.methods.reconstruction import Images
from recon_ad.models.dae import ResidualAE


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """The method for images with that many channels.

    Raises:
      UserError: the noise is negative, or the network has not four widths and a bottleneck.
    """
    c = config.dae
    if c.noise < 0:
        raise UserError(f"config.dae.noise is {c.noise}; a standard deviation is 0 or more.")
    if len(c.widths) != 4 or min(*c.widths, c.bottleneck) < 1:
        raise UserError(
            f"config.dae.widths is {tuple(c.widths)} and bottleneck {c.bottleneck}; the "
            "network has four widths and a bottleneck, each of 1 channel or more."
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
