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
the quantile of N(0, 1) that belongs to its rank among the reference values. One that ties with some
of these has all of their ranks: the middle one counts for `ewma` and `cusum`, and its share is
spread over all of them for `distribution`, so that few values repeated are no change. Limits
(`recon_ad.line.chart_limits`) reckon with how little a short reference says. Images that depend on
each other, as those of one batch do, give more alarms than they say. Of events that are very rare
a single one may suffice.

An alarm ends when the statistic is back below half its limit, so that one disturbance is one alarm.

A kind of chart is a record of functions, as a method is: a new one is a row of `KINDS`.
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

MOST = 0.4  # rate of events in a reference
FEWEST = 30  # values of a reference
CAPPED = 1.5  # times its limit, cusum's greatest: a long disturbance ends soon, too

Values = Float[np.ndarray, " n"]
Kept = Float[np.ndarray, " k"]  # of a reference period


class Chart(NamedTuple):
    """What does not change from image to image.

    Attributes:
      name: of the statistic.
      kind: a name in `KINDS`.
      reference: what its kind keeps of the reference period.
      limit: beyond which the chart's statistic is an alarm.
    """

    name: str
    kind: str
    reference: Kept
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
      kind: a name in `KINDS`.
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
    kept, limit = KINDS[kind].start(name, values, float(run_length))
    return Chart(name, kind, kept, limit)


def standardised(chart: Chart, values: Float[np.ndarray, "*b"] | float | int | bool) -> Any:
    """What the chart reckons with: normal scores [*b], of a distribution ranks [*b, 2], or events
    as they are."""
    return KINDS[chart.kind].score(chart.reference, values)


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
    return advance(chart, state, standardised(chart, value))


def advance(chart: Chart, state: State, z: Any) -> tuple[State, str]:
    """`step` by a value that is standardised."""
    kind = KINDS[chart.kind]
    up, down, shares = kind.move(chart, state, z)
    alarm, event = state.alarm, ""
    if alarm:
        # By its own side: the other may have begun, and is told with the next image.
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
    """What a kind of chart does.

    Attributes:
      statistics: names of those that it is drawn of (`recon_ad.line.alarms.STATISTICS`).
      limit: (values of the reference, None for one without end; run length) -> limit.
      start: (name, values of the reference [n], run length) -> what is kept of them, and the limit;
        raises UserError where they will not do.
      score: (what is kept, values) -> what `move` takes.
      move: (chart, state, what `score` gave for a value) -> the statistic's new values.
      rising: what an alarm of `State.up` is called.
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
    """The quantiles of N(0, 1) at the values' ranks among the reference values, sorted."""
    below, upto = (np.searchsorted(reference, values, side=side) for side in ("left", "right"))
    return special.ndtri(((below + upto) / 2 + 0.5) / (len(reference) + 1))


def ranks(reference: Kept, values: Float[np.ndarray, "*b"] | float) -> Float[np.ndarray, "*b 2"]:
    """From where to where in [0, 1] the values' ranks among the reference values reach, sorted."""
    below, upto = (np.searchsorted(reference, values, side=side) for side in ("left", "right"))
    return np.stack([below, upto + 1], axis=-1) / (len(reference) + 1)


def _of_values(
    statistics: tuple[str, ...],
    limit: Callable[..., float],
    score: Callable[[Kept, Any], Any] = normal_scores,
    **fields: Any,
) -> Kind:
    """A kind that charts the ranks of values."""

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
            f"in the reference period of {name} {values.mean():.0%} of the images are such events: "
            "a rate that grows cannot be seen there; give a period in which they are rare."
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
