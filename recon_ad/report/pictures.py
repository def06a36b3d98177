"""Panels as pixels: colour, shrinking, outlines and encoding, all in NumPy uint8 [h, w, 3].

Images are shrunk by the mean, residuals and masks by the maximum, so that a defect thinner than
a displayed pixel stays visible.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from recon_ad.report.content import Panel

HEAT = "inferno"  # perceptually uniform, and monotonous in brightness when printed in grey
TRUTH_COLOUR = (0, 200, 255)
TRUTH_GAP = (0, 50, 90)
MASK_COLOUR = (255, 120, 0)
NOT_FINITE_IMAGE = (255, 0, 255)  # a diverged reconstruction must not pass for a black one
NOT_FINITE_RESIDUAL = (128, 128, 128)
PAPER = 255


class Pictures(NamedTuple):
    """One panel ready to be shown: uint8 [h, w, 3] each, all of one size.

    Attributes:
      image: the input.
      reconstruction: the reconstruction, or None.
      residual: the residual in colours.
      outlines: the input with the truth outlined (dashed) and the detector's mask (solid).
    """

    image: np.ndarray
    reconstruction: np.ndarray | None
    residual: np.ndarray
    outlines: np.ndarray


def check_panel(panel: Panel) -> None:
    """Raises `ValueError`, naming the panel and the field, where shapes or types do not fit."""
    image = panel.image
    if image.ndim != 3 or 0 in image.shape or image.dtype.kind != "f":
        raise ValueError(
            f"panel {panel.name!r}: image must be floating point [h, w, c] in [0, 1], "
            f"got {image.dtype} {image.shape}"
        )
    shape = image.shape[:2]
    for field, kind in (("residual", "f"), ("truth", "b"), ("mask", "b")):
        value = getattr(panel, field)
        if value is None and field == "truth":
            continue
        if value.shape != shape or value.dtype.kind != kind:
            wanted = "floating point" if kind == "f" else "bool"
            raise ValueError(
                f"panel {panel.name!r}: {field} must be {wanted} {shape} like the image, "
                f"got {value.dtype} {value.shape}"
            )
    made = panel.reconstruction
    if made is not None and (made.shape != image.shape or made.dtype.kind != "f"):
        raise ValueError(
            f"panel {panel.name!r}: reconstruction must be floating point {image.shape} like the "
            f"image, got {made.dtype} {made.shape}"
        )


def shown_channels(image: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h w k"]:
    """The channels that can be shown: all of three, otherwise the first one."""
    return image if image.shape[2] == 3 else image[..., :1]


def rgb(image: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image in [0, 1] as bytes: three channels as RGB, otherwise the first one as grey.

    Values outside are clipped; pixels that are not finite turn magenta.
    """
    shown = shown_channels(image)
    finite = np.isfinite(shown)
    pixels = np.rint(np.clip(np.where(finite, shown, 0), 0, 1) * 255).astype(np.uint8)
    pixels = np.repeat(pixels, 3 // shown.shape[2], axis=2)
    pixels[~finite.all(axis=2)] = NOT_FINITE_IMAGE
    return pixels


def heat(residual: Float[np.ndarray, "h w"], *, top: float) -> UInt8[np.ndarray, "h w 3"]:
    """A residual map in colours from 0 to `top`; higher values saturate, NaN is grey."""
    level = np.clip(np.where(np.isnan(residual), 0, residual) / top, 0, 1)
    pixels = matplotlib.colormaps[HEAT](level, bytes=True)[..., :3].copy()
    pixels[np.isnan(residual)] = NOT_FINITE_RESIDUAL
    return pixels


def heat_top(panels: Sequence[Panel]) -> float:
    """The upper end of the colour scale that all of `panels` share, in units of the residual.

    It is the upper quartile of the panels' maxima: one glaring image may not turn all others
    black, and where most panels are quiet they must look so. 1 where no residual is above 0.
    """
    peaks = [np.max(p.residual, where=np.isfinite(p.residual), initial=0.0) for p in panels]
    top = float(np.quantile(peaks, 0.75)) if peaks else 0.0
    if top <= 0:
        top = float(max(peaks, default=0.0))
    return top if top > 0 else 1.0


def display_shape(height: int, width: int, *, long_side: int) -> tuple[int, int]:
    """The shape (height, width) at which an image fits into `long_side`; never enlarged."""
    scale = min(1.0, long_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _pool(values: np.ndarray, shape: tuple[int, int], join: np.ufunc) -> np.ndarray:
    """Joins the first two axes down to `shape`, in blocks whose sizes differ by one at most."""
    for axis in (0, 1):
        size = values.shape[axis]
        bounds = np.arange(shape[axis] + 1) * size // shape[axis]
        first, end = bounds[:-1], bounds[1:]
        pooled = np.take(values, first, axis)
        # One pass for each place within the blocks: `join.reduceat` takes ten times as long.
        for place in range(1, int(np.max(end - first))):
            inside = first + place < end
            piece = np.take(values, np.minimum(first + place, size - 1), axis)
            inside = inside.reshape((-1,) + (1,) * (values.ndim - 1 - axis))
            join(pooled, piece, out=pooled, where=inside)
        values = pooled
    return values


def shrink_mean(
    image: Float[np.ndarray, "h w c"], shape: tuple[int, int]
) -> Float[np.ndarray, "p q c"]:
    """Shrinks an image to `shape`, each new pixel the mean of a block; NaN spreads to its block."""
    if image.shape[:2] == shape:
        return image
    total = _pool(image, shape, np.add)
    count = _pool(np.ones((*image.shape[:2], 1), image.dtype), shape, np.add)
    return total / count


def shrink_max(
    values: Float[np.ndarray, "h w"] | Bool[np.ndarray, "h w"], shape: tuple[int, int]
) -> Float[np.ndarray, "p q"] | Bool[np.ndarray, "p q"]:
    """Shrinks a map or mask to `shape`, each new pixel the maximum of a block, NaN left out."""
    return _pool(values, shape, np.fmax)


def _grow(mask: Bool[np.ndarray, "h w"], radius: int, *, outside: bool) -> np.ndarray:
    """Dilation by a square of side 2 radius + 1; beyond the border all is `outside`."""
    for axis in (0, 1):
        size = mask.shape[axis]
        pad = [(0, 0), (0, 0)]
        pad[axis] = (radius, radius)
        wide = np.pad(mask, pad, constant_values=outside)
        shifts = [np.take(wide, np.arange(s, s + size), axis) for s in range(2 * radius + 1)]
        mask = np.logical_or.reduce(shifts)
    return mask


def outlined(
    pixels: UInt8[np.ndarray, "h w 3"],
    *,
    truth: Bool[np.ndarray, "h w"] | None,
    mask: Bool[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with the mask's edge as a solid line and the truth's as a dashed one around it.

    The two lines lie beside each other, so neither hides the other where mask and truth agree.
    Their width grows with the picture, which is shown at about the same size whatever it holds.
    """
    width = max(1, round(max(mask.shape) / 200))
    half = (width + 1) // 2
    drawn = pixels.copy()
    inside = ~_grow(~mask, half, outside=True)
    drawn[_grow(mask, half, outside=False) & ~inside] = MASK_COLOUR
    if truth is not None:
        ring = _grow(truth, half + width, outside=False) & ~_grow(truth, half, outside=False)
        rows, columns = np.indices(mask.shape)
        # Gaps are dark, not empty: along one diagonal this pattern has no dashes, only one colour.
        dash = (rows + columns) % (5 * width) < 3 * width
        drawn[ring] = np.where(dash[ring, None], TRUTH_COLOUR, TRUTH_GAP)
    return drawn


def panel_pictures(panel: Panel, *, long_side: int, top: float) -> Pictures:
    """Shrinks and colours one panel.

    Args:
      panel: what to show.
      long_side: pixels on the longer side at most.
      top: the residual at which the colour scale ends, see `heat_top`.

    Raises:
      ValueError: the panel's arrays do not fit each other.
    """
    check_panel(panel)
    shape = display_shape(*panel.image.shape[:2], long_side=long_side)
    # Shrunk before it is coloured: that is the smaller part of the work on a large image.
    image = rgb(shrink_mean(shown_channels(panel.image), shape))
    made = panel.reconstruction
    return Pictures(
        image=image,
        reconstruction=None if made is None else rgb(shrink_mean(shown_channels(made), shape)),
        residual=heat(shrink_max(panel.residual, shape), top=top),
        outlines=outlined(
            image,
            truth=None if panel.truth is None else shrink_max(panel.truth, shape),
            mask=shrink_max(panel.mask, shape),
        ),
    )


def encode(pixels: UInt8[np.ndarray, "h w 3"], *, quality: int | None) -> bytes:
    """PNG where `quality` is None, else JPEG of that quality (1 to 95)."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if quality is None:
        picture.save(buffer, "PNG")
    else:
        # Full chroma resolution: with JPEG's usual half, thin coloured outlines wash out. No
        # `optimize`: Pillow then needs a buffer for the whole picture, and noise overflows it.
        picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def reconstruction_sheet(
    inputs: Float[np.ndarray, "n h w c"],
    reconstructions: Float[np.ndarray, "n h w c"],
    *,
    pairs_per_row: int = 4,
    gap: int = 2,
) -> UInt8[np.ndarray, "p q 3"]:
    """Patches beside their reconstructions, pair by pair: what training learns, seen as it goes.

    Args:
      inputs: patches in [0, 1], clipped for display; non-finite pixels turn magenta.
      reconstructions: what the network made of them.
      pairs_per_row: how many pairs stand side by side.
      gap: white pixels between input and reconstruction; pairs stand three gaps apart.

    Returns:
      One picture, row by row in the order of the patches.

    Raises:
      ValueError: there is no patch, or a setting is out of range.
    """
    count, height, width, _ = inputs.shape
    if count == 0 or pairs_per_row < 1 or gap < 0:
        raise ValueError(
            "a reconstruction sheet needs one patch, one pair per row and a gap of 0 at least, "
            f"got {count}, {pairs_per_row} and {gap}"
        )
    columns = min(pairs_per_row, count)
    rows = -(-count // columns)
    step_y, step_x = height + 3 * gap, 2 * width + 4 * gap
    sheet = np.full((rows * step_y - 3 * gap, columns * step_x - 3 * gap, 3), PAPER, np.uint8)
    for index, (patch, made) in enumerate(zip(inputs, reconstructions, strict=True)):
        y, x = index // columns * step_y, index % columns * step_x
        sheet[y : y + height, x : x + width] = rgb(patch)
        x += width + gap
        sheet[y : y + height, x : x + width] = rgb(made)
    return sheet
