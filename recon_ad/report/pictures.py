"""Pixels of panels: shrinking, colour, outlines and encoding, all in NumPy uint8 [h, w, 3].

Images are shrunk by the mean, residuals and masks by the maximum, so that a defect thinner than
a displayed pixel stays visible. A full-size panel is shrunk once, by `shrink_panel`, and is not
needed afterwards.
"""

import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image
from scipy import ndimage

from recon_ad.ops.masks import count_regions
from recon_ad.report.content import GOOD, Marks, Panel, Scale, SmallPanel

HEAT = "inferno"  # perceptually uniform, and monotonic in brightness when printed in grey
TRUTH_COLOUR = (0, 200, 255)
TRUTH_GAP = (0, 50, 90)
MASK_COLOUR = (255, 120, 0)
NOT_FINITE_IMAGE = (255, 0, 255)  # a diverged reconstruction must not pass for a black one
NOT_FINITE_RESIDUAL = (128, 128, 128)
LOOKED_AT = 512  # largest number of pixels along a side for the median
PAPER = 255
LONG_SIDE = 512  # largest number of pixels along the longer side of a picture on the page
MAX_LEVELS = 127  # seven bits, as the eighth bit of the embedded map is the truth


class Pictures(NamedTuple):
    """Pictures of one panel, ready to be shown: uint8 [h, w, 3] each, all of one size.

    Attributes:
      image: Input.
      reconstruction: Reconstruction, or None.
      residual: Residual in colours.
      outlines: Input with the truth (dashed) and the detector's mask (solid) outlined.
    """

    image: np.ndarray
    reconstruction: np.ndarray | None
    residual: np.ndarray
    outlines: np.ndarray


def check_panel(panel: Panel) -> None:
    """Check the shapes and types of a panel's arrays.

    Raises:
      ValueError: If they do not fit each other; the message names the panel and the field.
    """
    image = panel.image
    if image.ndim != 3 or 0 in image.shape or image.dtype.kind not in "fu":
        raise ValueError(
            f"panel {panel.name!r}: image must be unsigned or floating point [h, w, c], "
            f"not {image.dtype} {image.shape}"
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
                f"not {value.dtype} {value.shape}"
            )
    made = panel.reconstruction
    if made is not None and (made.shape != image.shape or made.dtype.kind != "f"):
        raise ValueError(
            f"panel {panel.name!r}: reconstruction must be floating point {image.shape} like the "
            f"image, not {made.dtype} {made.shape}"
        )


def shown_channels(image: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "h w k"]:
    """Return the channels that can be shown: all if there are three, otherwise the first."""
    return image if image.shape[2] == 3 else image[..., :1]


