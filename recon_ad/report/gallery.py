"""The panels on the page: pictures of single images, encoded to fit a size limit."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from recon_ad.report import markup, wording
from recon_ad.report.content import GOOD, Panel, Scale, SmallPanel
from recon_ad.report.pictures import (
    HEAT,
    LONG_SIDE,
    MASK_COLOUR,
    TRUTH_COLOUR,
    TRUTH_GAP,
    HeatScale,
    encode,
    heat_scale,
    line_width,
    panel_pictures,
    shrink_further,
    shrink_panel,
)
from recon_ad.report.sliders import slider

# Bytes of all pictures together. Base64 adds a third, so the page stays below 10 MB.
PICTURE_BYTES = 7_000_000
SMALL = 200  # pixels; smaller pictures are enlarged in hard pixels, not smoothed


class Encoding(NamedTuple):
    """The longer side in pixels at most, and JPEG quality, or None for PNG."""

    long_side: int
    quality: int | None


# Tried in this order until the pictures fit. Below 256 pixels size goes before sharpness.
LADDER = (
    Encoding(LONG_SIDE, None),
    Encoding(LONG_SIDE, 90),
    Encoding(LONG_SIDE, 75),
    Encoding(384, 75),
    Encoding(256, 75),
    Encoding(256, 50),
    Encoding(128, 50),
)


class Encoded(NamedTuple):
    """A picture's bytes and its (height, width)."""

    data: bytes
    shape: tuple[int, int]


def encode_levels(level: UInt8[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"] | None) -> bytes:
    """A grey PNG for the script: seven bits of `Marks.level`, and above them the truth."""
    bits = level if truth is None else level | (truth.astype(np.uint8) << 7)
    buffer = io.BytesIO()
    Image.fromarray(bits).save(buffer, "PNG")
    return buffer.getvalue()


def _encode_all(
    panels: Sequence[SmallPanel], *, scale: HeatScale, quality: int | None, limit: Real
) -> list[dict[str, Encoded]] | None:
    """Encodes all pictures; None as soon as they exceed `limit` bytes."""
    result, total = [], 0
    for panel in panels:
        made = {}
        for field, pixels in panel_pictures(panel, scale=scale)._asdict().items():
            if pixels is not None:
                made[field] = Encoded(encode(pixels, quality=quality), pixels.shape[:2])
        if panel.marks is not None:
            # Without loss on every rung: the script must see the very levels.
            data = encode_levels(panel.marks.level, panel.truth)
            made["levels"] = Encoded(data, panel.mask.shape)
        total += sum(len(picture.data) for picture in made.values())
        if total > limit:
            return None
        result.append(made)
    return result


def encode_panels(
    panels: Sequence[SmallPanel], *, scale: HeatScale, limit: int = PICTURE_BYTES
) -> tuple[list[dict[str, Encoded]], Encoding]:
    """The best rung of `LADDER` on which all pictures fit into `limit` bytes.

    Args:
      panels: what to show.
      scale: of the residuals' colours.
      limit: bytes of all pictures together. The last rung is taken even if it does not fit.

    Returns:
      For each panel its pictures by the field names of `Pictures`, and `levels` where it has
      marks; and the rung.
    """
    for encoding in LADDER:
        small = [shrink_further(panel, long_side=encoding.long_side) for panel in panels]
        allowed = math.inf if encoding == LADDER[-1] else limit
        result = _encode_all(small, scale=scale, quality=encoding.quality, limit=allowed)
        if result is not None:
            break
    return result, encoding


def _scale(scale: HeatScale) -> str:
    """The colour scale under a residual, in CSS."""
    stops = matplotlib.colormaps[HEAT](np.linspace(0, 1, 9), bytes=True)[:, :3]
    low = f"≤ {wording.significant(scale.bottom)}" if scale.bottom else "0"
    colours = ",".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in stops)
    return (
        f'<span class="scale"><span>{low}</span><span class="bar" '
        f'style="background:linear-gradient(90deg,{colours})"></span>'
        f"<span>≥ {wording.significant(scale.top)}</span></span>"
    )


def _captions(panel: SmallPanel, *, scale: HeatScale) -> dict[str, tuple[str, str]]:
    """Field of `Pictures` -> (markup under the picture, plain text for its alt)."""
    if panel.defective is None:
        truth = "a good image has no truth mask" if panel.defect == GOOD else "no truth mask"
    elif not panel.defective:
        truth = "nothing defective by the truth"
    else:
        truth = f"truth (dashed) {panel.defective:,} pixels"
    mask = "the detector marks nothing"
    if panel.marked:
        regions = "1 region" if panel.regions == 1 else f"{panel.regions:,} regions"
        mask = f"mask (solid) {panel.marked:,} pixels in {regions}"
    who = f"of {panel.name}"
    return {
        "image": ("Input", f"Input image {who}"),
        "reconstruction": ("Reconstruction", f"Reconstruction {who}"),
        "residual": (
            f"Residual {_scale(scale)}",
            f"Residual map {who}, highest value {wording.score(float(panel.residual.max()))}",
        ),
        # The script replaces what the mask's words stand in.
        "outlines": (
            f"Outlines: {truth}; <span>{mask}</span>",
            f"Input {who} with outlines: {truth}; {mask}",
        ),
    }


def _panel(
    panel: SmallPanel, pictures: Mapping[str, Encoded], encoding: Encoding, *, scale: HeatScale
) -> str:
    kind = "png" if encoding.quality is None else "jpeg"
    captions = _captions(panel, scale=scale)
    figures = []
    for field, (caption, alt) in captions.items():
        if field in pictures:
            data, shape = pictures[field]
            style = "small" if max(shape) < SMALL else ""
            body = markup.image(data, kind=kind, alt=alt, shape=shape, style=style)
            figures.append(
                f'<figure class="{field}">{body}<figcaption>{caption}</figcaption></figure>'
            )
        else:
            figures.append(
                '<figure class="none"><figcaption>This method makes no reconstruction.'
                "</figcaption></figure>"
            )
    return (
        f'<article class="panel"{_script_data(panel, pictures)}><h4>{markup.name(panel.name)}</h4>'
        f"<p>{markup.name(panel.defect)} · {_against(panel)}</p>"
        f'<div class="pictures">{"".join(figures)}</div></article>'
    )


def _script_data(panel: SmallPanel, pictures: Mapping[str, Encoded]) -> str:
    if panel.marks is None:
        return ""
    data, shape = pictures["levels"]
    return markup.data(
        {
            "levels": f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}",
            "pixels": " ".join(map(str, panel.marks.pixels)),
            "regions": " ".join(map(str, panel.marks.regions)),
            "line": line_width(shape),
        }
    )


