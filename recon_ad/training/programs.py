"""The programs of a run, built from shapes only: no image is read, and no step is taken.

They can therefore be compiled for devices that are not present (`recon_ad.runtime.targets`), to
check that this works and how much memory they need.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import PyTree
from ml_collections import ConfigDict

from recon_ad.detector.jax_detector import jit_core
from recon_ad.methods import WITH_ENCODER, build_method
from recon_ad.methods.base import Method, TrainState
from recon_ad.methods.features import RANDOM
from recon_ad.runtime import mesh as meshes
from recon_ad.training.steps import jit_train_step


class Program(NamedTuple):
    """Jitted function and the shapes of its arguments with their shardings."""

    function: Any
    arguments: tuple[PyTree[jax.ShapeDtypeStruct], ...]

    def compile(self) -> jax.stages.Compiled:
        """Compile the function for the devices of its arguments."""
        return self.function.lower(*self.arguments).compile()


class Parts(NamedTuple):
    """Method, its frozen weights, and the shapes of its state and of an image."""

    method: Method
    frozen: PyTree
    state: TrainState
    image: tuple[int, int, int]


def parts(config: ConfigDict, *, channels: int) -> Parts:
    """Return the parts that the programs of a run are built from.

    The weights of a pretrained encoder are replaced by random ones, which have the same shapes.

    Raises:
      UserError: If the config does not fit.
    """
    config = config.copy_and_resolve_references()
    if config.method.name in WITH_ENCODER:
        config.encoder.weights = RANDOM
    method = build_method(config, channels=channels)
    frozen, _ = method.pretrained()
    image = (config.data.patch_size, config.data.patch_size, channels)
    prepared = jax.eval_shape(method.prepare, frozen, _images(1, image))
    state = jax.eval_shape(method.init, jax.eval_shape(_key), prepared)
    return Parts(method, frozen, state, image)


def step_program(config: ConfigDict, mesh: Mesh, *, channels: int) -> Program:
    """Build the training step, whose batch is cut over a mesh.

    An encoder's features are computed for each batch, as in a training without the feature cache.

    Raises:
      UserError: If the config does not fit, or the devices cannot share the batch evenly.
    """
    size = config.train.batch_size
    meshes.check_batch_size(size, mesh)
    method, frozen, state, image = parts(config, channels=channels)
    batch = {"image": _images(size, image), "stop": jax.ShapeDtypeStruct((size,), np.float32)}
    batch |= {name: jax.ShapeDtypeStruct((size,), np.int32) for name in ("index", "number")}
    everywhere, cut = meshes.replicated(mesh), NamedSharding(mesh, PartitionSpec("data"))
    step = jit_train_step(method, augmentations=tuple(config.data.augment), mesh=mesh)
    key = jax.eval_shape(_key)
    placed = *_placed((state, frozen), everywhere), _placed(batch, cut), _placed(key, everywhere)
    return Program(step, placed)


def core_program(config: ConfigDict, mesh: Mesh, *, channels: int) -> Program:
    """Build a detector's core, with `inference.batch_size` tiles for each device of a mesh.

    Raises:
      UserError: If the config does not fit.
    """
    method, frozen, state, image = parts(config, channels=channels)
    if frozen:

        def finished(state: TrainState) -> PyTree:
            # No program depends on the number of steps.
            return method.finish(frozen, state._replace(step=np.int32(config.train.steps)), ())

        variables = jax.eval_shape(finished, state)
    else:  # a method on pixels may need images here, which takes little time
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), (state, _images(1, image)))
        variables = method.finish(frozen, zeros[0], [zeros[1]])
    everywhere, cut = meshes.replicated(mesh), NamedSharding(mesh, PartitionSpec("data"))
    tiles = _images(config.inference.batch_size * mesh.size, image)
    return Program(jit_core(method), (_placed(variables, everywhere), _placed(tiles, cut)))


def device_bytes(compiled: jax.stages.Compiled) -> int:
    """Return the bytes that a program needs on each device: arguments, results and scratch.

    Memory that the program overwrites counts once.
    """
    found = compiled.memory_analysis()
    sizes = (found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes)
    return sum(sizes) - found.alias_size_in_bytes


def _key() -> jax.Array:
    return jax.random.key(0)


def _images(count: int, image: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *image), np.float32)


def _placed(shapes: PyTree, sharding: Sharding) -> PyTree:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
