"""Trainings whose speed is measured, each with a state and a batch, at sizes for the device."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree
from ml_collections import ConfigDict

from recon_ad.config import load_config
from recon_ad.methods import build_method
from recon_ad.methods.base import Method, TrainState

METHODS = ("cae", "ssim_ae", "vit_recon")
JITTER = 0.01  # standard deviation of the noise added to initial parameters


class Scale(NamedTuple):
    """Problem sizes.

    Attributes:
      patches: Batch size of an autoencoder, in training and in inference.
      side: Side of a patch in px.
      vit: Arguments of configs/folder.py for `vit_recon`.
      images: Batch size of `vit_recon`, in training and in inference.
      ssim: Shapes of the images for SSIM.
      copied: MiB of an array that is copied to measure the speed of the memory.
      seconds: Time for which a group of contenders takes turns.
      burst: Shortest time of a turn in seconds.
    """

    patches: int
    side: int
    vit: str
    images: int
    ssim: tuple[tuple[int, int, int, int], ...]
    copied: int
    seconds: float
    burst: float


# Apart from the training batch, none of these fits into a GPU's cache.
GPU_SSIM = ((128, 128, 128, 1), (64, 256, 256, 3), (1, 4096, 4096, 1))
CPU_SSIM = ((32, 128, 128, 1), (8, 256, 256, 3), (1, 1024, 1024, 1))
SCALES: Mapping[str, Scale] = {
    "gpu": Scale(128, 128, "scale=paper", 16, GPU_SSIM, 1024, seconds=5.0, burst=0.1),
    "cpu": Scale(32, 128, "scale=cpu", 8, CPU_SSIM, 256, seconds=20.0, burst=0.1),
    "small": Scale(2, 32, "smoke", 2, ((2, 32, 32, 1),), 1, seconds=0.0, burst=0.0),
}


def default_scale() -> str:
    """Return the scale for JAX's device."""
    return "cpu" if jax.default_backend() == "cpu" else "gpu"


class Subject(NamedTuple):
    """A training.

    Attributes:
      config: Config.
      method: Method.
      state: Initial state.
      batch: Batch of a step, on the device.
      images: Images from which the batch was computed.
    """

    config: ConfigDict
    method: Method
    state: TrainState
    batch: Array
    images: np.ndarray


def config_of(name: str, scale: Scale) -> ConfigDict:
    """Return the config of a method at a scale; encoders have random weights.

    `vit_recon` has the recipe "ours", which the PyTorch version also uses.
    """
    if name == "vit_recon":
        config = load_config(f"configs/folder.py:method=vit_recon,weights=random,{scale.vit}")
        config.vit_recon.recipe = "ours"
        return config
    config = load_config(f"configs/folder.py:method={name}")
    config.data.channels, config.data.patch_size = 1, scale.side
    config.inference.stride = scale.side
    return config


def some_images(name: str, scale: Scale, config: ConfigDict) -> np.ndarray:
    """Return a batch of noise."""
    count, channels = (scale.images, 3) if name == "vit_recon" else (scale.patches, 1)
    side = config.data.patch_size
    return np.random.default_rng(0).random((count, side, side, channels), np.float32)


def subject(name: str, scale: Scale) -> Subject:
    """Build the training of one of `METHODS`, or of `l2_ae`.

    `vit_recon` trains on tokens that its encoder has computed in advance, as it does when images
    are not augmented. As in the middle of a training, its learning rate is constant and its hard
    mining is past the warm-up.
    """
    config = config_of(name, scale)
    if name == "vit_recon":
        config.optim.schedule, config.optim.warmup, config.train.steps = "constant", 0, 1
    images = some_images(name, scale, config)
    method = build_method(config, channels=images.shape[-1])
    frozen, _ = method.pretrained()
    batch = jax.jit(method.prepare)(frozen, images)
    state = jax.jit(method.init)(jax.random.key(1), batch[:1])
    return Subject(config, method, state._replace(step=jnp.ones_like(state.step)), batch, images)


def jittered(params: PyTree) -> PyTree:
    """Add noise to parameters, because a runtime could skip biases that are still zero."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda p: np.asarray(p) + JITTER * rng.standard_normal(p.shape, np.float32), params
    )


class JaxTraining:
    """A training in JAX. A call with a number runs so many steps."""

    def __init__(self, subject: Subject):
        key = jax.random.key(2)

        def step(state: TrainState, batch: Array) -> tuple[TrainState, PyTree]:
            return subject.method.train_step(state, batch, jax.random.fold_in(key, state.step))

        self.step, self._batch = jax.jit(step, donate_argnums=0), subject.batch
        self._state = jax.tree.map(jnp.copy, subject.state)

    def __call__(self, steps: int) -> PyTree:
        """Run so many steps, wait for them, and return the last step's metrics."""
        for _ in range(steps):
            self._state, metrics = self.step(self._state, self._batch)
        return jax.block_until_ready((self._state, metrics))[1]

    def told(self, steps: int) -> np.ndarray:
        """Return for each of the next steps its loss and the norms of Adam's first moments.

        The moments stand for the gradients. They are sorted by size, because each framework names
        its arrays differently.
        """
        rows = []
        for _ in range(steps):
            total, count = self(1)["loss"]
            moments = optax.tree_utils.tree_get(self._state.opt_state, "mu")
            norms = sorted(float(jnp.linalg.norm(m.ravel())) for m in jax.tree.leaves(moments))
            rows.append([float(total / count), *norms])
        return np.array(rows)
