"""One axis of devices, `data`, over which batches are cut; everything else is on every device.

The same jitted program serves one device, eight, or many hosts.
"""

import os

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from recon_ad.errors import UserError

# Under these launchers JAX finds the coordinator by itself; the values are numbers of processes.
_LAUNCHERS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
_PROCESS = ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize_distributed() -> None:
    """Joins the other hosts, if a launcher says that there are any; before any device use."""
    env = os.environ
    if "JAX_COORDINATOR_ADDRESS" in env:
        absent = [name for name in _PROCESS if name not in env]
        if absent:
            raise UserError(f"JAX_COORDINATOR_ADDRESS is set, but {' and '.join(absent)} is not.")
        jax.distributed.initialize(
            env["JAX_COORDINATOR_ADDRESS"], *(int(env[name]) for name in _PROCESS)
        )
    elif any(int(env.get(name, "1")) > 1 for name in _LAUNCHERS):
        jax.distributed.initialize()


def data_mesh() -> Mesh:
    """All devices of all hosts along the axis `data`."""
    # Auto, not the default Explicit: the compiler propagates shardings through reshapes.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raises UserError where a batch cannot be cut evenly over the devices."""
    if batch_size <= 0 or batch_size % mesh.size:
        raise UserError(
            f"config.train.batch_size is {batch_size}, which {mesh.size} devices cannot share "
            f"evenly: choose a multiple of {mesh.size}."
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: PyTree[np.ndarray]) -> PyTree[Array]:
    """A global batch from this host's slice of it, cut along the first axis."""
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
