"""Milliseconds and memory per image, from the decoded image to the mask: ours by three runtimes,
PyTorch, and anomalib's nearest models.

    python -m benchmarks.inference

Images of 256x256x1, of 8 bits, one at a time and eight at once; each is four tiles of 128 px that do
not overlap. A detector, by JAX, ONNX Runtime or OpenVINO, takes eight images one after the other,
PyTorch and anomalib's models in one batch. Detectors and PyTorch, which computes the same network
from the same parameters, go from the decoded image through tiles, network, residual and smoothing
to score, label and mask. anomalib's models go from a tensor of 3x256x256 to their map (GANomaly: to
its score) and stop there. All weights are random. Reconstructions, maps and labels are compared
first. Each contender is a process of its own (benchmarks/contenders.py); all take turns on the same
cores, anomalib's models with each method of ours. Writes results/inference.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx.utils
import torch

from benchmarks import torch_detector
from benchmarks.contenders import DETECTORS, GRAPHS, PEERS, TILE, Images
from benchmarks.torch_bergmann import BergmannAE
from benchmarks.torch_cae import CAE
from benchmarks.torch_dae import ResidualAE
from recon_ad.config import load_config
from recon_ad.detector import Detector
from recon_ad.export import export
from recon_ad.inference import Thresholds
from recon_ad.methods import METHODS, build_method
from recon_ad.ops import tiles
from recon_ad.ops.smoothing import gaussian_window
from recon_ad.runtime import files, provenance

SIDE = 256
TURNS = {1: 15, 8: 7}  # by the number of images
PAUSE = 0.05  # s, until the threads of whoever was before have gone to sleep
JITTER = 0.01  # standard deviation of what is added to fresh parameters
CLOSE = 1e-4  # of reconstructions, and of maps
PACKAGES = (
    *("onnx", "onnxruntime", "openvino", "jax2onnx"),
    *("torch", "kornia", "anomalib", "timm"),
)


def some_images() -> Images:
    """Noise of rising contrast, so that some images score higher than others."""
    count = max(TURNS)
    noise = np.random.default_rng(0).random((count, SIDE, SIDE, 1)) - 0.5
    contrast = np.linspace(0.3, 1.0, count).reshape(-1, 1, 1, 1)
    return np.round(255 * (0.5 + contrast * noise)).astype(np.uint8)


def some_tiles(images: Images) -> np.ndarray:
    """The images' tiles, float32."""
    corners = tiles.tile_corners((SIDE, SIDE), tile=TILE, stride=TILE)
    return np.concatenate([tiles.cut(x, corners, tile=TILE) for x in images]) / np.float32(255)


def build_detector(name: str, images: Images) -> Detector:
    """The method at full size; half of the images and a hundredth of the pixels are anomalous."""
    config = load_config(f"configs/folder.py:method={name}")
    config.data.channels = 1
    config.inference.stride = TILE[0]
    config.inference.batch_size = (SIDE // TILE[0]) ** 2  # no tile is computed for nothing
    method = build_method(config, channels=1)
    batch = some_tiles(images)
    state = jax.jit(method.init)(jax.random.key(0), batch[:1])
    # Zeros, which fresh biases and residual blocks are, could be left out by a runtime.
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: p + JITTER * rng.standard_normal(p.shape, np.float32), state.params
    )
    variables = method.finish({}, state._replace(params=params), [batch])
    detector = Detector(config, channels=1, variables=variables)
    said = [detector.predict(x, reconstruct=False) for x in images]
    scores, maps = (np.stack([getattr(p, f) for p in said]) for f in ("score", "anomaly_map"))
    return detector.with_thresholds(
        Thresholds(float(np.median(scores)), float(np.percentile(maps, 99))), {"training": {}}
    )


