"""Control charts that compare a statistic of successive images with a reference period.

Buzzega et al., section 4, propose this anomaly detection on the system's own statistics. The kinds:

- `ewma`, an exponentially weighted moving average (Roberts 1959), detects small lasting shifts.
- `cusum`, two cumulative sums of what exceeds an allowance upwards and downwards (Page 1954), is
  fastest for shifts of a known size.
- `distribution` is χ² of the averaged shares of ten bins that were equal in the reference period.
  It detects any change of shape, even with an unchanged mean.
- `events`, a cumulative sum for a rate (Reynolds and Stoumbos 1999), is for rejects, unreadable
  files and parts that could not be registered. Only an increase is an alarm. Each image without an
  event subtracts 1, and each event adds the whole number nearest to the ratio of their
  log-likelihood ratios.

The statistics, above all anomaly scores, are not normally distributed. Each value is therefore
replaced by its normal score, the quantile of N(0, 1) at its rank among the reference values. A
value that ties with reference values has all of their ranks: `ewma` and `cusum` use the middle one,
and `distribution` spreads the value over all of them, so that a few repeated values are not taken
for a change. The limits (`recon_ad.line.chart_limits`) allow for the uncertainty of a short
reference. Images that depend on each other, such as those of one batch, give more alarms than the
limits promise. For very rare events a single one may raise an alarm.

An alarm ends when the statistic falls below half its limit, so that one disturbance gives one
alarm.

A kind of chart is a record of functions, as a method is. A new kind is a new row of `KINDS`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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

MOST = 0.4  # highest rate of events in a reference
FEWEST = 30  # fewest values of a reference
CAPPED = 1.5  # cap of cusum relative to its limit, so that a long disturbance also ends soon

Values = Float[np.ndarray, " n"]
Kept = Float[np.ndarray, " k"]  # summary of a reference period


class Chart(NamedTuple):
    """The fixed part of a control chart.

    Attributes:
      name: Name of the statistic.
      kind: Name in `KINDS`.
      reference: Summary of the reference period that this kind keeps.
      limit: Value of the chart above which it raises an alarm.
    """

    name: str
    kind: str
    reference: Kept
    limit: float


class State(NamedTuple):
    """The state of a control chart after an image.

    Attributes:
      up: Value of the chart for growing values, 0 or more; for ewma the average's positive part.
      down: The same for falling values.
      alarm: Current alarm, "high", "low" or, for a distribution, "changed"; "" means no alarm.
      shares: Averaged shares of a distribution's bins; () at first.
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
    """Return a chart with its limit.

    Args:
      name: Name of the statistic.
      kind: Name in `KINDS`.
      reference: Values of the reference period, at least 30; for events 1 or 0 per image.
      run_length: Images between two false alarms, on average.

    Raises:
      UserError: If the reference is too short, contains values that are not finite, or has too
        many events for an increase to be detectable.
    """
    values = np.asarray(reference, np.float64)
    if len(values) < FEWEST:
        raise UserError(
            f"the reference period of {name} has {len(values)} images: give {FEWEST} or more."
        )
    if not np.isfinite(values).all():
        raise UserError(
            f"the reference period of {name} contains values that are not finite: give another one."
        )
    kept, limit = KINDS[kind].start(name, values, float(run_length))
    return Chart(name, kind, kept, limit)


def standardised(chart: Chart, values: Float[np.ndarray, "*b"] | float | int | bool) -> Any:
    """Return the chart's input: normal scores [*b], ranks [*b, 2] (distribution), or raw events."""
    return KINDS[chart.kind].score(chart.reference, values)


def step(chart: Chart, state: State, value: float | int | bool) -> tuple[State, str]:
    """Advance a chart by one image.

    Args:
      chart: Chart of the statistic.
      state: State after the previous image; `State()` at first.
      value: Value of this image. NaN means that it has none, and changes nothing.

    Returns:
      The new state, and an event: "high", "low" or "changed" if an alarm begins, "end" if one ends,
      else "".
    """
    if np.isnan(value):
        return state, ""
    return advance(chart, state, standardised(chart, value))


def advance(chart: Chart, state: State, z: Any) -> tuple[State, str]:
    """Advance a chart as `step` does, by a value that is already standardised."""
    kind = KINDS[chart.kind]
    up, down, shares = kind.move(chart, state, z)
    alarm, event = state.alarm, ""
    if alarm:
        # An alarm ends by its own side. The other side may already have one, which begins with the
        # next image.
        own = down if alarm == "low" else up
        if own < END * chart.limit:
            alarm, event = "", "end"
    else:
        high, low = up > chart.limit, down > chart.limit
        alarm = event = kind.rising if high else "low" if low else ""
    return State(up, down, alarm, shares), event


