"""Limits of control charts, corrected for the finite reference period.

A limit is chosen so that a chart gives one alarm in `run_length` images on average while nothing
has changed, although the reference period is only a sample.

A chart is a Markov chain (Brook and Evans 1972), so its mean run length solves linear equations. It
depends on the probabilities of the normal scores of later images. Given n reference values from any
continuous distribution, later values fall into the n + 1 gaps between them with probabilities that
are Dirichlet(1, …, 1) distributed; an infinite reference gives N(0, 1). A limit that assumes an
infinite reference for a finite one gives too many alarms (Jones, Champ and Rigdon 2001, for
estimated means and deviations). The false-alarm rate, which is one over the run length, is
therefore averaged over draws of these probabilities, and the limit is chosen for the wanted
average. Single references give fewer or more alarms than this average.

An event rate cannot be averaged in this way, because for some of the rates that are compatible with
the reference no limit is high enough. Instead its upper confidence bound is used (Gandy and Kvaløy
2013): with nine references in ten, alarms are as rare as wanted or rarer.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import optimize, sparse, special, stats

SMOOTHING = 0.1  # λ of the moving average
ALLOWANCE = 0.5  # standard deviations, half of the shift that cusum is soonest for
RATIO = 3.0  # growth of an event rate for which the chart is fastest
BINS, FORGETTING = 10, 0.01  # distribution chart: number of equal shares, λ of their averages
END = 0.5  # fraction of the limit below which an alarm ends

STATES = 80  # states of the Markov chain, an even number
DRAWS = 120  # draws of the probabilities for a finite reference
STEP = 1.2  # factor between two limits in the search
NEVER = 1e14  # images, cap of the run length
SURE = 0.9  # confidence of the upper bound on the event rate
STREAMS, LENGTH = 512, 4096  # simulated streams and their lengths, for the distribution chart
SEEN = 100  # alarms, the fewest for which a simulated rate is used

Values = Float[np.ndarray, " n"]
Lengths = Float[np.ndarray, "draws"]
Below = Callable[[np.ndarray], np.ndarray]  # P(score below edge), [edges] -> [draws, edges]


def known(edges: np.ndarray) -> np.ndarray:
    """Return the probabilities of scores below the edges for an infinite reference."""
    return stats.norm.cdf(edges)[None]


def drawn(count: int) -> Below:
    """Draw the score probabilities for references of `count` values."""
    random = np.random.default_rng(count)
    scores = special.ndtri((np.arange(count + 1) + 0.5) / (count + 1))
    chances = random.dirichlet(np.ones(count + 1), DRAWS)
    total = np.concatenate([np.zeros((DRAWS, 1)), chances.cumsum(axis=1)], axis=1)
    return lambda edges: total[:, np.searchsorted(scores, edges, side="right")]


def cusum_run_length(limit: float, below: Below) -> Lengths:
    """Return the mean number of images until max(0, S + score - allowance) exceeds the limit.

    The sum S begins at 0.
    """
    width = limit / (STATES - 0.5)  # the last state ends at the limit
    # From state i to state j. The lowest state also takes everything below it.
    moves = np.arange(-STATES, STATES) + 0.5
    upto = below(moves * width + ALLOWANCE)
    jumps = np.arange(STATES)[None] - np.arange(STATES)[:, None] + STATES
    transitions = upto[:, jumps] - upto[:, jumps - 1]
    transitions[:, :, 0] = upto[:, jumps[:, 0]]
    return _mean_length(transitions, start=0)


def ewma_run_length(limit: float, below: Below) -> Lengths:
    """Return the mean number of images until the moving average exceeds ± the limit, from 0."""
    count = STATES + 1
    width = 2 * limit / count
    edges = -limit + np.arange(count + 1) * width
    places = (edges[1:] + edges[:-1]) / 2
    # The interval in which the next score must lie to move from one place to another.
    upto = below((edges[None] - (1 - SMOOTHING) * places[:, None]) / SMOOTHING)
    return _mean_length(np.diff(upto, axis=2), start=STATES // 2)


def _mean_length(transitions: Float[np.ndarray, "draws s s"], *, start: int) -> Lengths:
    states = transitions.shape[1]
    ones = np.ones((len(transitions), states, 1))
    lengths = np.linalg.solve(np.eye(states) - transitions, ones)[:, start, 0]
    # If a chain is almost never left, rounding errors dominate, even in the sign.
    return np.where((lengths < 0) | (lengths > NEVER), NEVER, lengths)


@functools.cache
def event_weight(rate: float) -> int:
    """Return what an event adds to the sum, if an image without one subtracts 1."""
    odds = RATIO * rate / (1 - rate)  # odds, because a rate of 0.5 cannot triple
    grown = odds / (1 + odds)
    return max(1, round(-np.log(grown / rate) / np.log((1 - grown) / (1 - rate))))


def events_run_length(limit: int, rate: float) -> float:
    """Return the mean number of images until the sum of events exceeds the limit, from 0."""
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
    """Return the ewma limit for a reference of `count` values; None means an infinite one."""
    below = known if count is None else drawn(count)
    low = (SMOOTHING / (2 - SMOOTHING)) ** 0.5 if count is None else ewma_limit(None, wanted)
    return _limit(lambda limit: np.mean(1 / ewma_run_length(limit, below)), wanted, low)


@functools.cache
def cusum_limit(count: int | None, wanted: float) -> float:
    """Return the cusum limit, with the arguments of `ewma_limit`."""
    below = known if count is None else drawn(count)
    low = 0.5 if count is None else cusum_limit(None, wanted)
    # A chart with two sides gives twice as many alarms as one side.
    return _limit(lambda limit: 2 * np.mean(1 / cusum_run_length(limit, below)), wanted, low)


def _limit(rate: Callable[[float], float], wanted: float, low: float) -> float:
    """Find the limit, from `low` on, at which the alarm rate is one in `wanted` images."""

    def excess(limit: float) -> float:
        return float(np.log(rate(limit) * wanted))

    if excess(low) <= 0:
        return low
    high = STEP * low
    while excess(high) > 0:
        low, high = high, STEP * high
    return float(optimize.brentq(excess, low, high, rtol=1e-3))


def events_rate(events: int, count: int) -> float:
    """Return the 90 % upper bound on the event rate (Beta posterior, uniform prior)."""
    return float(stats.beta.ppf(SURE, events + 1, count - events + 1))


@functools.cache
def events_limit(rate: float, wanted: float) -> float:
    """Return the smallest whole limit whose run length is at least `wanted`."""
    low, high = 0, event_weight(rate)
    while events_run_length(high, rate) < wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if events_run_length(middle, rate) >= wanted else (middle, high)
    return float(high)


def distance(shares: Sequence[float] | Float[np.ndarray, "bins b"]) -> Any:
    """Return χ² of the averaged shares [bins, …]; in the reference period all bins were equal."""
    # Avoids NumPy for one image's ten floats, because this is the monitor's innermost loop.
    off = sum((share - 1 / BINS) ** 2 for share in shares)
    return (2 - FORGETTING) / FORGETTING * BINS * off


@functools.cache
def distribution_limit(count: int | None, wanted: float) -> float:
    """Return the distribution chart's limit by simulation, with the arguments of `ewma_limit`.

    Beyond the simulated rates, log(rate) is extrapolated linearly.
    """
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
    # Below the level with the most alarms, levels are so low that an alarm almost never ends.
    first = int(alarms.argmax())
    known_levels = np.flatnonzero(alarms[first:] >= SEEN) + first
    x, y = levels[known_levels, 0], np.log(alarms[known_levels] / (STREAMS * LENGTH))
    if -np.log(wanted) >= y[-1]:
        return float(np.interp(np.log(wanted), -y, x))
    tail = alarms[known_levels] <= 10 * SEEN
    slope, start = np.polyfit(x[tail], y[tail], 1)
    return float((-np.log(wanted) - start) / slope)