def _against(panel: SmallPanel) -> str:
    if not wording.is_number(panel.score) or not wording.is_number(panel.threshold):
        return f"score {wording.score(panel.score)}"
    where = "above" if panel.score > panel.threshold else "not above"
    digits = wording.digits_apart(panel.score, panel.threshold)
    score, threshold = (wording.score(x, digits) for x in (panel.score, panel.threshold))
    return f"score {score}, {where} the threshold {threshold}"


def _small(panel: Panel | SmallPanel) -> SmallPanel:
    return panel if isinstance(panel, SmallPanel) else shrink_panel(panel)


def gallery(groups: Mapping[str, Iterable[Panel | SmallPanel] | str]) -> str:
    """The markup of all groups of panels; an empty group shows its sentence.

    Raises:
      ValueError: a panel's arrays do not fit each other, or two panels were shrunk for different
        sliders.
    """
    # By `map`, which lets go of a panel before it takes the next: two large ones never coexist.
    taken = {
        title: group if isinstance(group, str) else list(map(_small, group))
        for title, group in groups.items()
    }
    panels = [panel for group in taken.values() if not isinstance(group, str) for panel in group]
    scale = heat_scale(panels)
    encoded, encoding = encode_panels(panels, scale=scale)
    pictures = iter(encoded)
    parts = []
    if panels:
        parts.append(markup.paragraph(_legend(panels, encoding), kind="note"))
        parts.append(_slider(panels, encoding))
    for title, group in taken.items():
        parts.append(f"<h3>{markup.text(title)}</h3>")
        if isinstance(group, str) or not group:
            parts.append(markup.paragraph(markup.text(group or "None."), kind="note"))
            continue
        parts += [_panel(panel, next(pictures), encoding, scale=scale) for panel in group]
    return "".join(parts)


def _slider(panels: Sequence[SmallPanel], encoding: Encoding) -> str:
    scales = {panel.marks.scale for panel in panels if panel.marks is not None}
    if not scales:
        return ""
    if len(scales) > 1:
        raise ValueError(
            f"the panels were shrunk for {len(scales)} different pixel scales: a page has one "
            "slider for all, so give `shrink_panel` the same scale each time"
        )
    (scale,) = scales
    return slider(
        "pixel-threshold",
        "Pixel threshold",
        scale,
        looser="more pixels are marked",
        stricter="fewer pixels are marked",
        note=_resolution(scale, encoding),
        colours=" ".join(str(v) for c in (MASK_COLOUR, TRUTH_COLOUR, TRUTH_GAP) for v in c),
    )


def _resolution(scale: Scale, encoding: Encoding) -> str:
    return (
        f"{len(scale.values)} steps, spread by the rank and the value of the test pixels. At each, "
        "outlines show and figures count what the detector would mark, with "
        f"its minimum area; outlines are drawn at up to {encoding.long_side} pixels on the longer "
        "side, counts are of full resolution."
    )


def _legend(panels: Sequence[SmallPanel], encoding: Encoding) -> str:
    kind = "PNG" if encoding.quality is None else f"JPEG of quality {encoding.quality}"
    words = [
        "All residual maps share one colour scale, which saturates at its ends.",
        '<span class="key truth">dashed</span> is the truth, '
        '<span class="key mask">solid</span> what the detector marks in an image that it rejects.',
    ]
    if any(max(panel.size) > encoding.long_side for panel in panels):
        words.append(
            f"Images are shrunk for display to at most {encoding.long_side} pixels on the longer "
            "side; residuals and masks keep the maximum of the pixels that fall together, so "
            "a thin defect stays visible and looks wider than it is."
        )
    if {panel.channels for panel in panels} - {1, 3}:
        words.append("Of images that are neither grey nor RGB the first channel is shown.")
    words.append(f"Pictures are stored as {kind}; the figures were computed at full resolution.")
    return " ".join(words)
