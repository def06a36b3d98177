"""One axis of devices, `data`, over which batches are cut; everything else is on every device.

The same jitted program serves one device, eight, or many hosts. A host is a process: one machine
may have several. The first one writes files and does all work that is not cut over hosts.
"""

import itertools
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree
from orbax.checkpoint import multihost

from recon_ad.errors import UserError
from recon_ad.runtime import stopping

# Under these launchers JAX finds the coordinator itself; the values are numbers of processes.
_LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_ADDRESS, _NUMBERS = "JAX_COORDINATOR_ADDRESS", ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# Together these end all hosts within a minute after one has failed.
HEARTBEAT = 30  # s without a sign of life after which a host counts as dead
SHUTDOWN = 15  # s that an ending host waits for the others to end
DAY = 86_400  # s; longer work on one host alone is treated as an error
PIECE = 1 << 26  # bytes of each host that are gathered at a time
_meetings = itertools.count()
_Item = TypeVar("_Item")


def initialize_distributed() -> None:
    """Join the other hosts, if a launcher defines any; call this before any device use.

    Raises:
      UserError: If only some of the required variables are set, or they are not numbers.
    """
    env = os.environ
    absent = [name for name in (_ADDRESS, *_NUMBERS) if not env.get(name)]
    if len(absent) < 3:
        if absent:
            raise UserError(
                f"{' and '.join(absent)} must be set, too: several hosts need {_ADDRESS}, "
                f"{_NUMBERS[0]} and {_NUMBERS[1]}; one host needs none of them."
            )
        given = [env[name] for name in _NUMBERS]
        if not all(number.isdecimal() for number in given):
            raise UserError(f"{' and '.join(_NUMBERS)} are {' and '.join(given)}: give numbers.")
        count, index = map(int, given)
        if index >= count:
            raise UserError(
                f"{_NUMBERS[1]} is {index}, but there are {count} processes, counted from 0."
            )
        where = {
            "coordinator_address": env[_ADDRESS],
            "num_processes": count,
            "process_id": index,
            "cluster_detection_method": "deactivate",  # nothing is left to detect
        }
    elif any(int(env.get(name, "1")) > 1 for name in _LAUNCHERS):
        where = {}
    else:
        return
    jax.distributed.initialize(
        **where, heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=SHUTDOWN
    )


def is_first_host() -> bool:
    """Return whether this process writes the files."""
    return jax.process_index() == 0


def wait_for_all() -> None:
    """Wait until every host has called this function."""
    everyone = set(range(jax.process_count()))
    # Not a collective of the devices, which times out after some minutes.
    name = f"recon_ad.{next(_meetings)}"  # the same on all hosts, which meet in the same order
    multihost.sync_global_processes(name, processes=everyone, timeout=DAY)


def broadcast_from_first(number: int) -> int:
    """Return the first host's number on all hosts.

    Hosts may see a shared folder at different times.
    """
    return all_gather(number)[0]


def all_gather(content: Any) -> list[Any]:
    """Return the contents of all hosts, any Python objects, on all of them, the first host's first.

    They are pickled, which is safe because all processes belong to one run.
    """
    if jax.process_count() == 1:
        return [content]
    packed = np.frombuffer(pickle.dumps(content), np.uint8)
    wait_for_all()
    # Two numbers, because a number in JAX has 32 bits.
    parts = multihost_utils.process_allgather(np.array(divmod(packed.size, PIECE), np.int32))
    sizes = [int(whole) * PIECE + int(rest) for whole, rest in parts]
    found = [bytearray() for _ in sizes]
    for start in range(0, max(sizes), PIECE):
        piece = packed[start : start + PIECE]
        length = min(PIECE, max(sizes) - start)
        rows = multihost_utils.process_allgather(np.pad(piece, (0, length - piece.size)))
        for whole, size, row in zip(found, sizes, rows, strict=True):
            whole += row[: max(0, size - start)].tobytes()
    return [pickle.loads(whole) for whole in found]


