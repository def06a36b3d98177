"""Distance of a model's codes from the prior N(0, I), to which VAE and AAE pull them."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy import linalg

from recon_ad.data.pipeline import grid_patches
from recon_ad.data.source import Record
from recon_ad.detector.jax_detector import Detector

PATCHES = 512  # number of normal patches whose codes are measured


def code_distance(codes: Float[np.ndarray, "n d"]) -> dict[str, Any]:
    """Compute mean, spread and distance of codes from N(0, I).

    Returns:
      `mean`: root mean square of the mean; `variance`: mean variance of the code's elements;
      `frechet`: ‖μ‖² + tr(C + I − 2 C^½), the squared 2-Wasserstein distance of a Gaussian with
      mean μ and covariance C to N(0, I) (Dowson and Landau 1982), which is 0 only if they agree;
      `sampled`: the same distance of as many samples of N(0, I); and `patches` and `length`, the
      shape of `codes`.
    """
    return _moments(codes) | {
        "sampled": _moments(np.random.default_rng(0).standard_normal(codes.shape))["frechet"],
        "patches": codes.shape[0],
        "length": codes.shape[1],
    }


def _moments(codes: Float[np.ndarray, "n d"]) -> dict[str, float]:
    mean = codes.astype(np.float64).mean(axis=0)
    covariance = np.atleast_2d(np.cov(codes.astype(np.float64), rowvar=False))
    # The matrix is positive semidefinite, but rounding may make eigenvalues slightly negative.
    roots = np.sqrt(np.maximum(linalg.eigvalsh(covariance), 0))
    return {
        "mean": float(np.sqrt(np.mean(mean**2))),
        "variance": float(np.mean(np.diag(covariance))),
        "frechet": float(mean @ mean + np.sum((roots - 1) ** 2)),
    }


def codes_of(detector: Detector, records: Sequence[Record]) -> dict[str, Any] | None:
    """Compute `code_distance` on patches of normal images; None for a method without a code."""
    if detector.method.encode is None:
        return None
    config = detector.config
    patches = grid_patches(
        records,
        size=tuple(config.data.resize) if any(config.data.resize) else None,
        patch_size=config.data.patch_size,
        limit=PATCHES,
    )
    encode = jax.jit(detector.method.encode)
    size = config.train.batch_size
    parts = [
        jax.device_get(encode(detector.variables, patches[i : i + size]))
        for i in range(0, len(patches), size)
    ]
    return code_distance(np.concatenate(parts))
