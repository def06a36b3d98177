"""The weighted sum of residual maps set in the config."""

import functools
from collections.abc import Callable

from ml_collections import ConfigDict

from recon_ad.errors import UserError
from recon_ad.ops.residuals import Images, Map, absolute, squared, structural


def check_window(config: ConfigDict) -> None:
    """Check that `config.ssim` fits patches of `config.data.patch_size`.

    Raises:
      UserError: If the window is even, too small or too large, or of an unknown kind.
    """
    window, size = config.ssim.window, config.data.patch_size
    if window % 2 == 0 or not 1 < window <= size:
        raise UserError(
            f"config.ssim.window is {window}, but must be odd, at least 3, and at most the patch "
            f"size, {size} px."
        )
    if config.ssim.kind not in ("gaussian", "uniform"):
        raise UserError(
            f"unknown config.ssim.kind {config.ssim.kind!r}; choose one of: gaussian, uniform."
        )


LARGEST = 1e6  # largest weight of a residual, which keeps the map within float32


def weighted(config: ConfigDict) -> Callable[[Images, Images], Map]:
    """Return the sum of these maps with the weights of `config.residual`.

    Maps with weight 0 are not computed.

    Raises:
      UserError: If a weight is negative or above `LARGEST`, all are zero, or the SSIM has a weight
        and its window does not fit.
    """
    named = {
        "squared": squared,
        "absolute": absolute,
        "ssim": functools.partial(structural, window=config.ssim.window, kind=config.ssim.kind),
    }
    weights = {name: float(config.residual[name]) for name in named}
    if not all(0 <= weight <= LARGEST for weight in weights.values()) or not any(weights.values()):
        raise UserError(
            f"config.residual has the weights {weights}; each must be from 0 to {LARGEST:g}, and "
            "at least one above 0."
        )

    if weights["ssim"]:
        check_window(config)

    def residual(images: Images, reconstructions: Images) -> Map:
        return sum(
            weight * named[name](images, reconstructions)
            for name, weight in weights.items()
            if weight
        )

    return residual
