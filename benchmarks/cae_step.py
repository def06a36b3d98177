"""Patches per second of a CAE training step, with the lowered transposed convolution and without.

    make bench

Both variants of Table 2, batch 32, 128x128x1, the whole step (loss, gradient, Adam), best of five
after compilation. Writes results/cae_step.json.
"""

import time
from pathlib import Path
from unittest import mock

import jax

from recon_ad.config import load_config
from recon_ad.methods import build_method
from recon_ad.runtime import files, provenance

BATCH, SIZE, REPEATS = 32, 128, 5


def patches_per_second(variant: str) -> float:
    """Best of several steps, after one that compiles."""
    config = load_config("configs/demo.py")
    config.method.variant, config.data.patch_size = variant, SIZE
    method = build_method(config, channels=1)
    images = jax.random.uniform(jax.random.key(0), (BATCH, SIZE, SIZE, 1))
    state = jax.jit(method.init)(jax.random.key(1), images[:1])
    step = jax.jit(method.train_step, donate_argnums=0)
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        state, metrics = step(state, images, jax.random.key(2))
        jax.block_until_ready((state, metrics))
        seconds.append(time.perf_counter() - start)
    return BATCH / min(seconds[1:])


def main() -> None:
    """Measures, prints, writes."""
    rows = []
    for variant in ("synthetic", "industrial"):
        lowered = patches_per_second(variant)
        with mock.patch("recon_ad.ops.conv.lowered", lambda: False):
            plain = patches_per_second(variant)
        rows.append({"variant": variant, "lowered": lowered, "plain": plain})
        print(f"{variant:10} lowered {lowered:6.1f} plain {plain:6.1f} patches/s")
    files.write_json(
        Path("results/cae_step.json"),
        {
            "command": "make bench",
            "unit": f"patches/s, batch {BATCH}, {SIZE}x{SIZE}x1, best of {REPEATS}",
            "rows": rows,
            "hardware": provenance.hardware(),
            "versions": provenance.versions(),
        },
    )


if __name__ == "__main__":
    main()
