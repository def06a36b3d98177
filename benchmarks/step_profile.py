"""Profile training steps: the three largest costs of a step, for each of three methods.

    python -m benchmarks.step_profile

A few steps are traced by JAX's profiler, on a CPU or a GPU. The compiled program names the layer
that each operation belongs to, forward or gradient, so costs are added up by layer. Blocks of the
same kind count as one layer. Shares are relative to the time of all operations; loops are excluded,
because their contents already count. The result is written to results/profile.json.
"""

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import flags
from jax.profiler import ProfileData
from jaxtyping import PyTree

from benchmarks.harness import record
from benchmarks.harness.subjects import METHODS, SCALES, JaxTraining, Scale, default_scale, subject
from recon_ad import cli

STEPS = 5
SHOWN = 3
# Operations whose time is that of the operations they call.
AROUND = ("while", "conditional", "call")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?(\S+) = .*? ([a-z][a-z0-9-]*)\(", re.MULTILINE)
_METADATA = re.compile(r'op_name="([^"]*)"')


def layers(params: PyTree) -> set[str]:
    """Return the names of a network's modules."""
    paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(params))
    return {part.key for path in paths for part in path[:-1]}


def part_of(op_name: str, known: set[str]) -> str:
    """Return the part of the training step that an operation belongs to.

    Args:
      op_name: Name in the compiled program, with JAX's transformations and linen's modules.
      known: Names of the network's modules.
    """
    if not op_name:
        return "other"
    backward, forward = "transpose(" in op_name, "jvp(" in op_name
    way = "gradient" if backward else "forward"
    inside = [re.sub(r"^block\d+$", "block*", part) for part in op_name.split("/") if part in known]
    if inside:
        return f"{'/'.join(inside)}, {way}"
    return f"loss, {way}" if backward or forward else "optimiser"


def instructions(program: str) -> dict[str, tuple[str, str]]:
    """Return the opcode and `op_name` of each instruction in the text of a compiled program."""
    found = {}
    for line in program.splitlines():
        if match := _INSTRUCTION.match(line):
            named = _METADATA.search(line)
            found[match[1]] = (match[2], named[1] if named else "")
    return found


def operations(profile: ProfileData, module: str) -> Iterator[tuple[str, float]]:
    """Yield the instruction and seconds of each operation of a program, on GPUs if available."""
    planes = list(profile.planes)
    on_gpu = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    for plane in on_gpu or planes:
        for line in plane.lines:
            if on_gpu and not line.name.startswith("Stream"):
                continue  # sums over streams
            for event in line.events:
                told = dict(event.stats)
                if told.get("hlo_module") == module and "hlo_op" in told:
                    yield told["hlo_op"], event.duration_ns / 1e9


def costs(name: str, scale: Scale, *, steps: int) -> dict[str, Any]:
    """Return the largest costs of a method's training step."""
    made = subject(name, scale)
    training = JaxTraining(made)
    program = training.step.lower(made.state, made.batch).compile().as_text()
    module = re.match(r"HloModule ([^,\s]+)", program)[1]
    known, named = layers(made.state.params), instructions(program)
    training(2)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as scratch:
        with jax.profiler.trace(scratch, profiler_options=options):
            training(steps)
        (file,) = Path(scratch).rglob("*.xplane.pb")
        profile = ProfileData.from_file(str(file))
    seconds: Counter[str] = Counter()
    for instruction, taken in operations(profile, module):
        code, op_name = named.get(instruction, ("", ""))
        if code not in AROUND:
            seconds[part_of(op_name, known)] += taken
    total = sum(seconds.values())
    assert total, f"the trace has no operation of {module}"
    return {
        "method": name,
        "batch": "x".join(map(str, made.batch.shape)),
        "ms_of_operations_per_step": 1e3 * total / steps,
        "largest": [
            {"what": what, "share": taken / total} for what, taken in seconds.most_common(SHOWN)
        ],
        "shares": {what: taken / total for what, taken in seconds.most_common()},
    }


def main() -> None:
    """Trace all methods, print the result and write it."""
    rows = []
    for name in METHODS:
        rows.append(costs(name, SCALES[_SCALE.value or default_scale()], steps=STEPS))
        told = ", ".join(f"{cost['what']} {cost['share']:.0%}" for cost in rows[-1]["largest"])
        print(f"{name}: {told}", flush=True)
    content = {
        "command": "python -m benchmarks.step_profile",
        "unit": f"share of the time of all operations in {STEPS} training steps",
        "rows": rows,
    }
    record.write("profile", content)


if __name__ == "__main__":
    # Otherwise a GPU runs many operations in one launch, and the trace cannot tell them apart.
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_gpu_enable_command_buffer="
    ).strip()
    _SCALE = flags.DEFINE_enum(
        "scale", None, list(SCALES), "Problem sizes; by default those for the device."
    )
    cli.run(main)
