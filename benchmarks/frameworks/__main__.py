"""Ours beside PyTorch (eager, compiled) and ONNX Runtime, on the GPU if there is one.

    python -m benchmarks.frameworks [--minutes=9] [--parts=training] [--output=FILE.json]

Under ten minutes, on a machine without internet: after --minutes nothing new is begun, and what is
left is named; --parts (training, transposed, similarity, inference) measures some alone. It needs
jax, flax, optax, absl-py, jaxtyping, safetensors, torch and ml_collections; what else is missing
(timm, onnxruntime, jax2onnx, other people's SSIM) is named as left out. A wheel of pure Python need
not be installed, a path to it is enough:

    pip download --no-deps ml_collections     # where there is internet
    PYTHONPATH=ml_collections-1.1.0-py3-none-any.whl python -m benchmarks.frameworks

Measured are patches per second of training (CAE, SSIM autoencoder, decoder of vit_recon), the
transposed convolution beside JAX's own, SSIM and its gradient beside the time in which as many
bytes are copied, what SSIM costs of a training step, and inference of one image and of many. Each
pair is first shown to compute the same, in float32. Contenders take turns; figures are medians with
quartiles. On a GPU figures are given in float32 and in TF32, the same on both sides (`rounding` in
the JSON shows it); bfloat16 is used by nobody. What fails is named, and the exit status is then 1.
Writes results/frameworks_gpu.json or results/frameworks_cpu.json.
"""

import importlib.util
import os
import sys

NEEDED = ("absl", "flax", "jax", "jaxtyping", "ml_collections", "optax", "safetensors", "torch")

if __name__ == "__main__":
    absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if absent:
        print(
            f"error: not installed: {', '.join(absent)}; install it, or carry its wheel and name "
            "it in PYTHONPATH (see benchmarks/frameworks/__main__.py).",
            file=sys.stderr,
        )
        sys.exit(2)
    # Or JAX would take most of a GPU, and PyTorch find none left.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.4")
    from benchmarks.frameworks.run import start

    start()