def write_torch(file: Path, detector: Detector, images: Images) -> float:
    """The same in PyTorch; how far reconstructions are apart, AssertionError where too far."""
    config = detector.config
    name = config.method.name
    variables = jax.device_get(detector.variables)
    params, turned = variables["params"], name in ("cae", "vae", "aae")
    if name == "vae":  # the mean code is all that is used
        encoder = params["encoder"]
        params = {**params, "encoder": {**encoder, "lin2": encoder["lin21"]}}
    if turned:
        network = CAE(config.method.variant, TILE, params)
    elif name == "dae":
        network = ResidualAE(params)
    else:
        network = BergmannAE(TILE, params)

    ours = some_tiles(images[:1])
    step = -1 if turned else 1
    theirs = torch.from_numpy(ours[:, ::step, ::step].transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        theirs = network(theirs).numpy().transpose(0, 2, 3, 1)[:, ::step, ::step]
    apart = float(np.abs(detector.method.reconstruct(variables, ours) - theirs).max())
    assert apart < CLOSE, (name, apart)

    found = variables.get("thresholds")
    settings = torch_detector.Settings(
        tile=TILE[0],
        turned=turned,
        weights=config.residual.to_dict(),
        map_thresholds=(float(found["ssim"]), float(found["l1"])) if found else None,
        ssim_window=config.ssim.window,
        smoothing=torch.from_numpy(gaussian_window(config.inference.sigma)),
        score=config.inference.score,
        image_threshold=detector.thresholds.image,
        pixel_threshold=detector.thresholds.pixel,
    )
    torch_detector.save(file, network, settings)
    return apart


def write_models(folder: Path, detector: Detector, images: Images) -> float:
    """What the contenders open; how far PyTorch's reconstruction is from ours."""
    detector.save(folder / "detector")
    result = export(detector, folder / "model.onnx", list(images))
    assert result["passed"], result
    onnx.utils.extract_model(
        folder / "model.onnx", folder / "network.onnx", ["images"], ["reconstruction"]
    )
    return write_torch(folder / "network.pt", detector, images)


class Contender:
    """A process that judges images when asked to."""

    def __init__(self, folder: Path, name: str):
        # Without kept programs: compiling is part of the memory that it takes.
        env = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        self.seconds: dict[int, list[float]] = {count: [] for count in TURNS}
        self.peak_mib: dict[int, float] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contenders", str(folder), name],
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
        """The seconds that it took for so many images."""
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        seconds, peak = json.loads(self._process.stdout.readline())
        self.peak_mib.setdefault(count, peak)
        return seconds

    def described(self, count: int) -> dict[str, float]:
        """Times and memory for so many images, as JSON."""
        ms = [1e3 * seconds / count for seconds in self.seconds[count]]
        return {
            "ms_per_image": statistics.median(ms),
            "best": min(ms),
            "turns": len(ms),
            "peak_mib": self.peak_mib[count],
        }


def in_turns(contenders: dict[str, Contender], folder: Path) -> dict[str, Any]:
    """Times all; how far detectors' maps and decisions are from those of JAX."""
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
    """By contender; raises AssertionError where one computes something else."""
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


def residual_share(contenders: dict[str, Contender]) -> dict[str, float]:
    """What the residual adds to the network in ONNX Runtime, without anything around them."""
    times = {name: statistics.median(contenders[name].seconds[1]) for name in GRAPHS}
    added = times["core"] - times["network"]
    return {
        "core_ms": 1e3 * times["core"],
        "network_ms": 1e3 * times["network"],
        "residual_of_network": added / times["network"],
        "residual_of_core": added / times["core"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Median and best milliseconds per image and peak memory, in Markdown."""
    lines = ["| | images | ms per image (best) | peak MiB |", "|---|---|---|---|"]
    for row in rows:
        who = " ".join(filter(None, (row["method"], row["contender"])))
        lines.append(
            f"| {who} | {row['images']} | {row['ms_per_image']:.1f} ({row['best']:.1f}) | "
            f"{row['peak_mib']:.0f} |"
        )
    return "\n".join(lines)


def measure() -> dict[str, Any]:
    """Method by method, with all of anomalib's models beside each."""
    images = some_images()
    rows, apart, shares = [], {}, {}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        np.save(scratch / "images.npy", images)
        peers = {name: stack.enter_context(Contender(scratch, name)) for name in PEERS}
        for method in METHODS:
            folder = scratch / method
            folder.mkdir()
            np.save(folder / "images.npy", images)
            reconstruction = write_models(folder, build_detector(method, images), images)
            names = [*DETECTORS, *(GRAPHS if method == "ssim_ae" else ())]
            with ExitStack() as ours:
                own = {name: ours.enter_context(Contender(folder, name)) for name in names}
                apart[method] = in_turns(own | peers, folder)
                apart[method]["pytorch"]["largest_difference_of_reconstruction"] = reconstruction
            if method == "ssim_ae":
                shares[method] = residual_share(own)
            found = described(method, {name: own[name] for name in DETECTORS})
            print(table(found), flush=True)
            rows += found
        rows += described(None, peers)
    return {"rows": rows, "against_jax": apart, "ssim_in_onnxruntime": shares["ssim_ae"]}


def described(method: str | None, contenders: dict[str, Contender]) -> list[dict[str, Any]]:
    """A row for each contender and number of images."""
    return [
        {"method": method, "contender": name, "images": count, **contender.described(count)}
        for name, contender in contenders.items()
        for count in TURNS
    ]


def main() -> None:
    """Measures in turns, prints, writes."""
    load_before = os.getloadavg()[0]
    measured = measure()
    print(table(measured["rows"]))
    print(json.dumps(measured["ssim_in_onnxruntime"]))
    files.write_json(
        Path("results/inference.json"),
        {
            "command": "python -m benchmarks.inference",
            "unit": "ms per image: median, best; MiB: the most that the process has held",
            "timed": {
                "detectors and pytorch": f"decoded image {SIDE}x{SIDE}x1 to mask",
                "ganomaly, fre, padim": f"tensor 3x{SIDE}x{SIDE} to map, or to score (ganomaly)",
            },
            **measured,
            "load_before": load_before,
            "hardware": provenance.hardware(),
            "versions": provenance.versions() | provenance.versions_of(*PACKAGES),
        },
    )


if __name__ == "__main__":
    main()
