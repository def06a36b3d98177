"""The coarse search of a registration, which selects the template's poses on a grid by correlation.

The rotated and scaled template is correlated with the image at all shifts at once, at `SIDE` px.
The correlation is normalised and uses only pixels valid in both (Padfield 2012, "Masked object
registration in the Fourier domain", eqs. 8 to 11), so that neither light nor pixels outside the
image bias the estimate. Images, masks and matrices are as in `recon_ad.alignment.geometry`.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Complex, Float
from scipy import fft

from recon_ad.alignment.geometry import (
    Gray,
    Mask,
    Matrix,
    Template,
    TooLittle,
    corners,
    resized,
    scaled,
    seen_by,
    shrunk,
    similarity,
    warp,
)

SIDE = 64  # px, the longer side of the template
KEPT = 5  # number of poses that are returned
LEAST = 16  # smallest number of the template's pixels that count


class Search(NamedTuple):
    """Range of the search, and limits for a registration.

    Attributes:
      angle: Largest rotation either way, in degrees.
      scale: Largest change of scale, 0.1 for 0.9 to 1.1.
      overlap: Share of the template that has to be in the image.
      confidence: Least confidence, from 0 to 1, that counts as registered.
    """

    angle: float
    scale: float
    overlap: float
    confidence: float


def candidates(gray: Gray, valid: Mask, template: Template, search: Search) -> list[Matrix]:
    """Return the best poses of a grid, each at its best shift, at full size.

    Raises:
      TooLittle: If the template has too few pixels.
    """
    small, factor = shrunk(template, SIDE)
    scene, seen = resized(gray, factor), resized(valid, factor)
    h, w = small.gray.shape
    # Neighbours in the grid differ by two pixels at the template's ends.
    step = 4 / max(h, w)
    turns = _grid(search.angle, np.degrees(step))
    scales = 1 + _grid(search.scale, step)
    # Room for every shift that leaves enough of the template in the image.
    reach = int(np.ceil(np.hypot(h, w) * (1 + search.scale))) + 2
    size = [fft.next_fast_len(n + reach, real=True) for n in scene.shape]
    middle = scene[seen].mean() if seen.any() else 0.0
    parts = [np.where(seen, scene - middle, 0), np.where(seen, (scene - middle) ** 2, 0), seen]
    transformed = [fft.rfft2(part.astype(np.float32), s=size) for part in parts]
    found = []
    for angle, scale in itertools.product(turns, scales):
        turned = similarity(angle=angle, scale=scale, shift=(0, 0), shape=(h, w))
        box = corners(turned, (h, w))
        origin = np.floor(box.min(axis=0))
        extent = np.ceil(box.max(axis=0)) - origin + 1
        moved = turned.copy()
        moved[:, 2] -= origin
        back = cv2.invertAffineTransform(moved)
        shape = (int(extent[1]), int(extent[0]))
        mask = seen_by(small.mask, back, shape)
        if mask.sum() < LEAST:
            continue
        pose = warp(small.gray, back, shape)
        correlation = _correlate(
            transformed, pose, mask, size=size, least=search.overlap * mask.sum()
        )
        y, x = np.unravel_index(correlation.argmax(), correlation.shape)
        # Shifts beyond the image's end stand for those before its beginning.
        dy = y if y < scene.shape[0] else y - size[0]
        dx = x if x < scene.shape[1] else x - size[1]
        moved[:, 2] += (dx, dy)
        found.append((correlation[y, x], moved))
    if not found:
        raise TooLittle(
            f"fewer than {LEAST} pixels of the template count at a longer side of {SIDE} px, too "
            "few to find the part: give a larger mask, background or region of interest."
        )
    found.sort(key=lambda pair: -pair[0])
    return [scaled(matrix, 1 / factor) for _, matrix in found[:KEPT]]


def _grid(most: float | int, step: float) -> Float[np.ndarray, " n"]:
    """Return values from −most to most, at most one step apart and with 0 among them."""
    count = int(np.ceil(most / step))
    return np.linspace(-most, most, 2 * count + 1) if count else np.zeros(1)


def _correlate(
    scene: Sequence[Complex[np.ndarray, "H K"]],
    pose: Gray,
    mask: Mask,
    *,
    size: Sequence[int],
    least: float | int,
) -> Float[np.ndarray, "H W"]:
    """Compute the normalised correlation at each shift, −1 if fewer than `least` pixels are shared.

    Args:
      scene: Transforms of the image, of its square, and of its mask; all are 0 outside the mask.
      pose: Rotated and scaled template.
      mask: Mask of its pixels that count.
      size: Size of the transforms.
      least: Smallest number of shared pixels.
    """
    middle = pose[mask].mean()
    parts = [np.where(mask, pose - middle, 0), np.where(mask, (pose - middle) ** 2, 0), mask]
    t, t2, m = (np.conj(fft.rfft2(part.astype(np.float32), s=size)) for part in parts)
    i, i2, v = scene
    both = np.stack([v * m, i * m, i2 * m, v * t, v * t2, i * t])
    count, sum_i, sum_i2, sum_t, sum_t2, sum_it = fft.irfft2(both, s=size)
    count = np.maximum(np.rint(count), 1)
    covariance = sum_it - sum_i * sum_t / count
    variances = [sum_i2 - sum_i**2 / count, sum_t2 - sum_t**2 / count]
    # Variances below this are only rounding.
    floor = 1e-4 * count
    product = np.maximum(variances[0], floor) * np.maximum(variances[1], floor)
    return np.where(count >= least, covariance / np.sqrt(product), -1)
