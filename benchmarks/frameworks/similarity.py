"""Speed of the mean SSIM and its gradient: ours, plain PyTorch, and others' packages.

Plain PyTorch runs eager and compiled. "Value" is the mean of the map; "gradient" is that mean with
its derivative with respect to the second image. The floor is the time in which the device copies as
many bytes: two images are read, and a gradient is written. Everything is in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.harness import devices as settings
from benchmarks.harness.book import OURS, Book
from benchmarks.harness.devices import DEVICE, MODES
from benchmarks.harness.subjects import Scale
from benchmarks.harness.turns import Runner, Timing, elapsed, in_turns
from benchmarks.peers.ssim import PEERS, WINDOW, Mean
from benchmarks.peers.torch_ssim import SSIM

CLOSE = 1e-5  # largest difference of mean SSIMs
COPIES = 5  # copies, of which the fastest counts
# CUDA graphs would not help, because these few kernels are long.
PLAIN = ("PyTorch eager", "PyTorch compiled")


class JaxMean:
    """A mean in JAX, with or without its gradient. A call computes it so many times."""

    def __init__(self, mean: Mean, x: np.ndarray, y: np.ndarray, *, gradient: bool):
        self._program = jax.jit(jax.value_and_grad(mean, 1) if gradient else mean)
        self._images = jnp.asarray(x), jnp.asarray(y)

    def __call__(self, times: int) -> float:
        """Compute the mean so many times and return it."""
        for _ in range(times):
            result = self._program(*self._images)
        return float(jax.tree.leaves(jax.block_until_ready(result))[0])


class TorchMean:
    """A mean in PyTorch, with or without its gradient."""

    def __init__(self, mean: Mean, x: np.ndarray, y: np.ndarray, *, gradient: bool):
        self._mean, self._gradient = mean, gradient
        self._x, self._y = (settings.to_torch(z, channels_last=False) for z in (x, y))
        self._y.requires_grad_(gradient)

    def __call__(self, times: int) -> float:
        """Compute the mean so many times and return it."""
        with torch.set_grad_enabled(self._gradient):
            for _ in range(times):
                torch.compiler.cudagraph_mark_step_begin()
                value = self._mean(self._x, self._y)
                if self._gradient:
                    torch.autograd.grad(value, self._y)
        settings.synchronize()
        return float(value.detach())


class PlainMean(torch.nn.Module):
    """The mean of `torch_ssim`'s map."""

    def __init__(self, channels: int):
        super().__init__()
        self.ssim = SSIM(WINDOW, channels)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the mean over images, pixels and channels."""
        return self.ssim(x, y).mean()


def images(shape: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return noise, and the same images with added noise."""
    rng = np.random.default_rng(0)
    x = rng.random(shape, np.float32)
    return x, np.clip(x + 0.1 * rng.standard_normal(shape, np.float32), 0, 1)


def contenders(
    book: Book, what: str, shape: tuple[int, int, int, int], *, gradient: bool
) -> tuple[dict[str, Runner], dict[str, float]]:
    """Return the contenders that compute the same mean, and their differences from ours."""
    torch.compiler.reset()
    x, y = images(shape)
    runners: dict[str, Runner] = {}
    made = {
        (OURS if name == "recon_ad" else name): (
            lambda peer=peer: {"jax": JaxMean, "torch": TorchMean}[peer.framework](
                peer.mean(), x, y, gradient=gradient
            )
        )
        for name, peer in PEERS.items()
        if peer.there
    }

    def plain(mode: str | None) -> TorchMean:
        mean = settings.compiled(PlainMean(shape[-1]).to(DEVICE), mode)
        return TorchMean(mean, x, y, gradient=gradient)

    made |= {name: (lambda name=name: plain(MODES[name])) for name in PLAIN}
    apart: dict[str, float] = {}
    for name, make in made.items():
        with book.attempt(f"{what} by {name}, compared"):
            runner = make()
            found = runner(1)
            expected = found if name == OURS else runners[OURS](1)
            assert abs(found - expected) < CLOSE, (found, expected)
            runners[name] = runner
            if name != OURS:
                apart[name] = abs(found - expected)
    return runners, apart


def copied_per_second(mib: int) -> dict[str, float]:
    """Return the bytes read and written per second by PyTorch's copy and by a sum in XLA."""
    count = mib * 2**20 // 4
    a, b = torch.rand(count, device=DEVICE), torch.empty(count, device=DEVICE)
    x = jnp.ones(count, jnp.float32)
    program = jax.jit(lambda x: x + 1, donate_argnums=0)

    def by_torch(_: int) -> None:
        b.copy_(a)
        settings.synchronize()

    def by_jax(_: int) -> None:
        nonlocal x
        x = jax.block_until_ready(program(x))

    rates = {}
    for name, run in {"PyTorch": by_torch, "JAX": by_jax}.items():
        run(1)
        rates[name] = 2 * 4 * count / min(elapsed(run, 1) for _ in range(COPIES))
    return rates


def floor_seconds(shape: tuple[int, ...], rate: float, *, gradient: bool) -> float:
    """Return the time in which as many bytes are copied."""
    return 4 * float(np.prod(shape)) * (3 if gradient else 2) / rate


def measure(book: Book, scale: Scale) -> None:
    """Measure values and gradients for all shapes."""
    settings.set_precision("float32")
    absent = [name for name, peer in PEERS.items() if not peer.there]
    for name in absent:
        book.left_out[f"SSIM by {name}"] = "not installed"
    rates = copied_per_second(scale.copied)
    book.extra["copied, GB/s"] = {name: rate / 1e9 for name, rate in rates.items()}
    rate = max(rates.values())
    for shape in scale.ssim:
        for gradient in (False, True):
            size = "x".join(map(str, shape))
            what = f"SSIM {'gradient' if gradient else 'value'} of {size}"
            if not book.in_time(what):
                continue
            runners, apart = contenders(book, what, shape, gradient=gradient)
            with book.attempt(what):
                timings: dict[str, Timing] = in_turns(
                    runners, seconds=scale.seconds, burst=scale.burst
                )
                floor = floor_seconds(shape, rate, gradient=gradient)
                book.add(
                    what,
                    timings,
                    precision="float32",
                    per_step=None,
                    apart=apart,
                    floor_ms=1e3 * floor,
                    times_floor=timings[OURS].median / floor,
                )
