"""Sliders for thresholds: their positions and their markup.

The text beside the slider writes each threshold out in full, so that the threshold shown is the one
applied. Only the calibrated threshold may be rounded in the text, since there the page shows the
detector's own decisions and masks, not those of its script.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np

from recon_ad.report import markup, wording
from recon_ad.report.content import Scale

# Shares of the test pixels above the lowest pixel threshold: the median, or a lower quantile if
# the calibrated threshold does not lie above the median.
LOWEST = (0.5, 0.9)
HIGHEST = 1e-6  # share of single pixels in large sets
STEPS_BELOW, STEPS_ABOVE = 14, 26  # steps on either side of the calibrated pixel threshold


def image_scale(scores: Sequence[Real], threshold: Real | None) -> Scale | None:
    """Return one position between each two neighbouring scores, so each step changes a decision.

    Args:
      scores: Raw scores of the test images. Those that are not finite are left out.
      threshold: Calibrated threshold. It replaces the position in its gap.

    Returns:
      The scale, or None without a finite threshold or score.
    """
    ranked = np.unique([float(s) for s in scores if wording.is_number(s)])
    if threshold is None or not wording.is_number(threshold) or not ranked.size:
        return None
    # One mean gap beyond either end, where every image is called defective, or none.
    room = (ranked[-1] - ranked[0]) / ranked.size or abs(ranked[0]) or 1.0
    ends = [ranked[0] - room, *ranked, ranked[-1] + room]
    values = [wording.between(float(a), float(b)) for a, b in itertools.pairwise(ends)]
    start = int(np.searchsorted(ranked, threshold, side="right"))
    values[start] = float(threshold)
    return Scale(tuple(values), start)


def pixel_scale(threshold: float, quantile: Callable[[float], float]) -> Scale | None:
    """Return positions from the median of the test pixels, or lower, to just above their maximum.

    About a third of the positions are below the calibrated threshold. On either side they are
    spread half by rank, in the logarithm of the share above, and half by residual. By residual
    alone, most steps would lie above nearly all pixels; by rank alone, most would lie within the
    few strongest defects.

    Args:
      threshold: Calibrated pixel threshold, itself a position.
      quantile: Function that returns the residual that a share in (0, 1] of the test pixels does
        not exceed.

    Returns:
      The scale, or None if the threshold is not finite.
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
    # One position above the highest residual, where nothing is marked.
    bounds.append(bounds[-1] + ((bounds[-1] - bounds[0]) / len(bounds) or abs(bounds[-1]) or 1.0))
    values = {wording.between(a, b) for a, b in itertools.pairwise(bounds)}
    ordered = sorted({*values, float(threshold)})
    return Scale(tuple(ordered), ordered.index(threshold))


def texts(scale: Scale) -> list[str]:
    """Format each threshold; the calibrated one only with the digits that distinguish it."""
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
    """Return the markup of a slider, which stays hidden if scripts do not run.

    Args:
      anchor: Identifier of the box.
      label: Plain text beside the slider.
      scale: Positions of the slider.
      looser: Clause that describes the effect of a lower threshold.
      stricter: Clause that describes the effect of a higher threshold.
      note: Plain text under the box.
      body: Markup at the end of the box.
      data: Further data attributes for the script.
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
