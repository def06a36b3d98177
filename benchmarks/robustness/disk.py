"""Run commands on a full disk, and again once the disk has space.

    unshare -rm python -m benchmarks.robustness.disk IMAGES RUN RESULT

The disk is a tmpfs in its own namespace, with space for a random part of what the command writes. A
command must end with one sentence or wait. Once there is space, it must give the same result as if
there had always been enough.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.robustness.kills import (
    Command,
    begun,
    commands,
    left_by,
    size_of,
    started,
    to_the_end,
    undisturbed,
)

TRIES = 5  # tries of each command
ROOM = 1 << 30  # bytes, enough for every command
WAIT = 10.0  # s without space for a command that does not end by itself


def _mount(folder: Path, size: int, *, again: bool = False) -> None:
    options = f"{'remount,' * again}size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def filled(command: Command, run: Path, folder: Path, *, rng: random.Random) -> dict[str, Any]:
    """Run a command `TRIES` times with too little space, and then with enough.

    Args:
      command: Command to run.
      run: A finished run, from which `command.inputs` are copied.
      folder: Empty folder at which the disk is mounted.
      rng: Generator for the amount of space.
    """
    folder.mkdir(parents=True)
    _mount(folder, ROOM)
    wanted, needed = undisturbed(command, run, folder / "whole")
    shutil.rmtree(folder / "whole")
    found = {"tried": TRIES, "sentences": 0, "tracebacks": 0, "same_in_the_end": 0}
    for i in range(TRIES):
        place = begun(command, run, folder / f"try{i}")
        _mount(folder, size_of(folder) + int(rng.uniform(0, 0.9) * needed), again=True)
        process = started(command, place)
        if not command.ends:
            time.sleep(WAIT)
            process.terminate()
        _, said = process.communicate(timeout=600)
        found["tracebacks"] += "Traceback" in said
        found["sentences"] += "the disk is full" in said
        _mount(folder, ROOM, again=True)
        found["tracebacks"] += "Traceback" in to_the_end(command, place, wanted).stderr
        found["same_in_the_end"] += left_by(command, place) == wanted
        shutil.rmtree(place)
    subprocess.run(["umount", folder], check=True)
    return found


def main() -> None:
    """Try all commands and write the result."""
    images, run, result = map(Path, sys.argv[1:])
    rng, found = random.Random(0), {}
    for command in commands(images):
        found[command.name] = filled(command, run, result.parent / "disk" / command.name, rng=rng)
        print(command.name, found[command.name], flush=True)
        result.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
