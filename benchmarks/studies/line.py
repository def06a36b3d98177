"""Check that a line judges every image once, despite kills, broken images and a full disk.

    python -m benchmarks.studies.line --onnx M.onnx --images FOLDER

Images of FOLDER arrive in a watched folder, one in twenty of them truncated, while `python -m
recon_ad.inspect` is killed ten times by SIGKILL. Once it runs with a file size limit that its table
soon reaches, so that writing fails as on a full disk. Afterwards there must be one row for each
image, with an error for each broken one. Then as many images arrive without disturbance, which
gives the images per second and the latency of each. The result is written to results/line.json.
"""

import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.data.listing import images_below
from recon_ad.errors import UserError
from recon_ad.line.store import Store
from recon_ad.runtime import files

COUNT, KILLS = 2_000, 10
BROKEN = 20  # one in so many images is broken
PATIENCE = 600  # s
LOOK = 0.1  # s between two reads of the table
LOG = "line.log"  # log of the line, beside its output
GROWTH = 64 * 1024  # bytes by which files may grow on the full disk


def arrive(
    sources: Sequence[Path], folder: Path, *, count: int, broken: int, name: str
) -> set[str]:
    """Write images to the folder, some of them cut in half, and return the names of these."""
    folder.mkdir(parents=True, exist_ok=True)
    cut = set()
    for i, source in enumerate(islice(cycle(sources), count)):
        target = folder / f"{name}{i:05d}{source.suffix}"
        content = source.read_bytes()
        if broken and i % broken == broken - 1:
            content = content[: len(content) // 2]
            cut.add(target.name)
        files.write_bytes(target, content)
    return cut


@contextmanager
def running(
    model: Path, folder: Path, output: Path, *, limit: int | None = None
) -> Iterator[subprocess.Popen]:
    """Run the line, optionally with a file size limit, and kill it at the end if it still runs."""

    def below() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "recon_ad.inspect"]
    command += ["--onnx", str(model), "--watch", str(folder), "--output", str(output)]
    output.mkdir(parents=True, exist_ok=True)
    preexec = None if limit is None else below
    with (
        (output.parent / LOG).open("w") as log,
        subprocess.Popen(command, stderr=log, preexec_fn=preexec) as line,
    ):
        try:
            yield line
        finally:
            line.kill()


def end(line: subprocess.Popen) -> None:
    """Stop the line in an orderly way."""
    line.send_signal(signal.SIGTERM)
    assert line.wait(60) == 0


def rows(output: Path) -> list[dict[str, Any]]:
    """Return the committed rows."""
    # Reads a copy with its log, because opening the table itself would repair the traces of a kill.
    with tempfile.TemporaryDirectory() as copy:
        for file in output.glob("line.sqlite*"):
            with suppress(FileNotFoundError):  # the log disappears when the line ends
                shutil.copy(file, copy)
        if not (Path(copy) / "line.sqlite").is_file():
            return []
        store = Store(Path(copy) / "line.sqlite")
        found = list(store.rows())
        store.close()
        return found


def wait(output: Path, line: subprocess.Popen, *, until: int) -> None:
    """Wait until there are so many rows or the line has ended."""
    end = time.monotonic() + PATIENCE
    found = 0
    while found < until and line.poll() is None:
        assert time.monotonic() < end, (found, until)
        time.sleep(LOOK)
        with suppress(UserError, sqlite3.DatabaseError):  # copied during a write
            found = len(rows(output))


