"""The SSIM map and its gradient: ours beside five others, on the same images in one run.

    python -m benchmarks.ssim

The others: dm-pix, scikit-image (forward only), torchmetrics, kornia, pytorch-msssim. Gaussian
window of 11 px, windows inside the image only, float32. Forward is the mean of the map; gradient is
that mean and its derivative with respect to the second image. All in turns in one process, medians
after a first call. The means are compared first. Writes results/ssim.json.
"""

import functools
import os
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float
from skimage.metrics import structural_similarity

from benchmarks import record
from benchmarks.ssim_peers import PEERS

# Images, height, width, channels; and turns.
SETS = {(8, 256, 256, 3): 15, (1, 4096, 4096, 1): 5, (32, 128, 128, 1): 25}

Images = Float[np.ndarray, "b h w c"]
Run = Callable[[], float]


def of_jax(mean: Callable[[Array, Array], Array], x: Images, y: Images, *, gradient: bool) -> Run:
    """The mean, compiled; with `gradient` also its derivative."""
    images = jnp.asarray(x), jnp.asarray(y)
    if not gradient:
        compiled = jax.jit(mean)
        return lambda: float(compiled(*images))
    both = jax.jit(jax.value_and_grad(mean, 1))
    return lambda: float(jax.block_until_ready(both(*images))[0])


def of_torch(
    mean: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x: Images,
    y: Images,
    *,
    gradient: bool,
) -> Run:
    """The same in PyTorch, NCHW, eager."""
    a, b = (torch.from_numpy(z.transpose(0, 3, 1, 2).copy()) for z in (x, y))
    b.requires_grad_(gradient)

    def run() -> float:
        with torch.set_grad_enabled(gradient):
            value = mean(a, b)
        if gradient:
            b.grad = None
            value.backward()
        return float(value.detach())

    return run


def by_scikit_image(x: Images, y: Images) -> float:
    """The same, image by image: it reflects, then leaves the border out of its mean."""
    options = {"gaussian_weights": True, "use_sample_covariance": False, "channel_axis": -1}
    pairs = zip(x, y, strict=True)
    return float(np.mean([structural_similarity(*p, data_range=1.0, **options) for p in pairs]))


def programs(x: Images, y: Images, *, gradient: bool) -> dict[str, Run]:
    """Everybody's mean SSIM of the same images."""
    made = {"jax": of_jax, "torch": of_torch}
    runs = {
        name: made[peer.framework](peer.mean(), x, y, gradient=gradient)
        for name, peer in PEERS.items()
    }
    if not gradient:
        runs["scikit_image"] = functools.partial(by_scikit_image, x, y)
    return runs


def measure(shape: tuple[int, ...], *, gradient: bool) -> dict[str, object]:
    """Medians in milliseconds; raises AssertionError where somebody computes something else."""
    rng = np.random.default_rng(0)
    x = rng.random(shape, np.float32)
    y = np.clip(x + 0.1 * rng.standard_normal(shape, np.float32), 0, 1)
    runs = programs(x, y, gradient=gradient)
    means = {name: run() for name, run in runs.items()}
    for name, mean in means.items():
        assert abs(mean - means["recon_ad"]) < 1e-5, (name, means)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(SETS[shape]):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: 1e3 * statistics.median(values) for name, values in seconds.items()}
    fastest = min((name for name in medians if name != "recon_ad"), key=medians.__getitem__)
    return {
        "images": "x".join(map(str, shape)),
        "what": "gradient" if gradient else "forward",
        "milliseconds": medians,
        "shortest": {name: 1e3 * min(values) for name, values in seconds.items()},
        "turns": SETS[shape],
        "mean_ssim": means,
        "fastest_other": fastest,
        "times_as_fast": medians[fastest] / medians["recon_ad"],
    }


def main() -> None:
    """Measures in turns, prints, writes."""
    torch.set_num_threads(os.cpu_count() or 1)
    load_before = os.getloadavg()[0]
    rows = []
    for shape in SETS:
        for gradient in (False, True):
            row = measure(shape, gradient=gradient)
            rows.append(row)
            times = ", ".join(f"{name} {ms:.1f}" for name, ms in row["milliseconds"].items())
            print(
                f"{row['images']} {row['what']}: {times} ms: "
                f"{row['times_as_fast']:.1f} times as fast as {row['fastest_other']}",
                flush=True,
            )
    peers = ("dm-pix", "scikit-image", "torch", "torchmetrics", "kornia", "pytorch-msssim")
    content = {
        "command": "python -m benchmarks.ssim",
        "unit": "ms, median, in turns; window 11, valid; gradient includes the value",
        "rows": rows,
        "load_before": load_before,
    }
    record.write("ssim", content, *peers)


if __name__ == "__main__":
    main()
