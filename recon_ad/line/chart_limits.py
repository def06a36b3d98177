"""Limits of control charts: those at which a chart of what has not changed gives one alarm in
`run_length` images on average, though the reference period is but a sample.

A chart is a Markov chain (Brook and Evans 1972), so that its mean run length solves linear
equations. It depends on the chances of the normal scores of later images. Of n reference values
from a continuous distribution, whichever that is, later values fall into the n + 1 gaps between
them with chances that are Dirichlet(1, …, 1) distributed; N(0, 1) is the case of a reference
without end. A limit that takes one for the other gives more alarms than asked for (Jones, Champ and
Rigdon 2001, of estimated means and deviations). So the rate of false alarms, one by the run length,
is averaged over draws of these chances, and the limit is where the average is as wanted. It is an
average: of single references some give fewer alarms and some more.

A rate of events cannot be averaged so: to some share of what may be true, no limit is high enough.
It is taken for as high as it may be (Gandy and Kvaløy 2013): alarms are as seldom as wanted, or
more so, with nine references of ten.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import optimize, sparse, special, stats

SMOOTHING = 0.1  # λ of the moving average
ALLOWANCE = 0.5  # standard deviations, half of the shift that cusum is soonest for
RATIO = 3.0  # by which a rate of events has grown that is to be seen soonest
BINS, FORGETTING = 10, 0.01  # of the distribution's chart: equal shares, λ of their averages
END = 0.5  # share of the limit below which an alarm ends

STATES = 80  # of the Markov chain, even
DRAWS = 120  # of what a reference may be
STEP = 1.2  # between two limits that are tried
NEVER = 1e14  # images
SURE = 0.9  # that the rate of events is not above what is taken for it
STREAMS, LENGTH = 512, 4096  # simulated for the distribution's chart
SEEN = 100  # alarms, from which a simulated rate counts

Values = Float[np.ndarray, " n"]
Lengths = Float[np.ndarray, "draws"]
Below = Callable[[np.ndarray], np.ndarray]  # chance of a score below, [edges] -> [draws, edges]


def known(edges: np.ndarray) -> np.ndarray:
    """Chances of scores of a reference without end."""
    return stats.norm.cdf(edges)[None]


def drawn(count: int) -> Below:
    """Chances of scores of a reference of so many values, for draws of what it may be."""
    random = np.random.default_rng(count)
    scores = special.ndtri((np.arange(count + 1) + 0.5) / (count + 1))
    chances = random.dirichlet(np.ones(count + 1), DRAWS)
    total = np.concatenate([np.zeros((DRAWS, 1)), chances.cumsum(axis=1)], axis=1)
    return lambda edges: total[:, np.searchsorted(scores, edges, side="right")]


def cusum_run_length(limit: float, below: Below) -> Lengths:
    """Images until max(0, S + score - allowance) first exceeds the limit, on average, from 0."""
    width = limit / (STATES - 0.5)  # the last state ends at the limit
    # From state i to j; the least takes all that is below it.
    moves = np.arange(-STATES, STATES) + 0.5
    upto = below(moves * width + ALLOWANCE)
    jumps = np.arange(STATES)[None] - np.arange(STATES)[:, None] + STATES
    transitions = upto[:, jumps] - upto[:, jumps - 1]
    transitions[:, :, 0] = upto[:, jumps[:, 0]]
    return _mean_length(transitions, start=0)


def ewma_run_length(limit: float, below: Below) -> Lengths:
    """Images until the average of scores first exceeds the limit either way, from 0."""
    count = STATES + 1
    width = 2 * limit / count
    edges = -limit + np.arange(count + 1) * width
    places = (edges[1:] + edges[:-1]) / 2
    # From each place to each: what the next score has to lie between.
    upto = below((edges[None] - (1 - SMOOTHING) * places[:, None]) / SMOOTHING)
    return _mean_length(np.diff(upto, axis=2), start=STATES // 2)


def _mean_length(transitions: Float[np.ndarray, "draws s s"], *, start: int) -> Lengths:
    states = transitions.shape[1]
    ones = np.ones((len(transitions), states, 1))
    lengths = np.linalg.solve(np.eye(states) - transitions, ones)[:, start, 0]
    # Of a chain that is hardly ever left, rounding decides, down to the sign.
    return np.where((lengths < 0) | (lengths > NEVER), NEVER, lengths)


@functools.cache
def event_weight(rate: float) -> int:
    """What an event adds, where an image without one takes 1."""
    odds = RATIO * rate / (1 - rate)  # odds, not rates: one of 0.5 cannot triple
    grown = odds / (1 + odds)
    return max(1, round(-np.log(grown / rate) / np.log((1 - grown) / (1 - rate))))


def events_run_length(limit: int, rate: float) -> float:
    """Images until the sum of events first exceeds the limit, on average, from 0."""
    weight = event_weight(rate)
    places = np.arange(limit + 1)
    without = sparse.csr_array(
        (np.full(limit + 1, 1 - rate), (places, np.maximum(places - 1, 0))), shape=(limit + 1,) * 2
    )
    room = places[: max(0, limit + 1 - weight)]
    event = sparse.csr_array(
        (np.full(len(room), rate), (room, room + weight)), shape=(limit + 1,) * 2
    )
    stays = sparse.eye_array(limit + 1) - without - event
    return float(sparse.linalg.spsolve(stays.tocsc(), np.ones(limit + 1))[0])


@functools.cache
def ewma_limit(count: int | None, wanted: float) -> float:
    """Of a reference of so many values, None being one without end."""
    below = known if count is None else drawn(count)
    low = (SMOOTHING / (2 - SMOOTHING)) ** 0.5 if count is None else ewma_limit(None, wanted)
    return _limit(lambda limit: np.mean(1 / ewma_run_length(limit, below)), wanted, low)


@functools.cache
def cusum_limit(count: int | None, wanted: float) -> float:
    """As `ewma_limit`."""
    below = known if count is None else drawn(count)
    low = 0.5 if count is None else cusum_limit(None, wanted)
    # Two sides alarm twice as often as one.
    return _limit(lambda limit: 2 * np.mean(1 / cusum_run_length(limit, below)), wanted, low)


def _limit(rate: Callable[[float], float], wanted: float, low: float) -> float:
    """Where that rate of alarms is one in so many images, from `low` on."""

    def excess(limit: float) -> float:
        return float(np.log(rate(limit) * wanted))

    if excess(low) <= 0:
        return low
    high = STEP * low
    while excess(high) > 0:
        low, high = high, STEP * high
    return float(optimize.brentq(excess, low, high, rtol=1e-3))


def events_rate(events: int, count: int) -> float:
    """What the rate of events does not exceed, of nine references of ten (Beta, uniform prior)."""
    return float(stats.beta.ppf(SURE, events + 1, count - events + 1))


@functools.cache
def events_limit(rate: float, wanted: float) -> float:
    """The least whole one with that run length or more."""
    low, high = 0, event_weight(rate)
    while events_run_length(high, rate) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if events_run_length(middle, rate) >= wanted else (middle, high)
    return float(high)


def distance(shares: Sequence[float] | Float[np.ndarray, "bins b"]) -> Any:
    """χ² of averaged shares of bins that were equal in the reference period, bins first."""
    # No NumPy for one image's ten floats: this is the monitor's innermost loop.
    off = sum((share - 1 / BINS) ** 2 for share in shares)
    return (2 - FORGETTING) / FORGETTING * BINS * off


@functools.cache
def distribution_limit(count: int | None, wanted: float) -> float:
    """As `ewma_limit`, by simulation; beyond what that saw, log(rate) is continued as a line."""
    random = np.random.default_rng(count)
    chances = np.full((STREAMS, BINS), 1 / BINS)
    if count is not None:
        chances = random.dirichlet(np.full(BINS, (count + 1) / BINS), STREAMS)
    bounds = chances.cumsum(axis=1)[:, :-1]
    levels = np.geomspace(BINS, 100 * BINS, 160)[:, None]
    shares, streams = np.full((STREAMS, BINS), 1 / BINS), np.arange(STREAMS)
    lasting = np.zeros((len(levels), STREAMS), bool)
    alarms = np.zeros(len(levels), int)
    for _ in range(LENGTH):
        bins = (random.random((STREAMS, 1)) > bounds).sum(axis=1)
        shares *= 1 - FORGETTING
        shares[streams, bins] += FORGETTING
        now = distance(shares.T)
        beyond = now > levels
        alarms += (beyond & ~lasting).sum(axis=1)
        lasting = beyond | (lasting & (now >= END * levels))
    # Below the most frequent, levels are so low that an alarm hardly ever ends.
    first = int(alarms.argmax())
    known_levels = np.flatnonzero(alarms[first:] >= SEEN) + first
    x, y = levels[known_levels, 0], np.log(alarms[known_levels] / (STREAMS * LENGTH))
    if -np.log(wanted) >= y[-1]:
        return float(np.interp(np.log(wanted), -y, x))
    tail = alarms[known_levels] <= 10 * SEEN
    slope, start = np.polyfit(x[tail], y[tail], 1)
    return float((-np.log(wanted) - start) / slope)
