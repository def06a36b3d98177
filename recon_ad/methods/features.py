"""What methods on the features of a pretrained encoder share.

Features are float32 [b, r, c, d], one vector for each patch of the image, row by row. The encoder
is frozen: it is in the variables, is never trained, and comes before everything that learns.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree
from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.methods import base
from recon_ad.models.vit import EPSILON, ViT, fitted
from recon_ad.ops.resampling import resample
from recon_ad.pretrained import preset, read_encoder
from recon_ad.pretrained.weights import HUB

RANDOM = "random"  # instead of weights: what the architecture alone is worth
Images = Float[Array, "b h w c"]
Features = Float[Array, "b r k d"]


class Encoder:
    """An encoder with its preset, for images of the config's tile size.

    Args:
      config: `config.encoder` and the patch size count.
      channels: of the images; gray ones are shown to it as colour.

    Raises:
      UserError: the tile is no multiple of the encoder's patches, a block is asked for that it has
        not, or images have neither one channel nor three.
    """

    def __init__(self, config: ConfigDict, *, channels: int):
        c = config.encoder
        self._settings = c
        self._preset = preset(c.name)
        spec, side = self._preset.spec, config.data.patch_size
        if side % spec.patch:
            near = max(1, round(side / spec.patch)) * spec.patch
            raise UserError(
                f"config.data.patch_size is {side}, but {c.name} sees patches of {spec.patch} px: "
                f"choose a multiple of it, {near} for example (side={near} after the config's "
                "name)."
            )
        if channels not in (1, 3):
            raise UserError(
                f"the images have {channels} channels, but {c.name} takes 1 or 3: set "
                "config.data.channels, or choose a method on pixels."
            )
        self.blocks = tuple(c.blocks)
        self.names = [f"block{i}" for i in self.blocks]  # in `blocks_of`
        if not self.blocks or not all(0 <= i < spec.depth for i in self.blocks):
            raise UserError(
                f"config.encoder.blocks is {self.blocks}; give one or more from 0 to "
                f"{spec.depth - 1}, the blocks of {c.name}."
            )
        self.size = (side // spec.patch, side // spec.patch)
        self.width, self.heads, self.prefix = spec.width, spec.heads, spec.prefix
        self._seed = config.seed
        self._model = ViT(spec, self.blocks, self.size, jnp.dtype(c.dtype))

    def pretrained(self) -> tuple[PyTree, dict[str, Any]]:
        """As a method's `pretrained`; raises as `read_encoder`."""
        c = self._settings
        origin = {"encoder": c.name, "weights": c.weights}
        if c.weights == RANDOM:
            side = [n * self._preset.spec.patch for n in self.size]
            key, one = jax.random.key(self._seed), jnp.zeros((1, *side, 3))
            return jax.device_get(jax.jit(self._model.init)(key, one)["params"]), origin
        read = read_encoder(c.name, c.weights, sha256=c.sha256)
        params = fitted(read.params, self.size, blocks=self.blocks, antialias=read.antialias)
        origin["sha256"] = read.sha256
        # Of a file that came from elsewhere nobody here knows it.
        known = c.weights == HUB
        origin["licence"] = (
            self._preset.licence if known else "not known here: that of the weights' file"
        )
        return jax.device_get(params), origin

    def tokens_of(self, params: PyTree, images: Images) -> dict[str, Array]:
        """Tokens [b, n, d] of each block by its name, and `norm` of the last.

        Args:
          params: of the encoder.
          images: in [0, 1].

        Returns:
          Of each block all tokens, of which the first `prefix` are no patches.
        """
        mean, std = (
            jnp.asarray(v, images.dtype).reshape(1, 1, 1, 3)
            for v in (self._preset.mean, self._preset.std)
        )
        return self._model.apply({"params": params}, (images - mean) / std)

    def blocks_of(self, params: PyTree, images: Images) -> dict[str, Array]:
        """Features of each block by its name, and `norm` of the last, from images in [0, 1]."""
        return {
            name: tokens[:, self.prefix :].reshape(-1, *self.size, self.width)
            for name, tokens in self.tokens_of(params, images).items()
        }

    def side_by_side(self, params: PyTree, images: Images) -> Features:
        """Features of all blocks wanted, each normalised over its channels, in the order asked."""
        found = self.blocks_of(params, images)
        return jnp.concatenate([normalised(found[name]) for name in self.names], axis=-1)


def enlarged(
    maps: Float[Array, "b r k"], images: Images, *, corners: bool
) -> Float[Array, "b h w"]:
    """Maps of one value for each patch at the size of the images, by bilinear interpolation.

    Args:
      maps: of the patches.
      images: that they are of.
      corners: as of `resampling_matrix`.
    """
    size, options = images.shape[1:3], {"kind": "linear", "antialias": False, "corners": corners}
    return resample(maps[..., None], size, **options)[..., 0]


def normalised(features: Features) -> Features:
    """Mean 0 and variance 1 over the channels of each patch: blocks differ in scale."""
    centred = features - jnp.mean(features, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + EPSILON)


def keep_params(
    frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]
) -> base.Variables:
    """A method's `finish`: the encoder's parameters and those that were learnt."""
    del batches
    return {"encoder": frozen, "params": state.params}


def build(
    config: ConfigDict,
    encoder: Encoder,
    *,
    prepare: Callable[[PyTree, Images], base.Batch],
    init: Callable[[Key[Array, ""], base.Batch], base.TrainState],
    train_step: Callable[..., tuple[base.TrainState, base.Metrics]],
    heldout_loss: Callable[[base.TrainState, base.Batch], Float[Array, " b"]],
    finish: Callable[[PyTree, base.TrainState, Iterable[base.Batch]], base.Variables],
    score: Callable[[base.Variables, base.Batch], Float[Array, "b r k"]],
    without: Callable[[base.Variables, Collection[int]], base.Variables] | None = None,
    corners: bool = False,
) -> base.Method:
    """The record of a method on features.

    Args:
      config: the geometry is taken from it.
      encoder: what it looks through.
      prepare: as the record's, as all that are not named here.
      init: see there.
      train_step: see there.
      heldout_loss: (state, batch) to the loss of each image; deterministic.
      finish: see there; its variables hold the encoder's as "encoder".
      score: (variables, batch) to the value of each patch that becomes the anomaly map.
      without: see there.
      corners: whether the values of the corner patches are those of the image's corners, and not of
        these patches' centres.
    """

    def eval_step(
        state: base.TrainState, batch: base.Batch, mask: Bool[Array, " b"]
    ) -> base.Metrics:
        return {"loss": base.masked_mean(heldout_loss(state, batch), mask)}

    def anomaly_map(variables: base.Variables, images: Images) -> Float[Array, "b h w"]:
        found = score(variables, prepare(variables["encoder"], images))
        return enlarged(found, images, corners=corners)

    return base.Method(
        pretrained=encoder.pretrained,
        prepare=prepare,
        init=init,
        train_step=train_step,
        eval_step=eval_step,
        finish=finish,
        anomaly_map=anomaly_map,
        reconstruct=None,
        geometry=base.tile_geometry(config),
        encode=None,
        protocol={"encoder": config.encoder.name, "blocks": list(encoder.blocks)},
        without=without,
    )
