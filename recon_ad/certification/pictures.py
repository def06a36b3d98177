"""Pictures of inserted defects on the page of a certificate."""

from collections.abc import Sequence

import numpy as np

from recon_ad.certification.defects import KINDS
from recon_ad.certification.run import Example
from recon_ad.metrics.promise import percent
from recon_ad.report import markup
from recon_ad.report.markup import paragraph, text
from recon_ad.report.pictures import encode, outlined, rgb, shown_channels

CLOSE = 96  # px of a picture's side, at least, and four times the defect
LARGE = 288  # px at which a picture is shown, at least


def pictures(examples: Sequence[Example]) -> str:
    """Return the pictures of defects, one of each kind."""
    if not examples:
        return paragraph("There were none.", kind="note")
    note = (
        "One of each kind. Dashed: the inserted defect. Solid: what the detector marks. Left the "
        "image, right the same with outlines."
    )
    cards = "".join(map(_card, examples))
    style = ' style="--card: 18rem"'
    return paragraph(note, kind="note") + f'<div class="panels"{style}>{cards}</div>'


def _card(example: Example) -> str:
    case = example.case
    cut = _around(example)
    image, defect, marks = (a[cut] for a in (example.image, example.defect, example.marks))
    shown = shown_channels(image)
    if shown.dtype != np.uint8:
        shown = shown / (np.iinfo(shown.dtype).max if shown.dtype.kind == "u" else 1)
    factor = max(1, -(-LARGE // max(defect.shape)))
    plain, defect, marks = (
        np.repeat(np.repeat(a, factor, 0), factor, 1) for a in (rgb(shown), defect, marks)
    )
    pictures = ""
    for pixels, alt in (
        (plain, "image with the defect"),
        (outlined(plain, truth=defect, mask=marks), "the same with outlines"),
    ):
        content = encode(pixels, quality=90)
        pictures += markup.image(content, kind="jpeg", alt=alt, shape=pixels.shape[:2])
    contrast = "" if case.contrast is None else f", contrast {percent(case.contrast)}"
    title = f"{KINDS[case.kind].label}: {case.size:.3g} px{contrast}"
    return (
        f'<article class="panel"><h4>{text(title)}</h4>'
        f'<p class="note">{markup.name(case.base.name)}</p>'
        f'<div class="pictures">{pictures}</div></article>'
    )


def _around(example: Example) -> tuple[slice, slice]:
    """Return the rows and columns around a defect."""
    found = []
    side = int(max(CLOSE, 4 * example.case.size))
    for axis in (1, 0):
        inside = np.flatnonzero(example.defect.any(axis))
        length = example.defect.shape[1 - axis]
        start = int((inside[0] + inside[-1]) // 2) - side // 2
        start = max(0, min(start, length - side))
        found.append(slice(start, min(length, start + side)))
    return found[0], found[1]
