"""Panels on the page: pictures of single images, encoded to fit a size limit."""

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
SMALL = 200  # pixels; smaller pictures are enlarged without smoothing
GROUP, GAP = 40.0, 1.0  # rem, about the width of a group of cards on a desktop, and between cards
HIGH = 15.0  # rem, the largest height of a picture in a card, as in report.css
WIDE = 1.8  # width over height from which pictures are placed below each other


class Encoding(NamedTuple):
    """Largest longer side in pixels, and JPEG quality, or None for PNG."""

    long_side: int
    quality: int | None


# Tried in this order until the pictures fit: first less quality, then less size down to 256
# pixels, then still less of both.
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
    """Bytes of a picture and its (height, width)."""

    data: bytes
    shape: tuple[int, int]


def encode_levels(level: UInt8[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"] | None) -> bytes:
    """Encode a grey PNG for the script: seven bits of `Marks.level`, and the truth above them."""
    bits = level if truth is None else level | (truth.astype(np.uint8) << 7)
    buffer = io.BytesIO()
    Image.fromarray(bits).save(buffer, "PNG")
    return buffer.getvalue()


def _encode_all(
    panels: Sequence[SmallPanel], *, scale: HeatScale, quality: int | None, limit: Real
) -> list[dict[str, Encoded]] | None:
    """Encode all pictures, or return None as soon as they exceed `limit` bytes."""
    result, total = [], 0
    for panel in panels:
        made = {}
        for field, pixels in panel_pictures(panel, scale=scale)._asdict().items():
            if pixels is not None:
                made[field] = Encoded(encode(pixels, quality=quality), pixels.shape[:2])
        if panel.marks is not None:
            # Lossless on every rung, as the script needs the exact levels.
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
    """Encode all pictures at the best rung of `LADDER` on which they fit into `limit` bytes.

    Args:
      panels: Panels to show.
      scale: Colour scale of the residuals.
      limit: Bytes of all pictures together. The last rung is used even if it does not fit.

    Returns:
      Each panel's pictures by the field names of `Pictures`, with `levels` if it has marks; and
      the rung.
    """
    for encoding in LADDER:
        small = [shrink_further(panel, long_side=encoding.long_side) for panel in panels]
        allowed = math.inf if encoding == LADDER[-1] else limit
        result = _encode_all(small, scale=scale, quality=encoding.quality, limit=allowed)
        if result is not None:
            break
    return result, encoding


def _scale(scale: HeatScale) -> str:
    """Return the colour scale of all heat maps as markup."""
    stops = matplotlib.colormaps[HEAT](np.linspace(0, 1, 9), bytes=True)[:, :3]
    colours = ",".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in stops)
    low, high = (wording.significant(end) for end in scale)
    return (
        f'<span class="scale"><span>≤ {low}</span><span class="bar" '
        f'style="background:linear-gradient(90deg,{colours})"></span><span>≥ {high}</span></span>'
    )


def _captions(panel: SmallPanel) -> dict[str, tuple[str, str]]:
    """Return field of `Pictures` -> (markup under the picture, plain text for its alt)."""
    truth = ""
    if panel.defective:
        truth = f"true defect {panel.defective:,} px; "
    elif panel.defect != GOOD:
        truth = "no truth mask; " if panel.defective is None else "empty truth mask; "
    mask = "nothing marked"
    if panel.marked:
        regions = "1 region" if panel.regions == 1 else f"{panel.regions:,} regions"
        mask = f"marked {panel.marked:,} px in {regions}"
    who, highest = f"of {panel.name}", wording.score(float(panel.residual.max()))
    return {
        # The script replaces the content of the span.
        "outlines": (
            f"{truth}<span>{mask}</span>",
            f"Input {who} with outlines: {truth}{mask}",
        ),
        "residual": (
            f"highest value {highest}",
            f"Heat map {who}, highest value {highest}",
        ),
        "image": ("Input", f"Input image {who}"),
        "reconstruction": ("Reconstruction", f"Reconstruction {who}"),
    }


def _panel(panel: SmallPanel, pictures: Mapping[str, Encoded], encoding: Encoding) -> str:
    kind = "png" if encoding.quality is None else "jpeg"
    figures = {}
    for field, (caption, alt) in _captions(panel).items():
        if field in pictures:
            data, shape = pictures[field]
            style = "small" if max(shape) < SMALL else ""
            body = markup.image(data, kind=kind, alt=alt, shape=shape, style=style)
            figures[field] = (
                f'<figure class="{field}">{body}<figcaption>{caption}</figcaption></figure>'
            )
    seen = figures.pop("outlines") + figures.pop("residual")
    with_what = "reconstruction" if "reconstruction" in figures else "input"
    return (
        f'<article class="panel"{_script_data(panel, pictures)}><h4>{markup.name(panel.name)}</h4>'
        f"<p>{markup.name(panel.defect)} · {_against(panel)}</p>"
        f'<div class="pictures">{seen}</div>'
        f"<details><summary>Larger, with the {with_what}</summary>"
        f'<div class="pictures">{"".join(figures.values())}</div></details></article>'
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
    sign = "&gt;" if panel.score > panel.threshold else "≤"
    digits = wording.digits_apart(panel.score, panel.threshold)
    score, threshold = (wording.score(x, digits) for x in (panel.score, panel.threshold))
    return f"score {score} {sign} threshold {threshold}"


def _small(panel: Panel | SmallPanel) -> SmallPanel:
    return panel if isinstance(panel, SmallPanel) else shrink_panel(panel)


def gallery(groups: Mapping[str, Iterable[Panel | SmallPanel] | str]) -> str:
    """Return the markup of all groups of panels; an empty group shows its sentence.

    Raises:
      ValueError: If a panel's arrays do not fit each other, or two panels were shrunk for
        different sliders.
    """
    # `map` releases a panel before it takes the next, so two large ones never coexist.
    taken = {
        title: group if isinstance(group, str) else list(map(_small, group))
        for title, group in groups.items()
    }
    panels = [panel for group in taken.values() if not isinstance(group, str) for panel in group]
    if not taken:
        return ""
    scale = heat_scale(panels)
    encoded, encoding = encode_panels(panels, scale=scale)
    pictures = iter(encoded)
    layout = _layout(panels)
    parts = []
    for title, group in taken.items():
        if isinstance(group, str) or not group:
            words = f"<b>{markup.text(title)}</b> {markup.text(group or 'No images.')}"
            parts.append(markup.paragraph(words, kind="empty"))
            continue
        shown = _cards([_panel(p, next(pictures), encoding) for p in group], layout)
        parts.append(f"<div><h3>{markup.text(title)}</h3>{shown}</div>")
    groups_shown = f'<div class="groups">{"".join(parts)}</div>'
    if not panels:
        return groups_shown
    legend = markup.paragraph(_legend(panels, scale), kind="legend")
    stored = markup.paragraph(_stored(panels, encoding), kind="note")
    return legend + groups_shown + _slider(panels, encoding) + stored


class Layout(NamedTuple):
    """Layout of the cards of panels.

    Attributes:
      card: Least width of a card, in rem.
      wide: True if a card's pictures are placed below each other.
    """

    card: float
    wide: bool


def _layout(panels: Sequence[SmallPanel]) -> Layout:
    """Choose narrow cards for portraits, and pictures below each other if they are wide."""
    ratios = [panel.size[1] / panel.size[0] for panel in panels]
    ratio = float(np.median(ratios)) if ratios else 1.0
    if ratio > WIDE:
        return Layout(18.0, wide=True)
    return Layout(round(max(10.0, 2 * min(9.5, HIGH * ratio) + 0.5), 2), wide=False)


def _cards(cards: Sequence[str], layout: Layout) -> str:
    """Return the markup of the first row of cards, with the other cards folded."""
    first = max(2, int((GROUP + GAP) // (layout.card + GAP)))
    kind = "panels wide" if layout.wide else "panels"
    start = f'<div class="{kind}" style="--card:{layout.card}rem">'
    shown = f"{start}{''.join(cards[:first])}</div>"
    if len(cards) > first:
        more = f"{start}{''.join(cards[first:])}</div>"
        shown += f"<details><summary>{len(cards) - first} more</summary>{more}</details>"
    return shown


def _slider(panels: Sequence[SmallPanel], encoding: Encoding) -> str:
    scales = {panel.marks.scale for panel in panels if panel.marks is not None}
    if not scales:
        return ""
    if len(scales) > 1:
        raise ValueError(
            f"the panels were shrunk for {len(scales)} different pixel scales, but a page has one "
            "slider for all; give `shrink_panel` the same scale each time"
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
        f"The slider has {len(scale.values)} steps, spread by the rank and the value of the test "
        "pixels. Outlines and counts show what the detector would mark at that threshold, with its "
        f"minimum area. Outlines are drawn at up to {encoding.long_side} pixels on the longer "
        "side; counts are at full resolution."
    )


def _legend(panels: Sequence[SmallPanel], scale: HeatScale) -> str:
    middle = ""
    known = [panel.pixel_threshold for panel in panels if panel.pixel_threshold is not None]
    if known and max(known) > scale.bottom:
        middle = "; its middle is the threshold above which pixels are marked"
    truth = '<span class="key truth">dashed</span> true defect, '
    return (
        truth * any(panel.defective for panel in panels) + '<span class="key mask">solid</span> '
        f"marks of the detector in images that it stops. Heat map: {_scale(scale)}. Its scale "
        f"begins at the median of good pixels{middle}."
    )


def _stored(panels: Sequence[SmallPanel], encoding: Encoding) -> str:
    kind = "PNG" if encoding.quality is None else f"JPEG of quality {encoding.quality}"
    words = []
    if any(max(panel.size) > encoding.long_side for panel in panels):
        words.append(
            f"Images are shrunk for display to at most {encoding.long_side} pixels on the longer "
            "side. Heat maps and masks keep the maximum of the merged pixels, so a thin defect "
            "stays visible and looks wider than it is."
        )
    if {panel.channels for panel in panels} - {1, 3}:
        words.append("Images that are neither grey nor RGB show only their first channel.")
    words.append(f"Pictures are stored as {kind}; the figures were computed at full resolution.")
    return " ".join(words)
