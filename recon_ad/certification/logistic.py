"""Logistic models of hits and misses over the logarithm of a size, and what a size costs them.

The likelihood is penalised by half the logarithm of the information's determinant (Firth 1993,
Biometrika 80, p. 27), in the profile too (Heinze and Schemper 2002, Statistics in Medicine 21,
p. 2409). It then has a maximum also where sizes separate hits from misses. All functions fit many
outcomes at once, since bounds rest on simulated ones.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize, special, stats

STEPS = 50  # of Fisher's scoring, at most
FARTHEST = 2.0  # that a parameter moves in a step
NEAR = 1e-3  # a step below which the fit is done
STEEPEST = 60.0  # slope over a standard deviation of the log size, where misses never overlap hits

Places = Float[np.ndarray, " s"]
Outcomes = Float[np.ndarray, "r s"]
Values = Float[np.ndarray, " r"]
_Parameters = Float[np.ndarray, "p r"]


class Line(NamedTuple):
    """The parameters of each outcome's model: logit p = intercept + slope · place."""

    intercept: Values
    slope: Values

    def at(self, places: Places) -> Float[np.ndarray, "r s"]:
        """Return the logit of the probability at each place."""
        return self.intercept[:, None] + self.slope[:, None] * places


_START = Line(np.zeros(1), np.ones(1))


def fitted(places: Places, hits: Outcomes, *, start: Line | None = None) -> Line:
    """Maximise Firth's likelihood.

    Args:
      places: Standardised logarithms of the sizes.
      hits: 1 for a hit and 0 for a miss at each, for each outcome.
      start: A line near the maxima, of one outcome or of each.
    """
    moves = functools.partial(_moves, places)
    return Line(*_climbed(moves, _START if start is None else start, hits))


def _moves(places: Places, at: _Parameters, hits: Outcomes) -> _Parameters:
    """Return the next moves of intercept and slope by Fisher's scoring."""
    score, (s0, s1, s2) = _score(Line(*at), places, hits)
    u0, u1 = score.sum(1), score @ places
    determinant = np.maximum(s0 * s2 - s1 * s1, 1e-300)
    return np.stack([s2 * u0 - s1 * u1, s0 * u1 - s1 * u0]) / determinant


def fitted_through(
    places: Places, hits: Outcomes, *, place: float, level: float, start: Line | None = None
) -> Line:
    """Maximise Firth's likelihood among the lines whose logit is `level` at `place`."""
    slope = (_START if start is None else start).slope
    moves = functools.partial(_slope_moves, places, place, level)
    (found,) = _climbed(moves, [slope], hits)
    return Line(level - found * place, found)


def _slope_moves(
    places: Places, place: float, level: float, at: _Parameters, hits: Outcomes
) -> _Parameters:
    """Return the next moves of the slope by Fisher's scoring, with `level` at `place` kept."""
    line = Line(level - at[0] * place, at[0])
    score, (s0, s1, s2) = _score(line, places, hits)
    information = s2 - 2 * place * s1 + place**2 * s0
    return (score @ (places - place) / np.maximum(information, 1e-9))[None]


def _climbed(
    moves: Callable[[_Parameters, Outcomes], _Parameters],
    start: Sequence[Float[np.ndarray, " #r"]],
    hits: Outcomes,
) -> _Parameters:
    """Move the parameters of each outcome until its moves are small."""
    at = np.stack([np.broadcast_to(row, len(hits)).astype(float) for row in start])
    left = np.arange(len(hits))
    for _ in range(STEPS):
        move = moves(at[:, left], hits[left])
        longest = np.abs(move).max(0)
        at[:, left] += move / np.maximum(1, longest / FARTHEST)
        left = left[longest >= NEAR]
        if not len(left):
            break
    return at


def _score(line: Line, places: Places, hits: Outcomes) -> tuple[Outcomes, tuple[Values, ...]]:
    """Return Firth's score of each trial, and the sums that make up the information."""
    p = special.expit(line.at(places))
    s0, s1, s2 = sums = _information(p, places)
    determinant = np.maximum(s0 * s2 - s1 * s1, 1e-300)
    spread = s2[:, None] - 2 * s1[:, None] * places + s0[:, None] * places**2
    leverage = p * (1 - p) * spread / determinant[:, None]
    return hits - p + leverage * (0.5 - p), sums


def _information(p: Outcomes, places: Places) -> tuple[Values, Values, Values]:
    weight = p * (1 - p)
    return weight.sum(1), weight @ places, weight @ places**2


def penalised(line: Line, places: Places, hits: Outcomes) -> Values:
    """Return the logarithm of Firth's likelihood of each outcome."""
    logit = line.at(places)
    s0, s1, s2 = _information(special.expit(logit), places)
    likelihood = (hits * logit - np.logaddexp(0, logit)).sum(1)
    return likelihood + 0.5 * np.log(np.maximum(s0 * s2 - s1 * s1, 1e-300))


def signed_root(
    places: Places, hits: Outcomes, *, place: float, level: float, start: Line | None = None
) -> Values:
    """Return the signed root of the likelihood ratio of a logit of `level` at `place`.

    Positive where the fit is below that level there.
    """
    free = fitted(places, hits, start=start)
    bound = fitted_through(places, hits, place=place, level=level, start=start)
    loss = 2 * (penalised(free, places, hits) - penalised(bound, places, hits))
    sign = np.sign(level - (free.intercept + free.slope * place))
    return sign * np.sqrt(np.maximum(loss, 0))


def ceiling_p(places: Places, hits: Float[np.ndarray, " s"]) -> float:
    """Return the p-value of the model against one that misses a share of all sizes.

    By the likelihood ratio, without a penalty. The share is 0 or more, which halves the p-value of
    χ² with one degree of freedom (Self and Liang 1987, JASA 82, p. 605).
    """

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        growing = special.expit(parameters[0] + parameters[1] * places)
        kept = 1 - parameters[2]
        p = np.clip(kept * growing, 1e-12, 1 - 1e-12)
        value = -float(np.sum(hits * np.log(p) + (1 - hits) * np.log1p(-p)))
        by_p = (1 - hits) / (1 - p) - hits / p
        by_logit = by_p * kept * growing * (1 - growing)
        return value, np.array([by_logit.sum(), by_logit @ places, -(by_p @ growing)])

    def best(start: tuple[float, float, float], most: float) -> optimize.OptimizeResult:
        limits = [(-STEEPEST, STEEPEST), (0.0, STEEPEST), (0.0, most)]
        return optimize.minimize(
            loss, np.clip(start, *zip(*limits, strict=True)), jac=True, method="L-BFGS-B",
            bounds=limits,
        )  # fmt: skip

    plain = best((0.0, 2.0, 0.0), 0.0)
    b0, b1, _ = plain.x
    # From two places, as the likelihood may have two maxima.
    lower = min(best(s, 0.6).fun for s in ((b0, b1, 0.05), (b0 + 2, 2 * b1 + 1, 0.15)))
    return float(stats.chi2.sf(max(0.0, 2 * (plain.fun - lower)), 1)) / 2