@contextmanager
def stopping_together() -> Iterator[stopping.Stop]:
    """End a lone host at SIGTERM with `REQUEUE`; turn SIGTERM into a request if there are several.

    One of several hosts would end the others, and the launcher would see a failure. They check for
    the request together (`stop_together`).
    """
    if jax.process_count() == 1:
        with stopping.on_sigterm(stopping.requeue):
            yield stopping.Stop()
    else:
        with stopping.deferred() as stop:
            yield stop


def asked_anywhere(stop: stopping.Stop) -> bool:
    """Return whether some host was asked to stop; all hosts call this together."""
    if jax.process_count() == 1:
        return stop.asked
    wait_for_all()
    return bool(np.any(multihost_utils.process_allgather(np.array(stop.asked))))


def stop_together(stop: stopping.Stop) -> None:
    """End all hosts with `REQUEUE` if one was asked to stop; all hosts call this together."""
    if asked_anywhere(stop):
        requeue_all()


def in_lockstep(items: Iterable[_Item], stop: stopping.Stop) -> Iterator[_Item]:
    """Yield the items, which all hosts process together, and end all hosts if one is to stop.

    The request is checked before each item and at the end, even without items; all hosts then end
    with `REQUEUE`.
    """
    for item in items:
        stop_together(stop)
        yield item
    stop_together(stop)


def host_share(items: Sequence[_Item], stop: stopping.Stop) -> Iterator[_Item]:
    """Yield this host's share of the items, every n-th for n hosts, as `in_lockstep` does."""
    count = jax.process_count()
    for first in in_lockstep(range(0, len(items), count), stop):
        if (mine := first + jax.process_index()) < len(items):
            yield items[mine]


def host_share_length(items: Sequence[Any]) -> int:
    """Return the number of items that `host_share` yields on this host."""
    return len(range(jax.process_index(), len(items), jax.process_count()))


def on_first_host(work: Callable[[], None]) -> None:
    """Run the work on the first host while the others wait.

    SIGTERM ends the first host's work. Afterwards all hosts end with `REQUEUE` if one was asked to
    stop.
    """
    with stopping.deferred() as stop:
        if is_first_host() and not stop.asked:
            try:
                with stopping.on_sigterm(stopping.requeue):
                    work()
            except SystemExit:
                stop.ask()
        stop_together(stop)


def requeue_all() -> NoReturn:
    """End this host with `REQUEUE`; every other host calls this function too."""
    wait_for_all()  # otherwise the launcher might end a host that is still writing
    jax.distributed.shutdown()
    sys.exit(stopping.REQUEUE)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Give a host that fails among several its own exit status; wrap this around a command.

    JAX would make it wait at its end for the others, which wait for it, and then abort.
    """
    try:
        yield
    except BaseException as error:
        status = error.code if isinstance(error, SystemExit) else 1
        if not jax.distributed.is_initialized() or not status:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def data_mesh() -> Mesh:
    """Return all devices of all hosts along the axis `data`."""
    # Auto, not the default Explicit: the compiler propagates shardings through reshapes.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def check_batch_size(batch_size: int, mesh: Mesh) -> None:
    """Raise UserError if a batch cannot be divided evenly over the devices."""
    if batch_size <= 0 or batch_size % mesh.size:
        raise UserError(
            f"config.train.batch_size is {batch_size}, which {mesh.size} devices cannot share "
            f"evenly: choose a multiple of {mesh.size}."
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that puts the same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(mesh: Mesh, batch: PyTree[np.ndarray]) -> PyTree[Array]:
    """Make a global batch, cut along the first axis, from this host's slice of it."""
    return _put(NamedSharding(mesh, PartitionSpec("data")), batch)


def put_replicated(mesh: Mesh, values: PyTree[np.ndarray]) -> PyTree[Array]:
    """Put values that every host has on every device."""
    return _put(replicated(mesh), values)


def _put(sharding: NamedSharding, values: PyTree[np.ndarray]) -> PyTree[Array]:
    # With several hosts, JAX does not recognise this as an explicit transfer.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), values)
