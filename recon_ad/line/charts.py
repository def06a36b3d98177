"""Control charts: whether what is measured of one image after the other is still as it was in a
reference period (Buzzega et al., section 4: anomaly detection on the system's own statistics).

- `ewma`, an exponentially weighted moving average (Roberts 1959): small lasting shifts.
- `cusum`, cumulative sums of what exceeds an allowance, either way (Page 1954): shifts of a known
  size soonest.
- `distribution`, averaged shares of ten bins that were equal in the reference period, as χ²: any
  other shape, one with the same middle too.
- `events`, the cumulative sum for a rate (Reynolds and Stoumbos 1999): rejects, parts that could
  not be registered; only more of them is an alarm. Each image without an event takes 1 from the sum
  and each event adds the whole number that is nearest to the ratio of their log-likelihood ratios.

Values are no normal variables, least of all anomaly scores. Each is replaced by its normal score:
the quantile of N(0, 1) that belongs to its rank among the reference values. Limits
(`recon_ad.line.chart_limits`) reckon with how little a short reference says. Images that depend on
each other, as those of one batch do, give more alarms than they say. Of events that are very rare
a single one may suffice.

An alarm ends when the statistic is back below half its limit, so that one disturbance is one alarm.
"""

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from scipy import special

from recon_ad.errors import UserError
from recon_ad.line.chart_limits import (
    ALLOWANCE,
    BINS,
    END,
    FORGETTING,
    SMOOTHING,
    cusum_limit,
    distance,
    distribution_limit,
    event_weight,
    events_limit,
    events_rate,
    ewma_limit,
)

MOST = 0.4  # rate of events in a reference
FEWEST = 30  # values of a reference
CAPPED = 1.5  # times its limit, cusum's greatest: a long disturbance ends soon, too
LIMITS = {"ewma": ewma_limit, "cusum": cusum_limit, "distribution": distribution_limit}
BOUNDS = special.ndtri(np.arange(1, BINS) / BINS).tolist()

Values = Float[np.ndarray, " n"]


class Chart(NamedTuple):
    """What does not change from image to image.

    Attributes:
      name: of the statistic.
      kind: "ewma", "cusum", "distribution" or "events".
      reference: its values in the reference period, sorted; of events their rate, one value.
      limit: beyond which the chart's statistic is an alarm.
    """

    name: str
    kind: str
    reference: Values
    limit: float


class State(NamedTuple):
    """What changes.

    Attributes:
      up: the statistic for growing values, 0 or more; of ewma the average's positive part.
      down: the same for falling ones.
      alarm: "" or what is wrong now, "high", "low" or, of a distribution, "changed".
      shares: of a distribution's bins; () at first.
    """

    up: float = 0.0
    down: float = 0.0
    alarm: str = ""
    shares: tuple[float, ...] = ()


def make_chart(
    name: str,
    kind: str,
    reference: Sequence[float] | Shaped[np.ndarray, " n"],
    *,
    run_length: float | int,
) -> Chart:
    """A chart with its limit.

    Args:
      name: of the statistic.
      kind: "ewma", "cusum", "distribution" or "events".
      reference: values of the reference period, 30 at least; of events 1 where one was, else 0.
      run_length: images between two false alarms, on average.

    Raises:
      UserError: the reference is too short, holds values that are not finite, or more events than
        can grow.
    """
    values = np.asarray(reference, np.float64)
    if len(values) < FEWEST:
        raise UserError(
            f"the reference period of {name} has {len(values)} images: give {FEWEST} or more."
        )
    if not np.isfinite(values).all():
        raise UserError(f"the reference period of {name} holds values that are not finite.")
    if kind == "events":
        if values.mean() > MOST:
            raise UserError(
                f"in the reference period of {name} {values.mean():.0%} of the images are such "
                "events: a rate that grows cannot be seen there; give a period in which they are "
                "rare."
            )
        rate = events_rate(int(values.sum()), len(values))
        return Chart(name, kind, np.array([rate]), events_limit(rate, float(run_length)))
    return Chart(name, kind, np.sort(values), LIMITS[kind](len(values), float(run_length)))


def standardised(
    chart: Chart, values: Float[np.ndarray, "*b"] | float | int | bool
) -> Float[np.ndarray, "*b"] | float | int | bool:
    """What the chart reckons with: normal scores, events as they are.

    A normal score is the quantile of N(0, 1) at the value's rank among the reference values.
    """
    if chart.kind == "events":
        return values
    below, upto = (
        np.searchsorted(chart.reference, values, side=side) for side in ("left", "right")
    )
    return special.ndtri(((below + upto) / 2 + 0.5) / (len(chart.reference) + 1))


def step(chart: Chart, state: State, value: float | int | bool) -> tuple[State, str]:
    """The next image.

    Args:
      chart: of the statistic.
      state: after the image before; `State()` at first.
      value: of this image; nan where there is none, which changes nothing.

    Returns:
      The state after it, and "high", "low" or "changed" where an alarm begins, "end" where one
      ends, else "".
    """
    if np.isnan(value):
        return state, ""
    return advance(chart, state, float(standardised(chart, value)))


def advance(chart: Chart, state: State, z: float) -> tuple[State, str]:
    """`step` by a value that is standardised."""
    down, shares = 0.0, ()
    if chart.kind == "events":
        weight = event_weight(float(chart.reference[0]))
        up = min(max(0.0, state.up + (weight if z else -1)), chart.limit + weight)
    elif chart.kind == "distribution":
        now = [(1 - FORGETTING) * share for share in state.shares or (1 / BINS,) * BINS]
        now[bisect.bisect(BOUNDS, z)] += FORGETTING
        up, shares = distance(now), tuple(now)
    elif chart.kind == "cusum":
        most = CAPPED * chart.limit
        up = min(max(0.0, state.up + z - ALLOWANCE), most)
        down = min(max(0.0, state.down - z - ALLOWANCE), most)
    else:
        average = (1 - SMOOTHING) * (state.up - state.down) + SMOOTHING * z
        up, down = max(0.0, average), max(0.0, -average)
    rising = "changed" if chart.kind == "distribution" else "high"
    alarm, event = state.alarm, ""
    if alarm:
        # By its own side: the other may have begun, and is told with the next image.
        own = down if alarm == "low" else up
        if own < END * chart.limit:
            alarm, event = "", "end"
    else:
        alarm = event = rising if up > chart.limit else "low" if down > chart.limit else ""
    return State(up, down, alarm, shares), event
