"""Patches per second of a CAE training step: ours, XLA's own convolutions, PyTorch eager.

    python -m benchmarks.cae_step

Both variants of Table 2, batch 32, 128x128x1, the whole step (loss, gradient, Adam), in turns in
one process, best of several after compilation. PyTorch computes the same network from the same
parameters, in channels_last on all cores, which is checked first. Writes results/cae_step.json.
"""

import os
import time
from collections.abc import Callable
from unittest import mock

import jax
import numpy as np
import torch

from benchmarks import record
from benchmarks.torch_cae import CAE as TorchCAE
from recon_ad.config import load_config
from recon_ad.methods import build_method
from recon_ad.methods.base import Method, TrainState

BATCH, SIZE, REPEATS = 32, 128, 8


def start(variant: str) -> tuple[Method, TrainState, np.ndarray]:
    """The method, its fresh state and a batch."""
    config = load_config("configs/demo.py")
    config.method.variant, config.data.patch_size = variant, SIZE
    method = build_method(config, channels=1)
    images = np.random.default_rng(0).random((BATCH, SIZE, SIZE, 1), np.float32)
    return method, jax.jit(method.init)(jax.random.key(1), images[:1]), images


def jax_step(variant: str) -> Callable[[], None]:
    """One step, compiled already."""
    method, state, images = start(variant)
    step = jax.jit(method.train_step, donate_argnums=0)
    held = [state]

    def run() -> None:
        held[0], metrics = step(held[0], images, jax.random.key(2))
        jax.block_until_ready((held[0], metrics))

    run()
    return run


def torch_step(variant: str) -> Callable[[], None]:
    """The same step by PyTorch; raises AssertionError where it computes something else."""
    torch.set_num_threads(os.cpu_count() or 1)
    method, state, images = start(variant)
    model = TorchCAE(variant, (SIZE, SIZE), jax.device_get(state.params))
    model = model.to(memory_format=torch.channels_last)
    # Turned by 180 degrees, see torch_cae.
    turned = torch.from_numpy(images[:, ::-1, ::-1].transpose(0, 3, 1, 2).copy())
    turned = turned.contiguous(memory_format=torch.channels_last)
    reconstruction = method.reconstruct({"params": state.params}, images)
    with torch.no_grad():
        theirs = model(turned).numpy().transpose(0, 2, 3, 1)[:, ::-1, ::-1]
    np.testing.assert_allclose(theirs, reconstruction, atol=1e-4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, fused=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(model(turned), turned).backward()
        optimizer.step()

    run()
    return run


def main() -> None:
    """Measures in turns, prints, writes."""
    rows = []
    for variant in ("synthetic", "industrial"):
        ours = jax_step(variant)
        with mock.patch("recon_ad.ops.conv.lowered", lambda: False):
            plain = jax_step(variant)
        steps = {"lowered": ours, "plain": plain, "pytorch": torch_step(variant)}
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(REPEATS):
            for name, step in steps.items():
                begin = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - begin)
        rates = {name: BATCH / min(values) for name, values in seconds.items()}
        row = {"variant": variant, **rates, "ratio": rates["lowered"] / rates["pytorch"]}
        rows.append(row)
        print(
            f"{variant:10} lowered {rates['lowered']:6.1f} plain {rates['plain']:6.1f} "
            f"PyTorch {rates['pytorch']:6.1f} patches/s: {row['ratio']:.2f} of PyTorch"
        )
    content = {
        "command": "python -m benchmarks.cae_step",
        "unit": f"patches/s, batch {BATCH}, {SIZE}x{SIZE}x1, best of {REPEATS}, in turns",
        "rows": rows,
    }
    record.write("cae_step", content, "torch")


if __name__ == "__main__":
    main()
