"""Compiles every method for GPUs, and tells what its programs need there; no GPU takes part.

    python -m benchmarks.gpu_compile

The training step and the core of each method, at the papers' widths and sizes, for one H100, for
eight and for sixteen in two hosts. Of each: seconds of compilation, bytes on each device, the
collectives by which devices share the work, and the largest window of a convolution. A window above
LARGEST is what XLA makes of some gradients, in xla#34273 30 times as slow as a library's call: then
the exit status is 1. The gradients of `lax.conv_transpose` are compiled beside them, to show that
the look would see it. Writes results/gpu_compile.json. Needs the extra `aot`; as XLA tries out no
algorithms so, nothing is known of times on the device.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.config import load_config
from recon_ad.methods import METHODS, ON_FEATURES
from recon_ad.ops.conv import DIMENSIONS
from recon_ad.runtime import mesh as meshes
from recon_ad.runtime import targets
from recon_ad.training.programs import Program, core_program, device_bytes, step_program

DEVICES = (1, 8, 16)
# px: side of the largest window that a method asks for, SSIM's. Convolutions have 4, patches of an
# encoder are one product, but XLA may write either of the others as a convolution.
LARGEST = 11
SIDE = 392  # px, of the images that methods on features see
STEPS = 50  # where a config leaves them to the images
COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
)  # fmt: skip
_COLLECTIVE = re.compile(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_CONVOLUTION = re.compile(r"(?: convolution\(|custom_call_target=\"__cudnn\$conv)")
_WINDOW = re.compile(r"window=\{size=(\d+)x(\d+)")


def collectives(program: str) -> dict[str, int]:
    """How many of each kind there are in the text of a compiled program."""
    return dict(Counter(_COLLECTIVE.findall(program)))


def windows(program: str) -> Counter[tuple[int, int]]:
    """Height and width in px of the windows of its convolutions, and how many have them."""
    found: Counter[tuple[int, int]] = Counter()
    for line in program.splitlines():
        if _CONVOLUTION.search(line):
            sides = _WINDOW.search(line)
            # What has no window is a convolution of single pixels.
            found[(int(sides[1]), int(sides[2])) if sides else (1, 1)] += 1
    return found


def figures(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """Returns what a compiled program needs, and what is in it."""
    program, memory = compiled.as_text(), compiled.memory_analysis()
    found = windows(program)
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "scratch_bytes": memory.temp_size_in_bytes,
        "device_bytes": device_bytes(compiled),
        "collectives": collectives(program),
        "convolutions": sum(found.values()),
        "largest_window": max(found, key=max, default=None),
    }


def config_of(name: str, count: int) -> ConfigDict:
    """The paper's settings; its batch, or the next larger one that the devices share evenly."""
    # Of a size that is not left to the images.
    features = f",weights=random,side={SIDE}" if name in ON_FEATURES else ""
    config = load_config(f"configs/folder.py:method={name}{features}")
    config.train.steps = config.train.steps or STEPS
    config.train.batch_size = -(-config.train.batch_size // count) * count
    return config


def row(what: str, make: Callable[[], Program]) -> dict[str, Any]:
    """Compiles a program; returns its figures, or why it does not compile."""
    begin = time.perf_counter()
    try:
        found = figures(make().compile())
    except jax.errors.JaxRuntimeError as error:
        found = {"error": str(error).strip().partition("\n")[0]}
    seconds = time.perf_counter() - begin
    told = found.get("error") or (
        f"{seconds:.0f} s, scratch {found['scratch_bytes'] / 1e6:.1f} MB, "
        f"largest window {found['largest_window']}, {found['collectives']}"
    )
    print(f"{what}: {told}", flush=True)
    return {"compiles": "error" not in found, "seconds": seconds, **found}


def of_methods(count: int, mesh: Mesh) -> Iterator[dict[str, Any]]:
    """Step and core of all methods."""
    for name in METHODS:
        config, channels = config_of(name, count), 3 if name in ON_FEATURES else 1
        about = {"method": name, "devices": count, "side": config.data.patch_size}
        sizes = {
            "step": (step_program, config.train.batch_size),
            "core": (core_program, config.inference.batch_size * count),
        }
        for program, (make, size) in sizes.items():

            def made(make=make, config=config, channels=channels) -> Program:
                return make(config, mesh, channels=channels)

            told = f"{name}, {program}, {count} devices"
            yield {**about, "program": program, "batch": size, **row(told, made)}


def of_lax(mesh: Mesh) -> dict[str, Any]:
    """The gradients of `lax.conv_transpose`, which the methods do without."""

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=DIMENSIONS)
        return jnp.sum(y**2)

    shapes = (128, 32, 32, 64), (3, 3, 64, 32)
    placed = tuple(
        jax.ShapeDtypeStruct(shape, np.float32, sharding=meshes.replicated(mesh))
        for shape in shapes
    )
    program = Program(jax.jit(jax.grad(loss, (0, 1))), placed)
    what = "gradients of lax.conv_transpose"
    about = {"what": what, "image": shapes[0], "kernel": shapes[1]}
    return about | row(what, lambda: program)


def verdict(rows: list[Mapping[str, Any]], seen: Mapping[str, Any]) -> str:
    """One sentence on what is wrong, "" where nothing is."""
    if max(seen.get("largest_window") or (0, 0)) <= LARGEST:
        return "the gradients of lax.conv_transpose show no large window: the look sees nothing."
    for found in rows:
        of = f"{found['method']}, {found['program']}, for {found['devices']} GPUs"
        if not found["compiles"]:
            return f"{of} does not compile: {found['error']}"
        if max(found["largest_window"] or (0, 0)) > LARGEST:
            high, wide = found["largest_window"]
            return f"{of} has a convolution with a window of {high}×{wide}, above {LARGEST}."
    return ""


def main() -> int:
    """Compiles, prints, writes."""
    targets.expect_no_gpu()
    seen = of_lax(targets.described_mesh(1))
    rows = [row for n in DEVICES for row in of_methods(n, targets.described_mesh(n))]
    wrong = verdict(rows, seen)
    content = {
        "command": "python -m benchmarks.gpu_compile",
        "compiled_for": f"{targets.H100}, described and not there",
        "largest_window_allowed": LARGEST,
        "rows": rows,
        "seen": seen,
        "wrong": wrong,
    }
    record.write("gpu_compile", content, "jax-cuda12-plugin")
    if wrong:
        print(f"error: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    cli.run(main)