def disturbed(
    model: Path, sources: Sequence[Path], scratch: Path, *, count: int, kills: int
) -> dict[str, Any]:
    """Run the line with kills, broken images and a full disk.

    Raises:
      AssertionError: If an image is lost.
    """
    folder, output = scratch / "in", scratch / "out"
    random = np.random.default_rng(0)
    # Images arrive before each kill and before the full disk, so that work is left each time even
    # on a fast machine.
    share = count // 2 // kills
    cut = set()
    for k in range(kills):
        cut |= arrive(sources, folder, count=share, broken=BROKEN, name=f"a{k:02d}")
        before = len(rows(output))
        with running(model, folder, output) as line:
            wait(output, line, until=before + 1)
            time.sleep(random.uniform(0, 0.2))
            line.send_signal(signal.SIGKILL)
            line.wait()
        assert len(rows(output)) > before, k
    # An orderly end merges the log into the table, so that it starts from zero. All files must fit
    # below the limit until this log no longer does.
    with running(model, folder, output) as line:
        wait(output, line, until=kills * share)
        end(line)
    sizes = [path.stat().st_size for path in output.rglob("*") if path.is_file()]
    before = len(rows(output))
    rest = count - kills * share
    cut |= arrive(sources, folder, count=rest, broken=BROKEN, name="b")
    with running(model, folder, output, limit=max(sizes) + GROWTH) as line:
        until = time.monotonic() + PATIENCE
        while "disk is full" not in (told := (output.parent / LOG).read_text()):
            assert line.poll() is None and time.monotonic() < until, told
            time.sleep(LOOK)
        time.sleep(1)
        assert line.poll() is None, "the line ended although it should have waited"
        end(line)
    at_full = len(rows(output))
    assert at_full < count, "the disk was full too late"
    with running(model, folder, output) as line:
        wait(output, line, until=count)
        end(line)
    found = rows(output)
    names = [row["name"] for row in found]
    assert len(names) == len(set(names)) == count, (len(names), len(set(names)), count)
    named = {row["name"] for row in found if row["error"]}
    assert named == cut, named ^ cut
    drawn = sum(1 for _ in output.rglob("*.png"))
    assert drawn == count - len(cut), (drawn, count - len(cut))
    return {
        "images": count,
        "broken": len(cut),
        "killed": kills,
        "rows_before_the_full_disk": before,
        "rows_when_it_was_full": at_full,
        "rows": len(found),
        "said": next(t for t in told.splitlines() if "full" in t).replace(str(scratch), "…"),
    }


def undisturbed(
    model: Path, sources: Sequence[Path], scratch: Path, *, count: int
) -> dict[str, Any]:
    """Measure the speed with all images present from the start, and with one at a time."""
    queue, output = scratch / "queue", scratch / "fast"
    arrive(sources, queue, count=count, broken=0, name="c")
    with running(model, queue, output) as line:
        wait(output, line, until=count)
        end(line)
    committed = [row["committed"] for row in rows(output)]
    paced, slow = scratch / "paced", scratch / "slow"
    paced.mkdir()
    rate = (count - 1) / (committed[-1] - committed[0])
    few = max(20, count // 10)
    with running(model, paced, slow) as line:
        time.sleep(5)  # imports
        for i, source in enumerate(islice(cycle(sources), few)):
            files.write_bytes(paced / f"d{i:05d}{source.suffix}", source.read_bytes())
            time.sleep(2 / rate)  # half of the line's full speed
        wait(slow, line, until=few)
        end(line)
    latency = np.array([row["latency"] for row in rows(slow)])
    return {
        "images": count,
        "images_per_second": rate,
        "paced": {
            "images": few,
            "images_per_second": rate / 2,
            "latency_s": {
                "median": float(np.median(latency)),
                "p99": float(np.percentile(latency, 99)),
                "of": "from when the file counts as whole to its committed row",
            },
        },
    }


def main() -> None:
    """Measure, write the result and print it."""
    sources = images_below(Path(_IMAGES.value))
    scratch = Path(tempfile.mkdtemp(prefix="line"))
    try:
        result = {
            "command": f"python -m benchmarks.studies.line, images of {Path(_IMAGES.value).name}",
            "disturbed": disturbed(Path(_ONNX.value), sources, scratch, count=COUNT, kills=KILLS),
            "undisturbed": undisturbed(Path(_ONNX.value), sources, scratch, count=COUNT),
        }
    finally:
        shutil.rmtree(scratch)
    record.write("line", result, "onnxruntime")
    print(result)


if __name__ == "__main__":
    _ONNX = flags.DEFINE_string("onnx", None, "Exported model.", required=True)
    _IMAGES = flags.DEFINE_string("images", None, "Folder of good images.", required=True)
    cli.run(main)
