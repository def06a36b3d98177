"""Device and precision, equal for all frameworks."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
import torch

from recon_ad.errors import UserError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# PyTorch's compilation modes; None means eager.
MODES: Mapping[str, str | None] = {
    "PyTorch eager": None,
    "PyTorch compiled": "default",
    **({"PyTorch CUDA graphs": "reduce-overhead"} if DEVICE == "cuda" else {}),
}
# A CPU has only one.
PRECISIONS = ("float32", "tf32") if DEVICE == "cuda" else ("float32",)


def check_devices() -> None:
    """Raise UserError if JAX and PyTorch would compute on different kinds of devices."""
    found = "cpu" if jax.default_backend() == "cpu" else "cuda"
    if found != DEVICE:
        raise UserError(
            f"JAX computes on {jax.devices()[0].device_kind}, but PyTorch on {DEVICE}: install "
            "both for the same device, or hide the GPU (CUDA_VISIBLE_DEVICES= JAX_PLATFORMS=cpu)."
        )


def set_precision(name: str) -> None:
    """Set the precision of float32 products and convolutions in JAX and in PyTorch."""
    if DEVICE == "cpu":
        return
    coarse = name == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = coarse
    torch.backends.cudnn.allow_tf32 = coarse
    torch.backends.cudnn.benchmark = True  # XLA also autotunes its kernels
    jax.config.update("jax_default_matmul_precision", "default" if coarse else "highest")


def compiled(module: torch.nn.Module, mode: str | None) -> Callable[..., torch.Tensor]:
    """Compile a module in one of `MODES`, with static shapes as in XLA."""
    return module if mode is None else torch.compile(module, mode=mode, dynamic=False)


def synchronize() -> None:
    """Wait for PyTorch's device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def to_torch(array: np.ndarray, *, channels_last: bool = True) -> torch.Tensor:
    """Convert an NHWC array to PyTorch's order, on its device."""
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1))).to(DEVICE)
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def rounding() -> dict[str, float]:
    """Return the errors of products and convolutions relative to float64's largest value.

    About 1e-7 is float32 and about 1e-4 is TF32, so the errors show which one each side uses.
    """
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 512, 512)).astype(np.float32)
    x = rng.standard_normal((2, 16, 16, 64)).astype(np.float32)
    k = rng.standard_normal((3, 3, 64, 64)).astype(np.float32)
    product = a.astype(np.float64) @ b
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), (1, 2))
    convolved = np.einsum("bhwcij,ijco->bhwo", windows, k, optimize=True)
    ones = (1, 1)
    dimensions = ("NHWC", "HWIO", "NHWC")

    def by_jax(x, k):
        return jax.lax.conv_general_dilated(x, k, ones, "VALID", dimension_numbers=dimensions)

    theirs = torch.from_numpy(a).to(DEVICE) @ torch.from_numpy(b).to(DEVICE)
    kernel = torch.from_numpy(k.transpose(3, 2, 0, 1).copy()).to(DEVICE)
    their_convolved = torch.nn.functional.conv2d(to_torch(x), kernel).movedim(1, -1)
    found = {
        "JAX product": (jax.jit(lambda a, b: a @ b)(a, b), product),
        "JAX convolution": (jax.jit(by_jax)(x, k), convolved),
        "PyTorch product": (theirs.cpu().numpy(), product),
        "PyTorch convolution": (their_convolved.cpu().numpy(), convolved),
    }
    return {
        name: float(np.abs(np.asarray(value) - exact).max() / np.abs(exact).max())
        for name, (value, exact) in found.items()
    }