# ---- Kinds of charts ---------------------------------------------------------------------------

Moved = tuple[float, float, tuple[float, ...]]  # up, down and shares of a state


class Kind(NamedTuple):
    """A kind of chart, as a record of functions.

    Attributes:
      statistics: Names of the statistics that it is drawn for (`recon_ad.line.alarms.STATISTICS`).
      limit: (number of reference values, None for an infinite reference; run length) -> limit. For
        events the first argument is the event rate.
      start: (name, values of the reference [n], run length) -> summary and limit. Raises UserError
        if the values are unsuitable.
      score: (summary, values) -> input of `move`.
      move: (chart, state, output of `score` for one value) -> new values of the chart.
      rising: Direction of an alarm of `State.up`.
    """

    statistics: tuple[str, ...]
    limit: Callable[..., float]
    start: Callable[[str, Values, float], tuple[Kept, float]]
    score: Callable[[Kept, Any], Any]
    move: Callable[[Chart, State, Any], Moved]
    rising: str = "high"


def normal_scores(
    reference: Kept, values: Float[np.ndarray, "*b"] | float
) -> Float[np.ndarray, "*b"] | float:
    """Return the quantiles of N(0, 1) at the values' ranks among the sorted reference values."""
    below, upto = (np.searchsorted(reference, values, side=side) for side in ("left", "right"))
    return special.ndtri(((below + upto) / 2 + 0.5) / (len(reference) + 1))


def ranks(reference: Kept, values: Float[np.ndarray, "*b"] | float) -> Float[np.ndarray, "*b 2"]:
    """Return the values' lowest and highest ranks, in [0, 1], among the sorted reference values."""
    below, upto = (np.searchsorted(reference, values, side=side) for side in ("left", "right"))
    return np.stack([below, upto + 1], axis=-1) / (len(reference) + 1)


def _of_values(
    statistics: tuple[str, ...],
    limit: Callable[..., float],
    score: Callable[[Kept, Any], Any] = normal_scores,
    **fields: Any,
) -> Kind:
    """Return a kind of chart for the ranks of values."""

    def start(_: str, values: Values, run_length: float) -> tuple[Kept, float]:
        return np.sort(values), limit(len(values), run_length)

    return Kind(statistics, limit, start, score, **fields)


def _move_ewma(_: Chart, state: State, z: float) -> Moved:
    average = (1 - SMOOTHING) * (state.up - state.down) + SMOOTHING * z
    return max(0.0, average), max(0.0, -average), ()


def _move_cusum(chart: Chart, state: State, z: float) -> Moved:
    most = CAPPED * chart.limit
    up = min(max(0.0, state.up + z - ALLOWANCE), most)
    return up, min(max(0.0, state.down - z - ALLOWANCE), most), ()


def _move_distribution(
    _: Chart, state: State, z: Sequence[float] | Float[np.ndarray, "2"]
) -> Moved:
    now = [(1 - FORGETTING) * share for share in state.shares or (1 / BINS,) * BINS]
    low, high = float(z[0]), float(z[1])
    for i in range(int(low * BINS), min(BINS, int(high * BINS) + 1)):
        covered = max(0.0, min(high, (i + 1) / BINS) - max(low, i / BINS))
        now[i] += FORGETTING * covered / (high - low)
    return distance(now), 0.0, tuple(now)


def _start_events(name: str, values: Values, run_length: float) -> tuple[Kept, float]:
    if values.mean() > MOST:
        raise UserError(
            f"in the reference period of {name}, {values.mean():.0%} of the images are such "
            "events, too many to detect an increase: give a period in which they are rare."
        )
    rate = events_rate(int(values.sum()), len(values))
    return np.array([rate]), events_limit(rate, run_length)


def _move_events(chart: Chart, state: State, z: float) -> Moved:
    weight = event_weight(float(chart.reference[0]))
    return min(max(0.0, state.up + (weight if z else -1)), chart.limit + weight), 0.0, ()


KINDS: Mapping[str, Kind] = {
    "ewma": _of_values(
        ("score", "brightness", "sharpness", "registration"), ewma_limit, move=_move_ewma
    ),
    "cusum": _of_values(("score",), cusum_limit, move=_move_cusum),
    "distribution": _of_values(
        ("score",), distribution_limit, score=ranks, move=_move_distribution, rising="changed"
    ),
    "events": Kind(
        ("rejected", "not registered", "broken"),
        events_limit,
        _start_events,
        lambda _, values: values,
        _move_events,
    ),
}
