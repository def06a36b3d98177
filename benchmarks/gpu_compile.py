"""Compile every method for GPUs, without a GPU, and report what its programs need there.

    python -m benchmarks.gpu_compile

The training step and the core of each method are compiled at the papers' widths and sizes for one
H100, for eight, and for sixteen in two hosts. For each program this reports the compilation time,
the bytes on each device, the collectives by which the devices share the work, and the largest
window of a convolution. XLA compiles some gradients to convolutions with very large windows, which
were 30 times as slow as a library call in xla#34273. A window above LARGEST therefore gives exit
status 1. The gradients of `lax.conv_transpose` are compiled as well, to show that the check detects
the problem. The result is written to results/gpu_compile.json. The extra `aot` is needed. XLA does
not autotune without a GPU, so nothing is known about times on the device.
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
# px: the largest window that a method needs, that of SSIM. Convolutions have at most 4. The patches
# of an encoder are one matrix product, but XLA may write it or the SSIM as a convolution.
LARGEST = 11
SIDE = 392  # px, images of the methods on features
STEPS = 50  # training steps if the config derives them from the images
COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
)  # fmt: skip
_COLLECTIVE = re.compile(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_CONVOLUTION = re.compile(r"(?: convolution\(|custom_call_target=\"__cudnn\$conv)")
_WINDOW = re.compile(r"window=\{size=(\d+)x(\d+)")


def collectives(program: str) -> dict[str, int]:
    """Count the collectives of each kind in the text of a compiled program."""
    return dict(Counter(_COLLECTIVE.findall(program)))


def windows(program: str) -> Counter[tuple[int, int]]:
    """Count the convolutions of a program by the height and width of their window, in px."""
    found: Counter[tuple[int, int]] = Counter()
    for line in program.splitlines():
        if _CONVOLUTION.search(line):
            sides = _WINDOW.search(line)
            # A convolution without a window is one of single pixels.
            found[(int(sides[1]), int(sides[2])) if sides else (1, 1)] += 1
    return found


def figures(compiled: jax.stages.Compiled) -> dict[str, Any]:
    """Return what a compiled program needs and contains."""
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
    """Return the paper's config, with the batch rounded up to a multiple of the devices."""
    # A fixed size, which would otherwise depend on the images.
    features = f",weights=random,side={SIDE}" if name in ON_FEATURES else ""
    config = load_config(f"configs/folder.py:method={name}{features}")
    config.train.steps = config.train.steps or STEPS
    config.train.batch_size = -(-config.train.batch_size // count) * count
    return config


def row(what: str, make: Callable[[], Program]) -> dict[str, Any]:
    """Compile a program and return its figures, or why it does not compile."""
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
    """Yield a row for the step and the core of each method."""
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
    """Compile the gradients of `lax.conv_transpose`, which no method uses."""

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
    """Return one sentence about what is wrong, or "" if nothing is."""
    if max(seen.get("largest_window") or (0, 0)) <= LARGEST:
        return (
            "the gradients of lax.conv_transpose have no large window, so the check detects "
            "nothing."
        )
    for found in rows:
        of = f"{found['method']}, {found['program']}, for {found['devices']} GPUs"
        if not found["compiles"]:
            return f"{of} does not compile: {found['error']}"
        if max(found["largest_window"] or (0, 0)) > LARGEST:
            high, wide = found["largest_window"]
            return f"{of} has a convolution with a window of {high}×{wide}, above {LARGEST}."
    return ""


def main() -> int:
    """Compile all programs, print the result and write it."""
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
