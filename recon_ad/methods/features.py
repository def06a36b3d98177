"""The common part of methods on the features of a pretrained encoder.

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

RANDOM = "random"  # random weights, which show what the architecture alone is worth
Images = Float[Array, "b h w c"]
Features = Float[Array, "b r k d"]


class Encoder:
    """Pretrained encoder and its preset, for images of the config's tile size.

    Args:
      config: Config of the run, of which `config.encoder`, the patch size and the seed are used.
      channels: Number of the images' channels. Gray images are repeated to colour.

    Raises:
      UserError: If the tile is not a multiple of the encoder's patches, the encoder lacks a block,
        or images have neither one channel nor three.
    """

    def __init__(self, config: ConfigDict, *, channels: int):
        c = config.encoder
        self._settings = c
        self._preset = preset(c.name)
        spec, side = self._preset.spec, config.data.patch_size
        if side % spec.patch:
            near = max(1, round(side / spec.patch)) * spec.patch
            raise UserError(
                f"config.data.patch_size is {side}, but {c.name} has patches of {spec.patch} px: "
                f"choose a multiple of {spec.patch}, for example {near} (side={near} after the "
                "config's name)."
            )
        if channels not in (1, 3):
            raise UserError(
                f"the images have {channels} channels, but {c.name} takes 1 or 3: set "
                "config.data.channels, or choose a method on pixels."
            )
        self.blocks = tuple(c.blocks)
        self.names = [f"block{i}" for i in self.blocks]  # keys of `blocks_of`
        if not self.blocks or not all(0 <= i < spec.depth for i in self.blocks):
            raise UserError(
                f"config.encoder.blocks is {self.blocks}; give one or more from 0 to "
                f"{spec.depth - 1}, the blocks of {c.name}."
            )
        self.size = (side // spec.patch, side // spec.patch)
        self.width, self.heads, self.prefix = spec.width, spec.heads, spec.prefix
        self._seed = config.seed
        # A training has replaced "auto" by what its devices are best at.
        dtype = jnp.float32 if c.dtype == "auto" else jnp.dtype(c.dtype)
        self._model = ViT(spec, self.blocks, self.size, dtype)

    def pretrained(self) -> tuple[PyTree, dict[str, Any]]:
        """Return a method's `pretrained`, with the errors of `read_encoder`."""
        c = self._settings
        origin = {"encoder": c.name, "weights": c.weights}
        if c.weights == RANDOM:
            side = [n * self._preset.spec.patch for n in self.size]
            key, one = jax.random.key(self._seed), jnp.zeros((1, *side, 3))
            return jax.device_get(jax.jit(self._model.init)(key, one)["params"]), origin
        read = read_encoder(c.name, c.weights, sha256=c.sha256)
        params = fitted(read.params, self.size, blocks=self.blocks, antialias=read.antialias)
        origin["sha256"] = read.sha256
        # The licence of a file from elsewhere is unknown.
        known = c.weights == HUB
        origin["licence"] = (
            self._preset.licence if known else "unknown: see the source of the weights file"
        )
        return jax.device_get(params), origin

    def tokens_of(self, params: PyTree, images: Images) -> dict[str, Array]:
        """Return the tokens [b, n, d] of each block by its name, and `norm` of the last.

        Args:
          params: Parameters of the encoder.
          images: Images in [0, 1].

        Returns:
          All tokens of each block, of which the first `prefix` are not patches.
        """
        mean, std = (
            jnp.asarray(v, images.dtype).reshape(1, 1, 1, 3)
            for v in (self._preset.mean, self._preset.std)
        )
        return self._model.apply({"params": params}, (images - mean) / std)

    def blocks_of(self, params: PyTree, images: Images) -> dict[str, Array]:
        """Return features of each block by name, and `norm` of the last, for images in [0, 1]."""
        return {
            name: tokens[:, self.prefix :].reshape(-1, *self.size, self.width)
            for name, tokens in self.tokens_of(params, images).items()
        }

    def side_by_side(self, params: PyTree, images: Images) -> Features:
        """Concatenate the requested blocks' features in order, each normalised over channels."""
        found = self.blocks_of(params, images)
        return jnp.concatenate([normalised(found[name]) for name in self.names], axis=-1)


def enlarged(
    maps: Float[Array, "b r k"], images: Images, *, corners: bool
) -> Float[Array, "b h w"]:
    """Enlarge maps of one value per patch to the images' size by bilinear interpolation.

    Args:
      maps: Maps of the patches.
      images: Images of the maps.
      corners: Alignment of the corners, as in `resampling_matrix`.
    """
    size, options = images.shape[1:3], {"kind": "linear", "antialias": False, "corners": corners}
    return resample(maps[..., None], size, **options)[..., 0]


def normalised(features: Features) -> Features:
    """Normalise each patch to mean 0 and variance 1 over its channels; blocks differ in scale."""
    centred = features - jnp.mean(features, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + EPSILON)


def keep_params(
    frozen: PyTree, state: base.TrainState, batches: Iterable[base.Batch]
) -> base.Variables:
    """Return the encoder's and the learnt parameters, as a method's `finish`."""
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
    """Build the record of a method on features.

    Args:
      config: Config of the run, for the geometry.
      encoder: Encoder of the features.
      prepare: Field of the record.
      init: Field of the record.
      train_step: Field of the record.
      heldout_loss: (state, batch) -> loss of each image; deterministic.
      finish: Field of the record. Its variables contain the encoder's as "encoder".
      score: (variables, batch) -> value of each patch, which becomes the anomaly map.
      without: Field of the record.
      corners: Whether the values of the corner patches are placed at the image's corners instead of
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
