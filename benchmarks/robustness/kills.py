"""Commands that are repeatedly killed at random moments and must still give the same result.

Each command first runs to its end undisturbed. Then it is started repeatedly and killed by SIGKILL
after a random part of that time, until it has been killed as often as requested. If it finishes
before a kill, it starts from the beginning. Finally it runs to its end, and its output must equal
that of the undisturbed run, apart from times and paths.
"""

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recon_ad.errors import UserError
from recon_ad.line.store import Key, Store

SMALL = (
    "--config.train.steps=6", "--config.train.eval_every=2", "--config.train.batch_size=4",
    "--config.evaluation.bootstrap=20", "--config.evaluation.panels=1",
)  # fmt: skip
TIMED = ("seconds", "per_second", "hardware", "versions", "committed", "latency", "wait")
LABELS = "labels.csv"  # file in the folder of images
ROWS, CHANGED = 200, 120  # rows of a line's table, and the row from which images are darker


class Command(NamedTuple):
    """A command to kill.

    Attributes:
      name: Name of the command.
      arguments: (folder) -> flags. All output goes to the folder.
      inputs: Names of the files and folders of a finished run that it needs.
      left: (folder) -> output in a comparable form.
      ends: Whether it ends by itself. Otherwise it is stopped once `left` gives the wanted output.
      module: Module to run; "" means that of `recon_ad` with the command's name.
    """

    name: str
    arguments: Callable[[Path], Sequence[str]]
    inputs: Sequence[str]
    left: Callable[[Path], Any]
    ends: bool = True
    module: str = ""


def without_times(content: Any) -> Any:
    """Remove from JSON content what differs from run to run."""
    if isinstance(content, dict):
        return {
            k: without_times(v) for k, v in content.items() if not any(word in k for word in TIMED)
        }
    return [without_times(x) for x in content] if isinstance(content, list) else content


def _json(path: Path) -> Any:
    return without_times(json.loads(path.read_text()))


def _detector(folder: Path) -> Any:
    found = folder / "detector"
    kept = {f.name: f.read_bytes() for f in found.iterdir() if f.suffix == ".safetensors"}
    return kept, _json(found / "detector.json")


def _rows(folder: Path) -> Any:
    store = Store(folder / "line/line.sqlite")
    kept = sorted((row["name"], row["outcome"], row["score"]) for row in store.rows())
    store.close()
    return kept


def write_labels(images: Path) -> None:
    """Label all defective images, and as many good ones as harmless."""
    defects = [f for f in sorted((images / "test").rglob("*.png")) if f.parent.name != "good"]
    harmless = sorted((images / "train/good").glob("*.png"))[: len(defects)]
    lines = [
        f"{f.relative_to(images)},{'defect' if f in defects else 'harmless'}"
        for f in (*defects, *harmless)
    ]
    (images / LABELS).write_text("\n".join(["path,label", *lines]) + "\n")


def write_line(folder: Path) -> None:
    """Write a line's table in which images are darker from row `CHANGED` on."""
    store, rng = Store(folder / "line.sqlite"), random.Random(0)
    for i in range(ROWS):
        row = {
            "outcome": "good", "score": rng.gauss(1, 0.1), "threshold": 2.0, "anomalous": False,
            "regions": 0, "brightness": (0.5 if i < CHANGED else 0.3) + rng.gauss(0, 0.01),
            "sharpness": rng.gauss(0.1, 0.01), "latency": 0.1, "waiting": 0,
        }  # fmt: skip
        store.commit(Key(f"{i}.png", 1, i), row)
    store.close()


