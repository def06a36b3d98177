"""The panels on the page: pictures of single images, encoded to fit a size limit."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import NamedTuple

import matplotlib
import numpy as np

from recon_ad.report import markup, wording
from recon_ad.report.content import GOOD, Panel
from recon_ad.report.pictures import HEAT, Pictures, encode, heat_top, panel_pictures

# Bytes of all pictures together. Base64 adds a third, so the page stays below 10 MB.
PICTURE_BYTES = 7_000_000
SMALL = 200  # pixels; smaller pictures are enlarged in hard pixels, not smoothed


class Encoding(NamedTuple):
    """The longer side in pixels at most, and JPEG quality, or None for PNG."""

    long_side: int
    quality: int | None


# Tried in this order until the pictures fit. Below 256 pixels size goes before sharpness.
LADDER = (
    Encoding(512, None),
    Encoding(512, 90),
    Encoding(512, 75),
    Encoding(384, 75),
    Encoding(256, 75),
    Encoding(256, 50),
    Encoding(128, 50),
)


class Encoded(NamedTuple):
    """A picture's bytes and its (height, width)."""

    data: bytes
    shape: tuple[int, int]


def _encode_all(
    drawn: Sequence[Pictures], *, quality: int | None, limit: Real
) -> list[dict[str, Encoded]] | None:
    """Encodes all pictures; None as soon as they exceed `limit` bytes."""
    result, total = [], 0
    for pictures in drawn:
        made = {}
        for field, pixels in pictures._asdict().items():
            if pixels is not None:
                made[field] = Encoded(encode(pixels, quality=quality), pixels.shape[:2])
                total += len(made[field].data)
        if total > limit:
            return None
        result.append(made)
    return result


def encode_panels(
    panels: Sequence[Panel], *, top: float, limit: int = PICTURE_BYTES
) -> tuple[list[dict[str, Encoded]], Encoding]:
    """The best rung of `LADDER` on which all pictures fit into `limit` bytes.

    Args:
      panels: what to show.
      top: the residual at which the colour scale ends.
      limit: bytes of all pictures together. The last rung is taken even if it does not fit.

    Returns:
      For each panel its pictures by the field names of `Pictures`, and the rung.

    Raises:
      ValueError: a panel's arrays do not fit each other.
    """
    long_side, drawn = None, []
    for encoding in LADDER:
        if encoding.long_side != long_side:
            long_side = encoding.long_side
            drawn = [panel_pictures(panel, long_side=long_side, top=top) for panel in panels]
        last = encoding == LADDER[-1]
        allowed = math.inf if last else limit
        result = _encode_all(drawn, quality=encoding.quality, limit=allowed)
        if result is not None:
            break
    return result, encoding


def _scale(top: float) -> str:
    """The colour scale under a residual, in CSS."""
    stops = matplotlib.colormaps[HEAT](np.linspace(0, 1, 9), bytes=True)[:, :3]
    colours = ",".join(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in stops)
    return (
        f'<span class="scale"><span>0</span><span class="bar" '
        f'style="background:linear-gradient(90deg,{colours})"></span>'
        f"<span>≥ {wording.significant(top)}</span></span>"
    )


def _captions(panel: Panel, *, top: float) -> dict[str, tuple[str, str]]:
    """Field of `Pictures` -> (markup under the picture, plain text for its alt)."""
    marked, defective = int(panel.mask.sum()), 0 if panel.truth is None else int(panel.truth.sum())
    if panel.truth is None:
        truth = "a good image has no truth mask" if panel.defect == GOOD else "no truth mask"
    elif not defective:
        truth = "nothing defective by the truth"
    else:
        truth = f"truth (dashed) {defective:,} pixels"
    mask = f"mask (solid) {marked:,} pixels" if marked else "the detector marks nothing"
    who = f"of {panel.name}"
    return {
        "image": ("Input", f"Input image {who}"),
        "reconstruction": ("Reconstruction", f"Reconstruction {who}"),
        "residual": (
            f"Residual {_scale(top)}",
            f"Residual map {who}, highest value {wording.score(float(panel.residual.max()))}",
        ),
        "outlines": (f"Outlines: {truth}; {mask}", f"Input {who} with outlines: {truth}; {mask}"),
    }


def _panel(panel: Panel, pictures: Mapping[str, Encoded], encoding: Encoding, *, top: float) -> str:
    kind = "png" if encoding.quality is None else "jpeg"
    captions = _captions(panel, top=top)
    figures = []
    for field, (caption, alt) in captions.items():
        if field in pictures:
            data, shape = pictures[field]
            style = "small" if max(shape) < SMALL else ""
            body = markup.image(data, kind=kind, alt=alt, shape=shape, style=style)
            figures.append(f"<figure>{body}<figcaption>{caption}</figcaption></figure>")
        else:
            figures.append(
                '<figure class="none"><figcaption>This method makes no reconstruction.'
                "</figcaption></figure>"
            )
    return (
        f'<article class="panel"><h4>{markup.name(panel.name)}</h4>'
        f"<p>{markup.name(panel.defect)} · {_against(panel)}</p>"
        f'<div class="pictures">{"".join(figures)}</div></article>'
    )


def _against(panel: Panel) -> str:
    if not wording.is_number(panel.score) or not wording.is_number(panel.threshold):
        return f"score {wording.score(panel.score)}"
    where = "above" if panel.score > panel.threshold else "not above"
    return (
        f"score {wording.score(panel.score)}, {where} the threshold "
        f"{wording.score(panel.threshold)}"
    )


def gallery(groups: Mapping[str, Sequence[Panel] | str]) -> str:
    """The markup of all groups of panels; an empty group shows its sentence.

    Raises:
      ValueError: a panel's arrays do not fit each other.
    """
    panels = [panel for group in groups.values() if not isinstance(group, str) for panel in group]
    top = heat_top(panels)
    encoded, encoding = encode_panels(panels, top=top)
    pictures = iter(encoded)
    parts = []
    if panels:
        parts.append(markup.paragraph(_legend(panels, encoding), kind="note"))
    for title, group in groups.items():
        parts.append(f"<h3>{markup.text(title)}</h3>")
        if isinstance(group, str) or not group:
            parts.append(markup.paragraph(markup.text(group or "None."), kind="note"))
            continue
        parts += [_panel(panel, next(pictures), encoding, top=top) for panel in group]
    return "".join(parts)


def _legend(panels: Sequence[Panel], encoding: Encoding) -> str:
    kind = "PNG" if encoding.quality is None else f"JPEG of quality {encoding.quality}"
    words = [
        "All residual maps share one colour scale, which starts at 0 and saturates at its end.",
        '<span class="key truth">dashed</span> is the truth, '
        '<span class="key mask">solid</span> what the detector marks.',
    ]
    if any(max(panel.image.shape[:2]) > encoding.long_side for panel in panels):
        words.append(
            f"Images are shrunk for display to at most {encoding.long_side} pixels on the longer "
            "side; residuals and masks keep the maximum of the pixels that fall together, so "
            "a thin defect stays visible and looks wider than it is."
        )
    shown = {panel.image.shape[2] for panel in panels} - {1, 3}
    if shown:
        words.append("Of images that are neither grey nor RGB the first channel is shown.")
    words.append(f"Pictures are stored as {kind}; the figures were computed at full resolution.")
    return " ".join(words)
