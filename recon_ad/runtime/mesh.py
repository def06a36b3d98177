"""One axis of devices, `data`, over which batches are cut; everything else is on every device.

The same jitted program serves one device, eight, or many hosts. A host is a process: one machine
may have several. The first one writes files and does what is not cut over hosts.
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

# Under these launchers JAX finds the coordinator by itself; the values are numbers of processes.
_LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
_ADDRESS, _NUMBERS = "JAX_COORDINATOR_ADDRESS", ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# Together they end all hosts within a minute after one is gone.
HEARTBEAT = 30  # s without a sign of life after which a host counts as dead
SHUTDOWN = 15  # s that a host which ends waits for the others to do so
DAY = 86_400  # s; what takes longer than this on one host alone is taken for a fault
PIECE = 1 << 26  # bytes of each host that are gathered at a time
_meetings = itertools.count()
_Item = TypeVar("_Item")


def initialize_distributed() -> None:
    """Joins the other hosts, if a launcher says that there are any; before any device use.

    Raises:
      UserError: only some of the variables that it takes are set, or no numbers.
    """
    env = os.environ
    absent = [name for name in (_ADDRESS, *_NUMBERS) if not env.get(name)]
    if len(absent) < 3:
        if absent:
            raise UserError(
                f"{' and '.join(absent)} must be set, too: several hosts need {_ADDRESS}, "
                f"{_NUMBERS[0]} and {_NUMBERS[1]}, one host none of them."
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
            "cluster_detection_method": "deactivate",  # all is said
        }
    elif any(int(env.get(name, "1")) > 1 for name in _LAUNCHERS):
        where = {}
    else:
        return
    jax.distributed.initialize(
        **where, heartbeat_timeout_seconds=HEARTBEAT, shutdown_timeout_seconds=SHUTDOWN
    )


def is_first_host() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def wait_for_all() -> None:
    """Returns when every host has come here."""
    everyone = set(range(jax.process_count()))
    # Not a collective of the devices, whose patience ends after some minutes.
    name = f"recon_ad.{next(_meetings)}"  # the same on all, which come to them in one order
    multihost.sync_global_processes(name, processes=everyone, timeout=DAY)


def broadcast_from_first(number: int) -> int:
    """The first host's number, on all of them: they may see a shared folder at different times."""
    return all_gather(number)[0]


def all_gather(content: Any) -> list[Any]:
    """What every host gives, the first host's first, on all of them; any Python object.

    It is pickled: these are processes of one run, and nobody else's bytes come here.
    """
    if jax.process_count() == 1:
        return [content]
    packed = np.frombuffer(pickle.dumps(content), np.uint8)
    wait_for_all()
    # Two numbers, since JAX has 32 bits for one.
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
    """SIGTERM ends a lone host at once with `REQUEUE`; one of several is asked to stop.

    It would take the others with it, whose launcher would see a failure. They look for it together
    (`stop_together`).
    """
    if jax.process_count() == 1:
        with stopping.on_sigterm(stopping.requeue):
            yield stopping.Stop()
    else:
        with stopping.deferred() as stop:
            yield stop


def asked_anywhere(stop: stopping.Stop) -> bool:
    """Whether some host was asked to stop; all come here together."""
    if jax.process_count() == 1:
        return stop.asked
    wait_for_all()
    return bool(np.any(multihost_utils.process_allgather(np.array(stop.asked))))


def stop_together(stop: stopping.Stop) -> None:
    """Ends all hosts with `REQUEUE` where one of them was asked to stop; all come here together."""
    if asked_anywhere(stop):
        requeue_all()


def in_lockstep(items: Iterable[_Item], stop: stopping.Stop) -> Iterator[_Item]:
    """The items, which all hosts go through together, and the end of all where one is to stop.

    It is looked for before each item and at the end, also where there are none; then all hosts end
    with `REQUEUE`.
    """
    for item in items:
        stop_together(stop)
        yield item
    stop_together(stop)


def host_share(items: Sequence[_Item], stop: stopping.Stop) -> Iterator[_Item]:
    """This host's of the items, one in so many as there are hosts; else as `in_lockstep`."""
    count = jax.process_count()
    for first in in_lockstep(range(0, len(items), count), stop):
        if (mine := first + jax.process_index()) < len(items):
            yield items[mine]


def host_share_length(items: Sequence[Any]) -> int:
    """How many items `host_share` gives on this host."""
    return len(range(jax.process_index(), len(items), jax.process_count()))


def on_first_host(work: Callable[[], None]) -> None:
    """Does the work on the first host while the others wait.

    SIGTERM ends the first host's work; after it all end with `REQUEUE` where one was asked to stop.
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
    """Ends this host with `REQUEUE`; every other host calls it, too."""
    wait_for_all()  # or the launcher may end a host that still writes
    jax.distributed.shutdown()
    sys.exit(stopping.REQUEUE)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Around a command: a host that fails among several ends with its own exit status.

    JAX would have it wait at its end for the others, which wait for it, and then abort.
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
    return _put(NamedSharding(mesh, PartitionSpec("data")), batch)


def put_replicated(mesh: Mesh, values: PyTree[np.ndarray]) -> PyTree[Array]:
    """What every host has, on every device."""
    return _put(replicated(mesh), values)


def _put(sharding: NamedSharding, values: PyTree[np.ndarray]) -> PyTree[Array]:
    # With several hosts JAX does not take it for the explicit transfer that it is.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), values)
