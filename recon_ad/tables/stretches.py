"""Residual of harmless dark stretches compared with defects (Schneider et al. 2022, Fig. 7).

The riblet foil's first damaged image has darker stretches along its tracks that are not defects. If
the residual is higher there than on a defect, it raises a false alarm before it finds the defect.
Images are [h, w, c], maps float [h, w], truths bool [h, w].
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage

from recon_ad.data import Record, Source
from recon_ad.data.arrays import to_unit
from recon_ad.detector.jax_detector import Detector
from recon_ad.evaluation.judge import truth_of
from recon_ad.report.pictures import display_shape, shrink_max

LONG_SIDE = 900  # px of the shrunk image in which defects are separated
JOINED = 4  # px in that image; pixels of one defect may be up to twice as far apart


class Stretches(NamedTuple):
    """A damaged image, and its residual on the defects, on the darkest stretch, and elsewhere.

    Attributes:
      image: Image [h, w, c].
      truth: Defective pixels.
      dark: Darkest square without a defective pixel, as large as a patch.
      residual: Stitched residual map.
      small: Number of the defect (1, 2, …) to which a pixel of the shrunk image belongs, else 0.
      means: Mean residual on each defect.
      on_dark: Mean residual on the dark stretch.
      elsewhere: Mean residual on all other pixels.
    """

    image: Shaped[np.ndarray, "h w c"]
    truth: Bool[np.ndarray, "h w"]
    dark: Bool[np.ndarray, "h w"]
    residual: Float[np.ndarray, "h w"]
    small: Int[np.ndarray, "p q"]
    means: Float[np.ndarray, " n"]
    on_dark: float
    elsewhere: float

    @property
    def above(self) -> int:
        """The number of defects with a higher mean residual than the dark stretch."""
        return int(np.count_nonzero(self.means > self.on_dark))


def first_defective(source: Source) -> Record:
    """Return the first defective test image, which has dark stretches on the riblet foil."""
    return next(record for record in source.test if record.anomalous)


def look_at_stretches(detector: Detector, source: Source) -> Stretches:
    """Compute the residual of the first damaged image on defects and dark stretches."""
    record = first_defective(source)
    image = record.load()
    truth = truth_of(record, image.shape[:2])
    assert truth is not None
    residual, _ = detector.residual_map(image)
    return compared(image, truth, residual, side=detector.config.data.patch_size)


def compared(
    image: Shaped[np.ndarray, "h w c"],
    truth: Bool[np.ndarray, "h w"],
    residual: Float[np.ndarray, "h w"],
    *,
    side: int,
) -> Stretches:
    """Compare each defect with the darkest square, of `side` px, without a defective pixel."""
    top, left = darkest_window(to_unit(image)[..., 0], truth, side=side)
    dark = np.zeros(truth.shape, bool)
    dark[top : top + side, left : left + side] = True
    shape = display_shape(*truth.shape, long_side=LONG_SIDE)
    small, number = ndimage.label(
        ndimage.binary_dilation(shrink_max(truth, shape), iterations=JOINED)
    )
    # Back to full size by the nearest pixel, which is exact enough for this distance of defects.
    index = (np.arange(n) * new // n for n, new in zip(truth.shape, shape, strict=True))
    means = ndimage.mean(residual, small[np.ix_(*index)] * truth, np.arange(1, number + 1))
    return Stretches(
        image,
        truth,
        dark,
        residual,
        small,
        np.asarray(means),
        float(residual[dark].mean()),
        float(residual[~truth & ~dark].mean()),
    )


def summary(seen: Stretches) -> dict[str, Any]:
    """Return the comparison as figures for a table's file."""
    return {
        "defects": len(seen.means),
        "above": seen.above,
        "on_defects": float(seen.residual[seen.truth].mean()),
        "on_dark": seen.on_dark,
        "elsewhere": seen.elsewhere,
    }


def darkest_window(
    image: Float[np.ndarray, "h w"], excluded: Bool[np.ndarray, "h w"], *, side: int
) -> tuple[int, int]:
    """Return the top left corner of the darkest square without an excluded pixel."""
    sums = _window_sums(image, side)
    sums[_window_sums(excluded.astype(np.float64), side) > 0] = np.inf
    top, left = np.unravel_index(np.argmin(sums), sums.shape)
    return int(top), int(left)


def _window_sums(values: Float[np.ndarray, "h w"], side: int) -> Float[np.ndarray, "p q"]:
    """Return the sums over all squares of that side, by their top left corner."""
    total = np.pad(values, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    return total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
