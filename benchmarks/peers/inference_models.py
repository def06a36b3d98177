"""Models for benchmarks/inference.py: detectors with random weights, exports, PyTorch networks."""

from pathlib import Path

import jax
import numpy as np
import torch
from jaxtyping import Float

from benchmarks.harness.contenders import Images
from benchmarks.harness.subjects import jittered
from benchmarks.peers import torch_detector
from benchmarks.peers.torch_bergmann import BergmannAE
from benchmarks.peers.torch_cae import CAE
from benchmarks.peers.torch_dae import ResidualAE
from recon_ad.config import load_config
from recon_ad.detector.inference import Thresholds
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.onnx_export import export
from recon_ad.methods import build_method
from recon_ad.ops import tiles
from recon_ad.ops.smoothing import gaussian_window

NETWORKS = ("cae", "vae", "aae", "l2_ae", "ssim_ae", "ssim_l1", "dae")  # also exist in PyTorch
SIDE = 256
CLOSE = 1e-4  # largest difference of reconstructions and maps that count as equal


def some_images(count: int) -> Images:
    """Return noise of increasing contrast, so that some images score higher than others."""
    noise = np.random.default_rng(0).random((count, SIDE, SIDE, 1)) - 0.5
    contrast = np.linspace(0.3, 1.0, count).reshape(-1, 1, 1, 1)
    return np.round(255 * (0.5 + contrast * noise)).astype(np.uint8)


def corners_of(geometry: tiles.Geometry) -> list[tuple[int, int]]:
    """Return the top left corners of an image's tiles."""
    return tiles.tile_corners((SIDE, SIDE), tile=geometry.tile, stride=geometry.stride)


def some_tiles(images: Images, geometry: tiles.Geometry) -> Float[np.ndarray, "n H W 1"]:
    """Cut the images into tiles, in [0, 1]."""
    corners = corners_of(geometry)
    stacked = np.concatenate([tiles.cut(x, corners, tile=geometry.tile) for x in images])
    return stacked / np.float32(255)


def build_detector(name: str, images: Images) -> Detector:
    """Build a method's detector as in configs/folder.py, with random weights.

    Its thresholds make half of the images and 1 % of the pixels anomalous.
    """
    config = load_config(f"configs/folder.py:method={name}")
    config.data.channels = 1
    method = build_method(config, channels=1)
    batch = some_tiles(images, method.geometry)
    state = jax.jit(method.init)(jax.random.key(0), batch[:1])
    variables = method.finish({}, state._replace(params=jittered(state.params)), [batch])
    detector = Detector(config, channels=1, variables=variables)
    said = [detector.predict(x, reconstruct=False) for x in images]
    scores, maps = (np.stack([getattr(p, f) for p in said]) for f in ("score", "anomaly_map"))
    return detector.with_thresholds(
        Thresholds(float(np.median(scores)), float(np.percentile(maps, 99))), {"training": {}}
    )


def write_torch(file: Path, detector: Detector, images: Images) -> float:
    """Write the same detector for PyTorch and return the difference of reconstructions.

    Raises:
      AssertionError: If they differ by more than `CLOSE`.
    """
    config, geometry = detector.config, detector.plan.geometry
    name = config.method.name
    variables = jax.device_get(detector.variables)
    params, turned = variables["params"], name in ("cae", "vae", "aae")
    if name == "vae":  # only the mean code is used
        encoder = params["encoder"]
        params = {**params, "encoder": {**encoder, "lin2": encoder["lin21"]}}
    if turned:
        network = CAE(config.method.variant, geometry.tile, params)
    elif name == "dae":
        network = ResidualAE(params)
    else:
        network = BergmannAE(geometry.tile, params)

    ours = some_tiles(images[:1], geometry)
    step = -1 if turned else 1
    theirs = torch.from_numpy(ours[:, ::step, ::step].transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        theirs = network(theirs).numpy().transpose(0, 2, 3, 1)[:, ::step, ::step]
    apart = float(np.abs(detector.method.reconstruct(variables, ours) - theirs).max())
    assert apart < CLOSE, (name, apart)

    found = variables.get("thresholds")
    sigma = config.inference.sigma
    window = gaussian_window(sigma) if sigma else np.ones(1, np.float32)
    settings = torch_detector.Settings(
        tile=geometry.tile[0],
        corners=corners_of(geometry),
        tile_weights=torch.from_numpy(tiles.tile_weights(geometry.tile, kind=geometry.weights)),
        turned=turned,
        weights=config.residual.to_dict(),
        map_thresholds=(float(found["ssim"]), float(found["l1"])) if found else None,
        ssim_window=config.ssim.window,
        smoothing=torch.from_numpy(window),
        score=config.inference.score,
        image_threshold=detector.thresholds.image,
        pixel_threshold=detector.thresholds.pixel,
    )
    torch_detector.save(file, network, settings)
    return apart


def write_models(folder: Path, detector: Detector, images: Images) -> float:
    """Write all contenders' models; return how far PyTorch's reconstruction differs from ours."""
    detector.save(folder / "detector")
    result = export(detector, folder / "model.onnx", list(images))
    assert result["passed"], result
    return write_torch(folder / "network.pt", detector, images)
