"""Run one contender of benchmarks/inference.py in its own process.

    python -m benchmarks.harness.contenders FOLDER NAME

For each number that it reads, the process judges so many of the images in FOLDER twice in a row. It
answers with a line of JSON: the seconds of the second time, and its peak memory so far. So no
contender is timed with cold caches, and each is charged only for its own libraries. A detector's
results for all images are saved in FOLDER/NAME.npz.
"""

import contextlib
import functools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from recon_ad.detector.inference import Inference

FIELDS = ("score", "label", "anomaly_map", "mask")  # results of a detector
Images = UInt8[np.ndarray, "n h w 1"]
Judge = Callable[[int], Any]  # judges so many of the images
Opener = Callable[[Path, Images], Judge]


def of_jax(folder: Path, images: Images) -> Judge:
    """Open our detector in JAX, compiled."""
    from recon_ad.detector.directory import load

    return _one_by_one(load(folder / "detector"), images)


def of_runtime(folder: Path, images: Images, *, runtime: str) -> Judge:
    """Open the exported detector."""
    from recon_ad.detector.onnx_detector import load

    return _one_by_one(load(folder / "model.onnx", runtime=runtime), images)


def _one_by_one(detector: Inference, images: Images) -> Judge:
    return lambda count: [detector.predict(x, reconstruct=False) for x in images[:count]]


def of_torch(folder: Path, images: Images, *, compiled: bool) -> Judge:
    """Open the same network in PyTorch, eager or compiled as a whole."""
    import torch

    from benchmarks.peers.torch_detector import load

    torch.set_num_threads(os.cpu_count() or 1)
    detector = load(folder / "network.pt", size=images.shape[1:3])
    judge = torch.compile(detector.__call__) if compiled else detector
    return lambda count: judge(torch.from_numpy(images[:count]))


def of_peer(folder: Path, images: Images, *, name: str) -> Judge:
    """Open one of anomalib's models, which take tensors with three channels."""
    del folder
    import torch

    from benchmarks.peers import anomalib_models as peers

    model = peers.load(name, side=images.shape[1])
    tensors = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255)).repeat(1, 3, 1, 1)
    return torch.inference_mode()(lambda count: model(tensors[:count]))


# Contenders from decoded images to masks.
DETECTORS: Mapping[str, Opener] = {
    "jax": of_jax,
    "onnxruntime": functools.partial(of_runtime, runtime="onnxruntime"),
    "openvino": functools.partial(of_runtime, runtime="openvino"),
    "pytorch": functools.partial(of_torch, compiled=False),
    "pytorch_compiled": functools.partial(of_torch, compiled=True),
}
# Contenders from tensors to maps, or to scores if they have no maps.
PEERS: Mapping[str, Opener] = {
    name: functools.partial(of_peer, name=name) for name in ("ganomaly", "fre", "padim")
}


def peak_mib() -> float:
    """Return the peak memory of this process in MiB.

    getrusage's ru_maxrss is unsuitable, because Linux inherits it from the parent process.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def save(file: Path, said: Any) -> None:
    """Save a detector's results, given as a list with one per image or as batched fields."""
    arrays = {
        field: np.stack([getattr(one, field) for one in said])
        if isinstance(said, list)
        else getattr(said, field).numpy()
        for field in FIELDS
    }
    np.savez(file, **arrays)


def main(folder: Path, name: str) -> None:
    """Answer requests until the input ends."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # keeps libraries from writing to the answers
        images = np.load(folder / "images.npy")
        judge = (DETECTORS | PEERS)[name](folder, images)
        for line in sys.stdin:
            said = judge(int(line))
            begin = time.perf_counter()
            judge(int(line))
            seconds = time.perf_counter() - begin
            if name in DETECTORS and int(line) == len(images):
                save(folder / f"{name}.npz", said)
            print(json.dumps((seconds, peak_mib())), file=answers, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
