"""The largest batch whose training step fits into a GPU's memory, found by compiling alone."""

import functools
import os
import re
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from recon_ad.data.augment import check_names
from recon_ad.data.build import build_source
from recon_ad.errors import UserError
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime import targets
from recon_ad.training.fitted import with_steps, with_tiles
from recon_ad.training.programs import device_bytes, step_program

UNITS = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30, "TB": 10**12, "TiB": 2**40}
MOST_UNITS = 10**6  # of the unit; more is a slip
SHARE = 64  # the answer is found to one part in so many: each compilation takes seconds
MOST = 2**16  # patches for each device, beyond which none is looked for
TAKEN = 0.75  # of a GPU's memory, by XLA
FULL = "RESOURCE_EXHAUSTED"  # what XLA says where not even its trials have room


def parse_memory(text: str) -> int:
    """The bytes of a text such as 80GiB.

    Raises:
      UserError: it is no number above 0 with a unit.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    units = {unit.lower(): count for unit, count in UNITS.items()}
    if found is None or found[2].lower() not in units or not 0 < float(found[1]) < MOST_UNITS:
        raise UserError(
            f"--fit_check is {text!r}: give the memory of a device as a number with its unit "
            f"({', '.join(UNITS)}), such as 80GiB."
        )
    return int(float(found[1]) * units[found[2].lower()])


def largest(
    needed: Callable[[int], int], *, limit: int, start: int, unit: int
) -> tuple[int, int | None]:
    """The largest batch that fits, 0 where none does, and the smallest known not to, if any.

    Args:
      needed: bytes by the size of the batch; they grow with it.
      limit: of these.
      start: the size to begin with.
      unit: that a batch is a multiple of.
    """
    fits, fails, most = 0, max(start // unit, 1) * unit, MOST * unit
    while (bytes_of_it := needed(fails)) <= limit:
        if fails >= most:
            return fails, None
        # Some of the bytes are there for any batch, so that by proportion it is at least so large.
        fits, proportion = fails, fails * limit // bytes_of_it
        fails = min(max(proportion // unit * unit, 2 * fits), most)
    while fails - fits > max(unit, fits // SHARE):
        middle = (fits + fails) // (2 * unit) * unit
        if needed(middle) <= limit:
            fits = middle
        else:
            fails = middle
    return fits, fails


def fit_check(config: ConfigDict, memory: str) -> str:
    """A sentence on the largest batch whose training step fits into the memory of each device.

    It is compiled for the GPUs that JAX finds, or for an H100 where there is none. Beside the step
    there are the held-out patches, the next batch, and what cuDNN's algorithms want. Of the memory
    XLA takes the share that XLA_PYTHON_CLIENT_MEM_FRACTION says, three quarters without it.

    Args:
      config: of the run, checked.
      memory: such as 80GiB.

    Raises:
      UserError: the memory is no such text, the config does not fit, or there is neither a GPU nor
        the plugin that compiles for one.
    """
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", TAKEN))
    limit = int(share * parse_memory(memory))
    check_names(config.data.augment)
    targets.expect_no_gpu()
    if jax.default_backend() == "cpu":
        mesh, device = targets.described_mesh(1), f"an {targets.H100}, as there is no GPU here"
    else:
        mesh = meshes.data_mesh()
        device = f"{mesh.size} × {mesh.devices.flat[0].device_kind}"
    channels = config.data.channels
    if not (channels and config.data.patch_size and config.train.steps):
        records = build_source(config).train
        channels = channels or records[0].load().shape[2]
        config = with_tiles(config, records, part=None)
        config = with_steps(config, entries=len(records))

    @functools.cache
    def needed(size: int) -> int:
        other = config.copy_and_resolve_references()
        other.train.batch_size = size
        try:
            return device_bytes(step_program(other, mesh, channels=channels).compile())
        except jax.errors.JaxRuntimeError as error:
            if FULL not in str(error):
                raise
            return limit + 1

    fits, fails = largest(needed, limit=limit, start=config.train.batch_size, unit=mesh.size)
    told = f"{config.method.name} at {config.data.patch_size} px, compiled for {device}"
    room = f"{limit / 2**30:.2f} GiB, which XLA takes of {memory} on each device"
    if not fits:
        return f"Not even a batch of {fails} fits into {room} ({told})."
    beyond = "more was not tried" if fails is None else f"one of {fails} does not fit"
    return (
        f"A batch of {fits} fits into {room}: its training step needs "
        f"{needed(fits) / 2**30:.2f} GiB; {beyond} ({told})."
    )
