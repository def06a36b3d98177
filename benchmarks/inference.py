"""Measure time and memory from the decoded image to the mask, for our runtimes and for others.

    python -m benchmarks.inference [METHOD …]

METHOD is one of the methods on pixels; by default all of them run. Images are 256x256x1 with 8
bits, one or eight at a time, and are judged as configs/folder.py defines for each method, for
example in nine tiles of 128 px every 64 px. All weights are random.

- Ours in JAX, ONNX Runtime and OpenVINO: from the image through tiles, network, residual and
  smoothing to score, label and mask. Eight images are judged one after another.
- PyTorch, eager and compiled: the same network with the same parameters and the same pre- and
  postprocessing. Eight images are one batch. Its reconstructions, and the maps and labels of all
  contenders, are first compared with ours.
- anomalib's nearest models: from a tensor of 3x256x256 to the map (for GANomaly, which has no map,
  to the score). Neither the conversion before nor the mask after it is timed. Eight images are one
  batch.

Each contender is its own process (benchmarks/harness/contenders.py). All take turns on the same
cores, anomalib's with each of our methods. The result is written to results/inference.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import record
from benchmarks.harness.contenders import DETECTORS, PEERS
from benchmarks.peers.inference_models import (
    CLOSE,
    NETWORKS,
    SIDE,
    build_detector,
    some_images,
    write_models,
)

TURNS = {1: 15, 8: 5}  # turns by the number of images
PAUSE = 0.05  # s, until the threads of the previous contender are asleep
PACKAGES = (
    *("onnx", "onnxruntime", "openvino", "jax2onnx"),
    *("torch", "kornia", "anomalib", "timm"),
)


class Contender:
    """A process that judges images on request."""

    def __init__(self, folder: Path, name: str):
        # No compilation cache, because compiling counts towards the memory.
        env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        self._name = name
        self.seconds: dict[int, list[float]] = {count: [] for count in TURNS}
        self.peak_mib: dict[int, float] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.harness.contenders", str(folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def __enter__(self) -> "Contender":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def ask(self, count: int) -> float:
        """Have the process judge so many images, and return the seconds that it took."""
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._name} ended before it answered")
        seconds, peak = json.loads(answer)
        self.peak_mib.setdefault(count, peak)
        return seconds

    def described(self, count: int) -> dict[str, float]:
        """Return the times and the memory for so many images, as JSON content."""
        ms = [1e3 * seconds / count for seconds in self.seconds[count]]
        return {
            "ms_per_image": statistics.median(ms),
            "best": min(ms),
            "turns": len(ms),
            "peak_mib": self.peak_mib[count],
        }


def in_turns(contenders: dict[str, Contender], folder: Path) -> dict[str, Any]:
    """Time all contenders, and return how far maps and decisions are from those of JAX."""
    for count in TURNS:
        for contender in contenders.values():
            contender.ask(count)
    apart = agreement(folder)
    for count, turns in TURNS.items():
        for _ in range(turns):
            for contender in contenders.values():
                time.sleep(PAUSE)
                contender.seconds[count].append(contender.ask(count))
    return apart


def agreement(folder: Path) -> dict[str, Any]:
    """Return each contender's differences from JAX.

    Raises:
      AssertionError: If one computes something else.
    """
    with np.load(folder / "jax.npz") as file:
        ours = dict(file)
    rows = {}
    for name in DETECTORS:
        if name == "jax":
            continue
        with np.load(folder / f"{name}.npz") as theirs:
            row = {
                "largest_difference": float(
                    np.abs(ours["anomaly_map"] - theirs["anomaly_map"]).max()
                ),
                "largest_value": float(ours["anomaly_map"].max()),
                "labels_that_differ": int((ours["label"] != theirs["label"]).sum()),
                "labels": ours["label"].size,
                "mask_pixels_that_differ": int((ours["mask"] != theirs["mask"]).sum()),
                "mask_pixels": ours["mask"].size,
            }
        assert row["largest_difference"] < CLOSE and not row["labels_that_differ"], (name, row)
        rows[name] = row
    return rows


def described(method: str, contender: Contender, *, name: str) -> list[dict[str, Any]]:
    """Return one row for each number of images."""
    return [
        {"method": method, "contender": name, "images": count, **contender.described(count)}
        for count in TURNS
    ]


def measure() -> dict[str, Any]:
    """Measure method by method, with all of anomalib's models beside each."""
    images = some_images(max(TURNS))
    rows, apart = [], {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        np.save(scratch / "images.npy", images)
        peers = {name: stack.enter_context(Contender(scratch, name)) for name in PEERS}
        for method in sys.argv[1:] or NETWORKS:
            folder = scratch / method
            folder.mkdir()
            np.save(folder / "images.npy", images)
            reconstruction = write_models(folder, build_detector(method, images), images)
            with ExitStack() as ours:
                own = {name: ours.enter_context(Contender(folder, name)) for name in DETECTORS}
                apart[method] = in_turns(own | peers, folder)
            apart[method]["pytorch"]["reconstruction"] = reconstruction
            for name in DETECTORS:
                rows += described(method, own[name], name=name)
            print(
                method,
                *(f"{row['ms_per_image']:.1f}" for row in rows[-2 * len(DETECTORS) :]),
                flush=True,
            )
        for method, contender in peers.items():
            rows += described(method, contender, name="anomalib")
    return {"rows": rows, "against_jax": apart}


def table(rows: list[dict[str, Any]], show: Callable[[dict[str, Any]], str], *, images: int) -> str:
    """Return a Markdown table with a line for each method and a column for each contender."""
    cells = {(r["method"], r["contender"]): show(r) for r in rows if r["images"] == images}
    columns = dict.fromkeys(contender for _, contender in cells)
    lines = [["", *columns], ["---"] * (1 + len(columns))]
    for method in dict.fromkeys(method for method, _ in cells):
        lines.append([f"`{method}`", *(cells.get((method, name), "–") for name in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(measured: dict[str, Any]) -> None:
    """Print the tables for the README."""
    rows = measured["rows"]
    for images in TURNS:
        print(f"\nms per image, median (best), {images} at a time\n")
        print(table(rows, lambda r: f"{r['ms_per_image']:.1f} ({r['best']:.1f})", images=images))
    print(f"\npeak memory in MiB, {max(TURNS)} images at a time\n")
    print(table(rows, lambda r: f"{r['peak_mib']:.0f}", images=max(TURNS)))


def main() -> None:
    """Measure in turns, print the result and write it."""
    load_before = os.getloadavg()[0]
    measured = measure()
    show(measured)
    content = {
        "command": " ".join(["python -m benchmarks.inference", *sys.argv[1:]]),
        "unit": "ms per image: median, best; MiB: the most that the process has held",
        "timed": {
            "detectors and pytorch": f"decoded image {SIDE}x{SIDE}x1 to mask",
            "ganomaly, fre, padim": f"tensor 3x{SIDE}x{SIDE} to map, or to score (ganomaly)",
        },
        **measured,
        "load_before": load_before,
    }
    record.write("inference", content, *PACKAGES)


if __name__ == "__main__":
    main()
