"""Compare the speed of our encoder in JAX with timm's in eager PyTorch, in images per second.

    python -m benchmarks.encoder

Both have the same weights (random ones from timm, which ours reads from a file) and run all 12
blocks and the last norm, in turns in one process on all cores. Medians are taken after compilation.
First all outputs are compared, at the trained size and at another one for which positions are
interpolated. The result is written to results/encoder.json.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.torch
import torch

import benchmarks.peers.torchvision_operators  # noqa: F401

# isort: split
import timm

from benchmarks.harness import record
from benchmarks.harness.turns import in_turns
from recon_ad.models.vit import ViT, fitted
from recon_ad.pretrained import preset, read_encoder

CLOSE = 1e-4  # tolerance, as a fraction of the largest value
SECONDS = 20.0  # time for which two contenders take turns
COMPARED = {
    "deit_tiny_patch16_224": (224, 384),
    "deit_tiny_distilled_patch16_224": (224, 160),
    "vit_small_patch14_dinov2": (518, 224),
    "vit_small_patch14_reg4_dinov2": (518, 392),
}
TIMED = (("deit_tiny_patch16_224", 224), ("deit_tiny_patch16_224", 384),
         ("vit_small_patch14_reg4_dinov2", 392))  # fmt: skip
COUNTS = (1, 8)  # images per batch


def theirs(name: str) -> torch.nn.Module:
    """Build timm's network for any image size, with positions for the trained size."""
    torch.manual_seed(0)
    model = timm.create_model(name, dynamic_img_size=True, num_classes=0).eval()
    # Many parameters are initialised to zeros or ones, which would hide mistakes.
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)
    return model


def ours(name: str, side: int, model: torch.nn.Module) -> Callable[[np.ndarray], jax.Array]:
    """Build our network with the weights of timm's, and compile it."""
    spec = preset(name).spec
    blocks, size = (spec.depth - 1,), (side // spec.patch, side // spec.patch)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.safetensors"
        safetensors.torch.save_file(model.state_dict(), path)
        read = read_encoder(name, str(path))
    params = fitted(read.params, size, blocks=blocks, antialias=read.antialias)
    params = jax.device_put(params)
    apply = jax.jit(lambda params, x: ViT(spec, blocks, size).apply({"params": params}, x)["norm"])
    return lambda images: apply(params, images)


def some_images(count: int, side: int) -> np.ndarray:
    """Return noise with the mean and variance of normalised images."""
    return np.random.default_rng(0).standard_normal((count, side, side, 3), np.float32)


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Convert images to a PyTorch tensor with channels first."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def compare() -> list[dict[str, Any]]:
    """Return how far the outputs differ.

    Raises:
      AssertionError: If they differ by more than `CLOSE`.
    """
    rows = []
    for name, sides in COMPARED.items():
        for side in sides:
            model, images = theirs(name), some_images(1, side)
            with torch.inference_mode():
                expected = model.forward_features(to_torch(images)).numpy()
            found = np.asarray(ours(name, side, model)(images))
            apart = float(np.abs(found - expected).max() / np.abs(expected).max())
            print(f"{name} at {side} px: {apart:.1e} apart", flush=True)
            assert apart < CLOSE, (name, side, apart)
            rows.append({"encoder": name, "side": side, "apart": apart})
    return rows


def measure() -> list[dict[str, Any]]:
    """Measure images per second, in turns."""
    rows = []
    for name, side in TIMED:
        model = theirs(name)
        apply = ours(name, side, model)
        for count in COUNTS:
            images = some_images(count, side)
            tensor = to_torch(images)

            def by_torch(times: int, model=model, tensor=tensor) -> None:
                with torch.inference_mode():
                    for _ in range(times):
                        model.forward_features(tensor)

            def by_jax(times: int, apply=apply, images=images) -> None:
                for _ in range(times):
                    apply(images).block_until_ready()

            contenders = {"jax": by_jax, "timm": by_torch}
            timings = in_turns(contenders, seconds=SECONDS)
            rates = {contender: count / timing.median for contender, timing in timings.items()}
            row = {"encoder": name, "side": side, "images": count, **rates}
            rows.append(row | {"ratio": rates["jax"] / rates["timm"]})
            print(
                f"{name} at {side} px, {count} at a time: JAX {rates['jax']:.1f}, timm "
                f"{rates['timm']:.1f} images/s: {rows[-1]['ratio']:.2f}",
                flush=True,
            )
    return rows


def main() -> None:
    """Compare the outputs, measure the speed and write the result."""
    torch.set_num_threads(os.cpu_count() or 1)
    load_before = os.getloadavg()[0]
    compared = compare()
    content = {
        "command": "python -m benchmarks.encoder",
        "unit": "images/s, float32, medians, in turns",
        "compared": compared,
        "rows": measure(),
        "load_before": load_before,
    }
    record.write("encoder", content, "torch", "timm")


if __name__ == "__main__":
    main()
