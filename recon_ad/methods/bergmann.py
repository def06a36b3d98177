"""The autoencoders of Bergmann et al. 2019: one network, three losses.

`l2_ae` learns by the mean squared error, `ssim_ae` by the mean of 1 − S over the windows inside the
patch, `fm_ae` by feature matching. The loss of `fm_ae` adds a weighted error of a frozen encoder's
features, mean (F(x) − F(x̃))², to the mean squared error of the pixels. (The paper has a sum there,
after Dosovitskiy and Brox 2016, with the first layers of AlexNet for F.) Here F is the early blocks
of a Vision Transformer, each normalised over its channels; they are needed only in training. The
residual has the weights of `config.residual`. By default it is the residual of the loss, for
`fm_ae` the squared one.

`ssim_l1` is `ssim_ae` with two residual maps, 1 − S and |x − x̃|, each with its own threshold
(Preste, "Unsupervised learning models for visual inspection"): a pixel is defective if either map
exceeds its threshold. As one map this is max(R_ssim / t_ssim, R_l1 / t_l1) with threshold 1.
Overlapping tiles are averaged after the maximum. Thresholds that are not given are the percentile
`config.calibration.pixel_percentile` of held-out normal pixels.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base, reconstruction
from recon_ad.methods.features import Encoder
from recon_ad.methods.reconstruction import Images, Losses
from recon_ad.methods.residual import check_window
from recon_ad.models.bergmann import DOWNSCALING, BergmannAE
from recon_ad.ops import residuals
from recon_ad.ops.ssim import ssim_map

MAPS = ("ssim", "l1")  # residual maps of ssim_l1


def dissimilarity(
    images: Images, reconstructions: Images, *, window: int, kind: str
) -> Float[Array, " b"]:
    """Average 1 − S over channels and the windows inside each image, in [0, 2]."""
    similarity = ssim_map(
        images, reconstructions, data_range=1.0, window=window, kind=kind, border="valid"
    )
    return 1.0 - jnp.mean(similarity, axis=(1, 2, 3))


def check_settings(config: ConfigDict) -> None:
    """Raise UserError if patch, code or window do not fit the network."""
    base.check_patch_size(config, multiple=DOWNSCALING)
    base.check_code(config)
    check_window(config)


def _build(config: ConfigDict, *, channels: int, loss: Losses) -> base.Method:
    check_settings(config)
    size = config.data.patch_size
    model = BergmannAE((size, size), channels, config.method.n_z, config.method.width)

    def init(key: Key[Array, ""], images: Images) -> PyTree:
        return model.init(key, images)["params"]

    def forward(params: PyTree, images: Images) -> dict[str, Array]:
        return model.apply({"params": params}, images)

    def losses(
        params: PyTree, images: Images, key: Key[Array, ""] | None
    ) -> dict[str, Float[Array, " b"]]:
        del key  # nothing is random here
        return {"loss": loss(images, forward(params, images)["reconstruction"])}

    return reconstruction.build(
        config,
        init=init,
        losses=losses,
        # The variables may also contain thresholds.
        reconstruct=lambda variables, x: forward(variables["params"], x)["reconstruction"],
        encode=lambda variables, x: forward(variables["params"], x)["code"],
        protocol={"ssim": f"{config.ssim.kind} window of {config.ssim.window} px"},
    )


def build_l2(config: ConfigDict, *, channels: int) -> base.Method:
    """Build `l2_ae` for patches of `config.data.patch_size` with this number of channels.

    Raises:
      UserError: If the patch size is not a multiple of 16, the code has no length, or the window of
        the SSIM does not fit.
    """
    return _build(config, channels=channels, loss=reconstruction.mean_squared_error)


def build_ssim(config: ConfigDict, *, channels: int) -> base.Method:
    """Build `ssim_ae`, with the errors of `build_l2`."""
    loss = functools.partial(dissimilarity, window=config.ssim.window, kind=config.ssim.kind)
    return _build(config, channels=channels, loss=loss)


def build_fm(config: ConfigDict, *, channels: int) -> base.Method:
    """Build `fm_ae`.

    Raises:
      UserError: If the settings do not fit (`build_l2`), the encoder does not fit
        (`features.Encoder`), or the weight of its features is not above 0.
    """
    weight = config.fm_ae.feature_weight
    if weight <= 0:
        raise UserError(
            f"config.fm_ae.feature_weight is {weight}; set it above 0, or choose l2_ae."
        )
    plain = build_l2(config, channels=channels)
    encoder = Encoder(config, channels=channels)
    tx = base.build_optimizer(config)

    def prepare(frozen: PyTree, images: Images) -> base.Batch:
        # The encoder is part of the batch, because it sees the reconstructions too.
        return {"images": images, "encoder": frozen}

    def losses(
        params: PyTree, batch: base.Batch, key: Key[Array, ""] | None
    ) -> dict[str, Float[Array, " b"]]:
        del key  # nothing is random here
        images = batch["images"]
        found = plain.reconstruct({"params": params}, images)
        seen = (encoder.side_by_side(batch["encoder"], x) for x in (images, found))
        error = reconstruction.mean_squared_error(images, found)
        of_features = jnp.mean(residuals.squared(*seen), axis=(1, 2))
        loss = error + weight * of_features
        return {"loss": loss, "squared_error": error, "feature_error": of_features}

    def eval_step(
        state: base.TrainState, batch: base.Batch, mask: Bool[Array, " b"]
    ) -> base.Metrics:
        measured = plain.eval_step(state, batch["images"], mask)
        values = losses(state.params, batch, None)
        return measured | {name: base.masked_mean(v, mask) for name, v in values.items()}

    settings = {
        "encoder": config.encoder.name,
        "blocks": list(encoder.blocks),
        "feature_weight": weight,
    }
    return plain._replace(
        pretrained=encoder.pretrained,
        prepare=prepare,
        init=lambda key, batch: plain.init(key, batch["images"]),
        train_step=functools.partial(reconstruction.train_step, losses=losses, tx=tx),
        eval_step=eval_step,
        protocol=plain.protocol | settings,
    )


def build_ssim_l1(config: ConfigDict, *, channels: int) -> base.Method:
    """Build `ssim_l1`.

    Raises:
      UserError: If the settings do not fit (`build_l2`), or a given threshold is not above 0.
    """
    plain = build_ssim(config, channels=channels)
    given = {name: config.ssim_l1[f"{name}_threshold"] for name in MAPS}
    for name, value in given.items():
        if value is not None and value <= 0:
            raise UserError(
                f"config.ssim_l1.{name}_threshold is {value}; set it above 0, or leave it out to "
                "take it from held-out images."
            )

    def maps(variables: base.Variables, images: Images) -> dict[str, Float[Array, "b h w"]]:
        reconstructions = plain.reconstruct(variables, images)
        half = residuals.structural(
            images, reconstructions, window=config.ssim.window, kind=config.ssim.kind
        )
        return {"ssim": 2.0 * half, "l1": residuals.absolute(images, reconstructions)}

    def finish(
        frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]
    ) -> base.Variables:
        variables = reconstruction.finish(frozen, state, ())
        traced = jax.jit(maps)
        found = [jax.device_get(traced(variables, jnp.asarray(batch))) for batch in batches]
        if not found:
            return variables
        thresholds = {}
        for name in MAPS:
            value = given[name]
            if value is None:
                pixels = np.concatenate([part[name].ravel() for part in found])
                value = np.percentile(pixels, config.calibration.pixel_percentile)
            # Keeps the divisor above 0 for a model that is perfect on held-out pixels.
            thresholds[name] = np.float32(max(value, np.finfo(np.float32).tiny))
        return variables | {"thresholds": thresholds}

    def anomaly_map(variables: base.Variables, images: Images) -> Float[Array, "b h w"]:
        found = maps(variables, images)
        ssim, l1 = (found[name] / variables["thresholds"][name] for name in MAPS)
        return jnp.maximum(ssim, l1)

    return plain._replace(finish=finish, anomaly_map=anomaly_map)
