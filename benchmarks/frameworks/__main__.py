"""Compare the speed with PyTorch (eager, compiled) and ONNX Runtime, on a GPU if available.

    python -m benchmarks.frameworks [--minutes=9] [--parts=training] [--output=FILE.json]

The benchmark takes less than ten minutes and needs no internet. After --minutes nothing new is
started, and the rest is reported as left out. --parts (training, transposed, similarity, inference)
selects some parts. jax, flax, optax, absl-py, jaxtyping, safetensors, torch and ml_collections are
required; contenders for which another package is missing (timm, onnxruntime, jax2onnx, others'
SSIM) are reported as left out. A pure Python wheel need not be installed; its path is enough:

    pip download --no-deps ml_collections     # on a machine with internet
    PYTHONPATH=ml_collections-1.1.0-py3-none-any.whl python -m benchmarks.frameworks

It measures patches per second in training (CAE, SSIM autoencoder, decoder of vit_recon), the
transposed convolution against JAX's own, SSIM and its gradient against the time to copy as many
bytes, the share of SSIM in a training step, and inference with one image and with many. Each pair
is first checked to compute the same in float32. Contenders take turns, and figures are medians with
quartiles. On a GPU they are given in float32 and in TF32, with the same arithmetic on both sides
(`rounding` in the JSON file confirms it); bfloat16 is not used. Failures are reported, and the exit
status is then 1. The result is written to results/frameworks_gpu.json or
results/frameworks_cpu.json.
"""

import importlib.util
import os
import sys

NEEDED = ("absl", "flax", "jax", "jaxtyping", "ml_collections", "optax", "safetensors", "torch")

if __name__ == "__main__":
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        print(
            f"error: not installed: {', '.join(absent)}; install it, or copy its wheel here and "
            "add it to PYTHONPATH (see benchmarks/frameworks/__main__.py).",
            file=sys.stderr,
        )
        sys.exit(2)
    # Otherwise JAX would reserve most of the GPU's memory and leave too little for PyTorch.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.4")
    from benchmarks.frameworks.run import start

    start()
