"""The largest batch whose training step fits into a GPU's memory, determined by compiling only."""

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
from recon_ad.training.fitted import with_dtype, with_steps, with_tiles
from recon_ad.training.programs import device_bytes, step_program

UNITS = {"MB": 10**6, "MiB": 2**20, "GB": 10**9, "GiB": 2**30, "TB": 10**12, "TiB": 2**40}
MOST_UNITS = 10**6  # largest accepted number of units; more is a typing error
SHARE = 64  # the answer is exact to one part in 64, because each compilation takes seconds
MOST = 2**16  # largest number of patches for each device that is tried
TAKEN = 0.75  # share of a GPU's memory that XLA takes
FULL = "RESOURCE_EXHAUSTED"  # XLA's error if memory is too small even for its trials


def parse_memory(text: str) -> int:
    """Return the number of bytes in a text such as 80GiB.

    Raises:
      UserError: If the text is not a number above 0 with a unit.
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
    """Return the largest batch that fits and the smallest known not to fit.

    The first is 0 if none fits; the second is None if none is known.

    Args:
      needed: Function from the size of a batch to its bytes, which grow with the size.
      limit: Largest number of bytes.
      start: Size to begin with.
      unit: Number that every batch is a multiple of.
    """
    fits, fails, most = 0, max(start // unit, 1) * unit, MOST * unit
    while (bytes_of_it := needed(fails)) <= limit:
        if fails >= most:
            return fails, None
        # Some bytes do not depend on the batch, so the proportion is a lower bound of the answer.
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
    """Return a sentence on the largest batch whose training step fits into each device's memory.

    The step is compiled for the GPUs that JAX finds, or for an H100 if it finds none. The held-out
    patches, the next batch, and the scratch of cuDNN's algorithms need memory beside the step. XLA
    takes the share XLA_PYTHON_CLIENT_MEM_FRACTION of the memory, by default three quarters.

    Args:
      config: Checked config of the run.
      memory: Memory of a device, such as 80GiB.

    Raises:
      UserError: If the memory is not such a text, the config does not fit, or neither a GPU nor the
        plugin that compiles for one is available.
    """
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", TAKEN))
    limit = int(share * parse_memory(memory))
    check_names(config.data.augment)
    targets.expect_no_gpu()
    if jax.default_backend() == "cpu":
        mesh, device = targets.described_mesh(1), f"an {targets.H100}, as no GPU was found"
    else:
        mesh = meshes.data_mesh()
        device = f"{mesh.size} × {mesh.devices.flat[0].device_kind}"
    channels = config.data.channels
    if not (channels and config.data.patch_size and config.train.steps):
        records = build_source(config).train
        channels = channels or records[0].load().shape[2]
        config = with_tiles(config, records, part=None)
        config = with_steps(config, entries=len(records))
    config = with_dtype(config)

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
    room = f"the {limit / 2**30:.2f} GiB that XLA takes of {memory} on each device"
    if not fits:
        return f"Not even a batch of {fails} fits into {room} ({told})."
    beyond = "no larger one was tried" if fails is None else f"a batch of {fails} does not fit"
    return (
        f"A batch of {fits} fits into {room}: its training step needs "
        f"{needed(fits) / 2**30:.2f} GiB; {beyond} ({told})."
    )
