"""The variational autoencoder (Schneider et al. 2022, section 2.2).

The networks are theirs or, for the variant "bergmann", that of Bergmann et al. 2019.

The encoder returns the mean and the logarithm of the variance of each number of the code; the
decoder receives a sample of it (eq. 6). The loss adds the Kullback-Leibler divergence from N(0, I)
(eq. 5), summed over the code, to the mean squared error, averaged over pixels and channels.
Held-out losses, the reconstruction and the residual use the mean code.

Since the squared error is averaged over H·W·C numbers, a weight of 1 for the divergence (eq. 4 as
printed) would be the likelihood of a Gaussian with the variance H·W·C / 2 at each pixel, tens of
thousands of times all the variance of the image. With the weight 1/(H·W·C), the loss is that of a
Gaussian with variance 1/2.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base, bergmann, cae, reconstruction
from recon_ad.methods.reconstruction import Images
from recon_ad.models.bergmann import BergmannVAE
from recon_ad.models.cae import VAE

BERGMANN = "bergmann"  # a further variant beside those of `models.cae`


def divergence(
    mean: Float[Array, "b n_z"], log_variance: Float[Array, "b n_z"]
) -> Float[Array, " b"]:
    """Compute the KL divergence of N(μ, diag σ²) from N(0, I), in nats (eq. 5).

    It is −½ Σ (1 + log σ² − μ² − σ²).
    """
    terms = 1.0 + log_variance - mean**2 - jnp.exp(log_variance)
    return -0.5 * jnp.sum(terms, axis=1)


def kl_weight(config: ConfigDict, *, channels: int) -> float:
    """Return the weight of the divergence in the loss: the config's, or 1/(H·W·C).

    Raises:
      UserError: If the weight is negative.
    """
    weight = config.vae.kl_weight
    if weight is None:
        return 1 / (config.data.patch_size**2 * channels)
    if weight < 0:
        raise UserError(
            f"config.vae.kl_weight is {weight}; give 0 or more, or leave it out for 1/(H·W·C)."
        )
    return float(weight)


def build(config: ConfigDict, *, channels: int) -> base.Method:
    """Build the method for patches of `config.data.patch_size` with this number of channels.

    Raises:
      UserError: If the settings do not fit (`cae.check_settings`) or the weight of the divergence
        is negative.
    """
    size, n_z = config.data.patch_size, config.method.n_z
    weight = kl_weight(config, channels=channels)
    if config.method.variant == BERGMANN:
        bergmann.check_settings(config)
        model = BergmannVAE((size, size), channels, n_z, config.method.width)
    else:
        cae.check_settings(config, others=[BERGMANN])
        model = VAE(config.method.variant, (size, size), channels, n_z, config.method.width)

    def init(key: Key[Array, ""], images: Images) -> PyTree:
        return model.init(key, images, None)["params"]

    def losses(
        params: PyTree, images: Images, key: Key[Array, ""] | None
    ) -> dict[str, Float[Array, " b"]]:
        noise = None if key is None else jax.random.normal(key, (images.shape[0], n_z))
        out = model.apply({"params": params}, images, noise)
        error = reconstruction.mean_squared_error(images, out["reconstruction"])
        kl = divergence(out["mean"], out["log_variance"])
        return {"loss": error + weight * kl, "squared_error": error, "kl": kl}

    def at_mean(variables: base.Variables, images: Images) -> dict[str, Array]:
        return model.apply(variables, images, None)

    return reconstruction.build(
        config,
        init=init,
        losses=losses,
        reconstruct=lambda variables, images: at_mean(variables, images)["reconstruction"],
        encode=lambda variables, images: at_mean(variables, images)["mean"],
        protocol={"kl_weight": weight},
    )