def rgb(image: Shaped[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an image in [0, 1] or bytes to bytes: three channels as RGB, else the first as grey.

    Values outside the range are clipped; pixels that are not finite turn magenta.
    """
    shown = shown_channels(image)
    if shown.dtype == np.uint8:
        return np.repeat(shown, 3 // shown.shape[2], axis=2)
    finite = np.isfinite(shown)
    pixels = np.rint(np.clip(np.where(finite, shown, 0), 0, 1) * 255).astype(np.uint8)
    pixels = np.repeat(pixels, 3 // shown.shape[2], axis=2)
    pixels[~finite.all(axis=2)] = NOT_FINITE_IMAGE
    return pixels


class HeatScale(NamedTuple):
    """Residuals at the two ends of the colour scale."""

    bottom: float
    top: float


def heat(residual: Float[np.ndarray, "h w"], *, scale: HeatScale) -> UInt8[np.ndarray, "h w 3"]:
    """Colour a residual map; values beyond the scale's ends saturate, NaN is grey."""
    known = np.where(np.isnan(residual), scale.bottom, residual)
    level = np.clip((known - scale.bottom) / (scale.top - scale.bottom), 0, 1)
    pixels = matplotlib.colormaps[HEAT](level, bytes=True)[..., :3].copy()
    pixels[np.isnan(residual)] = NOT_FINITE_RESIDUAL
    return pixels


def heat_scale(panels: Sequence[SmallPanel]) -> HeatScale:
    """Return the colour scale that all of `panels` share, in units of the residual.

    It begins at the median of good pixels and has the pixel threshold in its middle. So good
    regions are dark, even where distances of features or likelihoods are far from 0, and marked
    regions are bright. Without a threshold the scale ends at the upper quartile of the panels'
    maxima, so that one extreme image does not turn all others black. Where all residuals are equal,
    it runs from 0 to 1.
    """
    good = [p.typical for p in panels if p.defect == GOOD] or [p.typical for p in panels]
    typical = [value for value in good if np.isfinite(value)]
    bottom = float(np.median(typical)) if typical else 0.0
    known = [p.pixel_threshold for p in panels if p.pixel_threshold is not None]
    middle = float(np.median(known)) if known else np.nan
    finite = [p.residual[np.isfinite(p.residual)] for p in panels]
    peaks = [float(values.max()) for values in finite if values.size]
    for top in (2 * middle - bottom, float(np.quantile(peaks or [0.0], 0.75)), max(peaks or [0.0])):
        if np.isfinite(top) and bottom < top:
            return HeatScale(bottom, top)
    return HeatScale(0.0, 1.0)


def display_shape(height: int, width: int, *, long_side: int) -> tuple[int, int]:
    """Return the shape (height, width) at which an image fits into `long_side`, never enlarged."""
    scale = min(1.0, long_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _pool(values: np.ndarray, shape: tuple[int, int], join: np.ufunc) -> np.ndarray:
    """Reduce the first two axes to `shape`, in blocks whose sizes differ by one at most."""
    for axis in (0, 1):
        size = values.shape[axis]
        bounds = np.arange(shape[axis] + 1) * size // shape[axis]
        first, end = bounds[:-1], bounds[1:]
        before = (slice(None),) * axis
        # Indexed, as np.take would first copy the whole array if it is a view.
        pooled = values[(*before, first)]
        if join is np.add:  # bytes would overflow
            pooled = pooled.astype(np.result_type(values, np.float32), copy=False)
        # One pass for each place within the blocks, as `join.reduceat` takes ten times as long.
        for place in range(1, int(np.max(end - first))):
            inside = first + place < end
            piece = values[(*before, np.minimum(first + place, size - 1))]
            inside = inside.reshape((-1,) + (1,) * (values.ndim - 1 - axis))
            join(pooled, piece, out=pooled, where=inside)
        values = pooled
    return np.array(values, order="C")  # a copy, as NumPy's indexing may return a view


def shrink_mean(
    image: Shaped[np.ndarray, "h w c"], shape: tuple[int, int]
) -> Float[np.ndarray, "p q c"]:
    """Shrink an image to `shape`, each new pixel the mean of a block; NaN spreads to its block.

    Integers become floats in [0, 1]; only the remaining pixels are converted, to save memory.
    """
    white = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    if image.shape[:2] == shape:
        return image if white == 1 else image / np.float32(white)
    total = _pool(image, shape, np.add)
    rows, columns = (
        np.diff(np.arange(new + 1) * old // new).astype(total.dtype)
        for old, new in zip(image.shape[:2], shape, strict=True)
    )
    return total / (np.outer(rows, columns)[..., None] * total.dtype.type(white))


def shrink_max(
    values: Shaped[np.ndarray, "h w"], shape: tuple[int, int]
) -> Shaped[np.ndarray, "p q"]:
    """Shrink a map or mask to `shape`, each new pixel the maximum of a block, ignoring NaN."""
    return _pool(values, shape, np.fmax)


def _grow(mask: Bool[np.ndarray, "h w"], radius: int, *, outside: bool) -> np.ndarray:
    """Dilate a mask by a square of side 2 radius + 1; beyond the border it is `outside`."""
    grown = mask.view(np.uint8)
    for axis in (0, 1):
        grown = ndimage.maximum_filter1d(
            grown, 2 * radius + 1, axis, mode="constant", cval=float(outside)
        )
    return grown.view(bool)


def line_width(shape: tuple[int, int]) -> int:
    """Return an outline's width; larger pictures, displayed at the same size, have a wider one."""
    return max(1, round(max(shape) / 200))


def outlined(
    pixels: UInt8[np.ndarray, "h w 3"],
    *,
    truth: Bool[np.ndarray, "h w"] | None,
    mask: Bool[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the mask's edge as a solid line and the truth's as a dashed line around it.

    The two lines lie beside each other, so neither hides the other where mask and truth agree.
    The page's script draws exactly the same pixels when its slider is moved.
    """
    width = line_width(mask.shape)
    half = (width + 1) // 2
    drawn = pixels.copy()
    inside = ~_grow(~mask, half, outside=True)
    drawn[_grow(mask, half, outside=False) & ~inside] = MASK_COLOUR
    if truth is not None:
        ring = _grow(truth, half + width, outside=False) & ~_grow(truth, half, outside=False)
        rows, columns = np.indices(mask.shape)
        # Gaps are dark, not empty, as along one diagonal the whole line is dash or gap.
        dash = (rows + columns) % (5 * width) < 3 * width
        drawn[ring] = np.where(dash[ring, None], TRUTH_COLOUR, TRUTH_GAP)
    return drawn


def shrink_panel(
    panel: Panel,
    *,
    scale: Scale | None = None,
    mask_at: Callable[[float], Bool[np.ndarray, "h w"]] | None = None,
    long_side: int = LONG_SIDE,
) -> SmallPanel:
    """Shrink a panel to the size at which the page shows it.

    Args:
      panel: Panel of any size. No reference to it is kept.
      scale: Pixel thresholds that the page's slider will offer. None means no slider. Its
        calibrated threshold must be the one that made the panel's mask.
      mask_at: Function that returns the detector's mask, bool [h, w], at another pixel threshold.
        It must follow the rule that made the panel's mask (minimum area, region of interest), and
        a higher threshold must not mark pixels that a lower one does not. None means the rule
        "residual above threshold".
      long_side: Largest number of pixels along the longer side.

    Raises:
      ValueError: If the panel's arrays do not fit each other, or its mask does not fit the masks
        at the thresholds around its own.
    """
    check_panel(panel)
    shape = display_shape(*panel.image.shape[:2], long_side=long_side)
    # Shrunk before colouring, which is then cheap even for a large image.
    made, truth = panel.reconstruction, panel.truth
    mask = shrink_max(panel.mask, shape)
    marks = None
    if scale is not None:
        marks = _marks(panel, scale, mask_at or (lambda t: panel.residual > t), shown=mask)
    return SmallPanel(
        name=panel.name,
        defect=panel.defect,
        score=panel.score,
        threshold=panel.threshold,
        image=rgb(shrink_mean(shown_channels(panel.image), shape)),
        reconstruction=None if made is None else rgb(shrink_mean(shown_channels(made), shape)),
        residual=shrink_max(panel.residual, shape),
        truth=None if truth is None else shrink_max(truth, shape),
        mask=mask,
        size=panel.image.shape[:2],
        channels=panel.image.shape[2],
        defective=None if truth is None else int(np.count_nonzero(truth)),
        marked=int(np.count_nonzero(panel.mask)),
        regions=count_regions(panel.mask),
        typical=_typical(panel.residual, panel.truth),
        pixel_threshold=panel.pixel_threshold,
        marks=marks,
    )


def _typical(residual: Float[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"] | None) -> float:
    """Return the median of the pixels that are not defective; NaN where none is finite."""
    every = tuple(slice(None, None, -(-side // LOOKED_AT)) for side in residual.shape)
    kept = np.isfinite(residual[every])
    if truth is not None:
        kept &= ~truth[every]
    return float(np.median(residual[every][kept])) if kept.any() else float("nan")


def _marks(
    panel: Panel,
    scale: Scale,
    mask_at: Callable[[float], Bool[np.ndarray, "h w"]],
    *,
    shown: Bool[np.ndarray, "p q"],
) -> Marks:
    """Compute the mask at each threshold in turn; `shown` is the panel's own mask, shrunk."""
    if len(scale.values) > MAX_LEVELS:
        raise ValueError(
            f"a slider for masks can have {MAX_LEVELS} steps at most, not {len(scale.values)}"
        )
    level = np.zeros(shown.shape, np.uint8)
    pixels, regions = [], []
    for place, threshold in enumerate(scale.values):
        mask = panel.mask if place == scale.start else mask_at(threshold)
        # Thresholds ascend, so the highest one that marks a pixel remains.
        level[shown if place == scale.start else shrink_max(mask, shown.shape)] = place + 1
        pixels.append(int(np.count_nonzero(mask)))
        regions.append(count_regions(mask))
    if not np.array_equal(level > scale.start, shown):
        raise ValueError(
            f"panel {panel.name!r}: its mask and those at other thresholds are not nested; "
            "`mask_at` must follow the rule that made the mask, and the scale must start at the "
            "threshold that made it"
        )
    return Marks(scale, level, tuple(pixels), tuple(regions))


def shrink_further(panel: SmallPanel, *, long_side: int) -> SmallPanel:
    """Shrink a panel again if the page would otherwise grow too large."""
    shape = display_shape(*panel.mask.shape, long_side=long_side)
    if shape == panel.mask.shape:
        return panel

    def pixels(image: np.ndarray | None) -> np.ndarray | None:
        if image is None:
            return None
        resized = Image.fromarray(image).resize(shape[::-1], Image.Resampling.BOX)
        return np.asarray(resized)

    marks = panel.marks
    return panel._replace(
        image=pixels(panel.image),
        reconstruction=pixels(panel.reconstruction),
        residual=shrink_max(panel.residual, shape),
        truth=None if panel.truth is None else shrink_max(panel.truth, shape),
        mask=shrink_max(panel.mask, shape),
        marks=None if marks is None else marks._replace(level=shrink_max(marks.level, shape)),
    )


def panel_pictures(panel: SmallPanel, *, scale: HeatScale) -> Pictures:
    """Draw the pictures of one panel with the common colour scale."""
    return Pictures(
        image=panel.image,
        reconstruction=panel.reconstruction,
        residual=heat(panel.residual, scale=scale),
        outlines=outlined(panel.image, truth=panel.truth, mask=panel.mask),
    )


def encode(pixels: UInt8[np.ndarray, "h w 3"], *, quality: int | None) -> bytes:
    """Encode as PNG if `quality` is None, else as JPEG of that quality (1 to 95)."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if quality is None:
        picture.save(buffer, "PNG")
    else:
        # Full chroma resolution, as JPEG's usual half washes out thin coloured outlines. No
        # `optimize`, as Pillow then needs a buffer for the whole picture, which noise overflows.
        picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