def commands(images: Path) -> list[Command]:
    """Return the ten commands, for a folder of images in the MVTec layout with `LABELS` in it."""
    config = ["--config", f"configs/folder.py:path={images},smoke", *SMALL]
    return [
        Command(
            "train",
            lambda f: [*config, f"--workdir={f}", "--stop_after=train"],
            [],
            lambda f: (_detector(f), (f / "log.jsonl").read_text()),
        ),
        Command(
            "evaluate",
            lambda f: [f"--workdir={f}"],
            ["detector", "config.json", "data.json", "log.jsonl"],
            lambda f: (_json(f / "metrics.json"), (f / "scores.csv").read_text()),
        ),
        Command(
            "calibrate",
            lambda f: [f"--detector={f}/detector", f"--normals={images}/test/good", "--fpr=0.25"],
            ["detector"],
            _detector,
        ),
        Command(
            "classify",
            lambda f: [
                f"--detector={f}/detector",
                f"--images={images}",
                f"--labels={images}/{LABELS}",
                "--config.steps=20",
                "--config.repeats=1",
                "--config.folds=3",
            ],
            ["detector"],
            _detector,
        ),
        Command(
            "export",
            lambda f: [f"--detector={f}/detector", f"--output={f}/m.onnx"],
            ["detector"],
            lambda f: sorted(p.name for p in f.glob("m.*")),
        ),
        Command(
            "predict",
            lambda f: [f"--onnx={f}/model.onnx", f"--input={images}", f"--output={f}/out"],
            ["model.onnx", "model.tail.onnx"],
            lambda f: (
                (f / "out/predictions.csv").read_text(),
                sorted(p.relative_to(f).as_posix() for p in (f / "out/overlays").rglob("*.png")),
            ),
        ),
        Command(
            "inspect",
            lambda f: [f"--onnx={f}/model.onnx", f"--watch={images}", f"--output={f}/line"],
            ["model.onnx", "model.tail.onnx"],
            _rows,
            ends=False,
        ),
        Command(
            "monitor",
            lambda f: [f"--line={f}/line", "--reference=30"],
            ["line"],
            lambda f: (f / "line/alarms.jsonl").read_text(),
            ends=False,
        ),
        Command(
            "reproduce",
            lambda f: [f"--workdir={f}/table"],
            [],
            lambda f: _json(f / "table/small.json"),
            module="benchmarks.robustness.small_table",
        ),
        Command(
            "sweep",
            lambda f: [*config, f"--workdir={f}/sweep", "--sweep=config.method.n_z=4,8"],
            [],
            lambda f: [_detector(p.parent) for p in sorted((f / "sweep").rglob("detector"))],
        ),
    ]


def killed(
    command: Command, run: Path, folder: Path, *, kills: int, rng: random.Random
) -> dict[str, Any]:
    """Kill a command repeatedly, and return whether its result is that of the undisturbed run.

    Args:
      command: Command to kill.
      run: A finished run, from which `command.inputs` are copied.
      folder: Empty folder for this command.
      kills: Number of kills.
      rng: Generator for the moments.
    """
    begin = time.monotonic()
    wanted, _ = undisturbed(command, run, folder / "whole")
    seconds = time.monotonic() - begin
    place, count, tracebacks = begun(command, run, folder / "killed"), 0, 0
    while count < kills:
        process = started(command, place)
        try:
            _, said = process.communicate(timeout=rng.uniform(0.2, 1) * seconds)
            place = begun(command, run, folder / "killed")  # it has finished, so it starts again
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            _, said = process.communicate()
            count += 1
        tracebacks += "Traceback" in said
    tracebacks += "Traceback" in to_the_end(command, place, wanted).stderr
    return {
        "kills": count,
        "seconds_undisturbed": round(seconds, 1),
        "same_in_the_end": left_by(command, place) == wanted,
        "tracebacks": tracebacks,
    }


def begun(command: Command, run: Path, folder: Path) -> Path:
    """Copy the command's inputs to an empty folder and return the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part in command.inputs:
        source = run / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
    return folder


def undisturbed(command: Command, run: Path, folder: Path) -> tuple[Any, int]:
    """Run the command to its end, and return its output and the bytes that it wrote.

    Raises:
      RuntimeError: The command failed or changed nothing, so that disturbing it would show nothing.
    """
    before = left_by(command, begun(command, run, folder))
    size = size_of(folder)
    done = to_the_end(command, folder, None)
    wanted = left_by(command, folder)
    if done.returncode or not wanted or wanted == before:
        raise RuntimeError(f"{command.name} has no output of its own: {done.stderr}")
    return wanted, size_of(folder) - size


def size_of(folder: Path) -> int:
    """Return the bytes that a folder takes on its disk."""
    return sum(f.lstat().st_blocks * 512 for f in folder.rglob("*"))


def started(command: Command, folder: Path) -> subprocess.Popen[str]:
    """Start the command on a folder, with its stderr in a pipe."""
    module = command.module or f"recon_ad.{command.name}"
    line = [sys.executable, "-m", module, *command.arguments(folder)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def to_the_end(command: Command, folder: Path, wanted: Any) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends, or until its output is complete."""
    process = started(command, folder)
    if not command.ends:
        end, before = time.monotonic() + 120, None
        while time.monotonic() < end and process.poll() is None:
            time.sleep(2)
            now = left_by(command, folder)
            # In the undisturbed run, output that no longer changes is complete.
            if now and (now == wanted or (wanted is None and now == before)):
                break
            before = now
        process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, stderr=said)


def left_by(command: Command, folder: Path) -> Any:
    """Return the command's output so far, or None if it is incomplete."""
    try:
        return command.left(folder)
    except (OSError, sqlite3.Error, ValueError, UserError):
        return None  # missing or incomplete
