"""One contender in a process of its own, for benchmarks/inference.py, which starts it.

    python -m benchmarks.harness.contenders FOLDER NAME

For each number that comes in, it judges so many of the images in FOLDER, twice in a row, and
answers with a line of JSON: the seconds of the second time, and the most memory that the process
has held so far. So nobody is timed with cold caches, and each is charged for its own libraries
only. What a detector says of all images is left in FOLDER/NAME.npz.
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

FIELDS = ("score", "label", "anomaly_map", "mask")  # of what a detector says
Images = UInt8[np.ndarray, "n h w 1"]
Judge = Callable[[int], Any]  # so many of the images
Opener = Callable[[Path, Images], Judge]


def of_jax(folder: Path, images: Images) -> Judge:
    """Our own, compiled."""
    from recon_ad.detector.jax_detector import load

    return _one_by_one(load(folder / "detector"), images)


def of_runtime(folder: Path, images: Images, *, runtime: str) -> Judge:
    """The exported one."""
    from recon_ad.detector.onnx_detector import load

    return _one_by_one(load(folder / "model.onnx", runtime=runtime), images)


def _one_by_one(detector: Inference, images: Images) -> Judge:
    return lambda count: [detector.predict(x, reconstruct=False) for x in images[:count]]


def of_torch(folder: Path, images: Images, *, compiled: bool) -> Judge:
    """The same network in PyTorch, eager, or all of it compiled."""
    import torch

    from benchmarks.peers.torch_detector import load

    torch.set_num_threads(os.cpu_count() or 1)
    detector = load(folder / "network.pt", size=images.shape[1:3])
    judge = torch.compile(detector.__call__) if compiled else detector
    return lambda count: judge(torch.from_numpy(images[:count]))


def of_peer(folder: Path, images: Images, *, name: str) -> Judge:
    """A model of anomalib's, which takes tensors of three channels."""
    del folder
    import torch

    from benchmarks.peers import anomalib_models as peers

    model = peers.load(name, side=images.shape[1])
    tensors = torch.from_numpy(images.transpose(0, 3, 1, 2) / np.float32(255)).repeat(1, 3, 1, 1)
    return torch.inference_mode()(lambda count: model(tensors[:count]))


# From decoded images to masks.
DETECTORS: Mapping[str, Opener] = {
    "jax": of_jax,
    "onnxruntime": functools.partial(of_runtime, runtime="onnxruntime"),
    "openvino": functools.partial(of_runtime, runtime="openvino"),
    "pytorch": functools.partial(of_torch, compiled=False),
    "pytorch_compiled": functools.partial(of_torch, compiled=True),
}
# From tensors to maps, or to scores where there are no maps.
PEERS: Mapping[str, Opener] = {
    name: functools.partial(of_peer, name=name) for name in ("ganomaly", "fre", "padim")
}


def peak_mib() -> float:
    """The most memory that this process has held.

    Not getrusage's ru_maxrss, which Linux hands on from the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def save(file: Path, said: Any) -> None:
    """Keeps what a detector says: a list with one for each image, or fields with an axis more."""
    arrays = {
        field: np.stack([getattr(one, field) for one in said])
        if isinstance(said, list)
        else getattr(said, field).numpy()
        for field in FIELDS
    }
    np.savez(file, **arrays)


def main(folder: Path, name: str) -> None:
    """Answers until nothing more comes in."""
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # nobody else may write there
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
