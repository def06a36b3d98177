"""Commands on a disk that is full: what they say, and what they end with when there is room again.

    unshare -rm python -m benchmarks.robustness.disk IMAGES RUN RESULT

The disk is a tmpfs of a namespace of its own, with room for a random part of what the command
writes. A command has to end in one sentence, or wait; given room, it has to end as one that always
had it.
"""

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.robustness.kills import Command, commands, left_by, started, to_the_end

TRIES = 5  # of each command
ROOM = 1 << 30  # bytes, enough for anything
WAIT = 10.0  # s for which a command that does not end is left without room


def _size(folder: Path) -> int:
    return sum(f.lstat().st_blocks * 512 for f in folder.rglob("*"))


def _mount(folder: Path, size: int, *, again: bool = False) -> None:
    options = f"{'remount,' * again}size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def filled(command: Command, run: Path, folder: Path, *, rng: random.Random) -> dict[str, Any]:
    """Gives the command too little room, `TRIES` times, and then enough.

    Args:
      command: to run.
      run: a finished run, of which `command.inputs` are copied.
      folder: empty, where the disk is mounted.
      rng: of how much room there is.
    """
    folder.mkdir(parents=True)
    _mount(folder, ROOM)

    def begun(name: str) -> Path:
        place = folder / name
        place.mkdir()
        for part in command.inputs:
            source = run / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, place / part)
        return place

    whole = begun("whole")
    before = _size(whole)
    to_the_end(command, whole, None)
    wanted, needed = left_by(command, whole), _size(whole) - before
    shutil.rmtree(whole)
    found = {"tried": TRIES, "sentences": 0, "tracebacks": 0, "same_in_the_end": 0}
    for i in range(TRIES):
        place = begun(f"try{i}")
        _mount(folder, _size(folder) + int(rng.uniform(0, 0.9) * needed), again=True)
        process = started(command, place)
        if not command.ends:
            time.sleep(WAIT)
            process.terminate()
        _, said = process.communicate(timeout=600)
        found["tracebacks"] += "Traceback" in said
        found["sentences"] += "the disk is full" in said
        _mount(folder, ROOM, again=True)
        found["tracebacks"] += "Traceback" in to_the_end(command, place, wanted)
        found["same_in_the_end"] += left_by(command, place) == wanted
        shutil.rmtree(place)
    subprocess.run(["umount", folder], check=True)
    return found


def main() -> None:
    """Tries all commands that end by themselves or wait; writes what was found."""
    images, run, result = map(Path, sys.argv[1:])
    rng, found = random.Random(0), {}
    for command in commands(images):
        found[command.name] = filled(command, run, result.parent / "disk" / command.name, rng=rng)
        print(command.name, found[command.name], flush=True)
        result.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
