"""Sliders for thresholds: their positions, and their place in the page.

A position is a threshold as it stands in the text beside the slider: written out, so that what is
read is what is applied. Only the calibrated one may be rounded in the text, since there the page
shows the detector's own decisions and masks, not its script's.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np

from recon_ad.report import markup, wording
from recon_ad.report.content import Scale

# Shares of the test pixels above the lowest pixel threshold: their median, or less where the
# calibrated one does not lie above it.
LOWEST = (0.5, 0.9)
HIGHEST = 1e-6  # share of single pixels in large sets
STEPS_BELOW, STEPS_ABOVE = 14, 26  # the calibrated pixel threshold


def image_scale(scores: Sequence[Real], threshold: Real | None) -> Scale | None:
    """One position between each two neighbouring scores: each step changes some decision.

    Args:
      scores: of the test images, raw; those that are not finite are left out.
      threshold: the calibrated one; it takes the place of the position in its gap.

    Returns:
      None where there is no finite threshold or score.
    """
    ranked = np.unique([float(s) for s in scores if wording.is_number(s)])
    if threshold is None or not wording.is_number(threshold) or not ranked.size:
        return None
    # Beyond the ends, where every image is called defective, or none: one mean gap further.
    room = (ranked[-1] - ranked[0]) / ranked.size or abs(ranked[0]) or 1.0
    ends = [ranked[0] - room, *ranked, ranked[-1] + room]
    values = [wording.between(float(a), float(b)) for a, b in itertools.pairwise(ends)]
    start = int(np.searchsorted(ranked, threshold, side="right"))
    values[start] = float(threshold)
    return Scale(tuple(values), start)


def pixel_scale(threshold: float, quantile: Callable[[float], float]) -> Scale | None:
    """Positions from the median of the test pixels to their maximum, a third of them below the
    calibrated one.

    On either side they are spread half by rank, in the logarithm of the share above, and half by
    residual. By residual alone, most steps would lie above nearly all pixels; by rank alone, most
    would lie within the few strongest defects.

    Args:
      threshold: the calibrated pixel threshold; a position of its own.
      quantile: the residual that a share in (0, 1] of the test pixels does not exceed.

    Returns:
      None where the threshold is not finite.
    """
    if not math.isfinite(threshold):
        return None
    lowest = next((share for share in LOWEST if quantile(1 - share) < threshold), LOWEST[-1])
    shares = [*np.geomspace(lowest, HIGHEST, 200), 0.0]
    residuals = np.array([quantile(1 - share) for share in shares], float)
    span = residuals[-1] - residuals[0] or 1.0
    place = np.linspace(0, 1, residuals.size) + (residuals - residuals[0]) / span
    middle = np.interp(threshold, residuals, place)
    evenly = [
        *np.linspace(0, middle, STEPS_BELOW + 1),
        *np.linspace(middle, place[-1], STEPS_ABOVE + 1),
    ]
    bounds = np.unique(np.interp(evenly, place, residuals)).tolist()
    # Beyond the highest, where nothing is marked.
    bounds.append(bounds[-1] + ((bounds[-1] - bounds[0]) / len(bounds) or abs(bounds[-1]) or 1.0))
    values = {wording.between(a, b) for a, b in itertools.pairwise(bounds)}
    ordered = sorted({*values, float(threshold)})
    return Scale(tuple(ordered), ordered.index(threshold))


def texts(scale: Scale) -> list[str]:
    """Each threshold as text; at the calibrated one as many digits as tell it from the next."""
    written = [wording.significant(v, wording.exact_digits(v)) for v in scale.values]
    near = scale.values[max(0, scale.start - 1) : scale.start + 2]
    calibrated = scale.values[scale.start]
    written[scale.start] = wording.significant(calibrated, wording.digits_apart(calibrated, *near))
    return written


def slider(
    anchor: str,
    label: str,
    scale: Scale,
    *,
    looser: str,
    stricter: str,
    note: str,
    body: str = "",
    **data: str,
) -> str:
    """The markup of a slider; it stays hidden where scripts do not run.

    Args:
      anchor: identifier of the box.
      label: plain text beside the slider.
      scale: its positions.
      looser: what a lower threshold does, a clause.
      stricter: what a higher one does.
      note: plain text under the box.
      body: markup at its end.
      data: further data attributes for the script.
    """
    given = {"steps": " ".join(texts(scale)), "start": scale.start} | data
    given |= {"looser": looser, "stricter": stricter}
    return (
        f'<div class="slider" id="{anchor}" role="group" aria-labelledby="{anchor}-label" hidden'
        f'{markup.data(given)}><div class="control">'
        f'<label id="{anchor}-label" for="{anchor}-input">{markup.text(label)}</label>'
        f'<input type="range" id="{anchor}-input" list="{anchor}-tick" autocomplete="off" '
        f'min="0" max="{len(scale.values) - 1}" step="1" value="{scale.start}">'
        f'<datalist id="{anchor}-tick"><option value="{scale.start}"></option></datalist>'
        '<p class="now"></p><button type="button">Back to calibrated</button></div>'
        f'{body}</div><p class="note" hidden>{markup.text(note)}</p>'
    )
