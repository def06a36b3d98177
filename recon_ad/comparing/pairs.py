"""Runs of a set against its first row, on the same test images: what may be due to chance."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from recon_ad.comparing.runs import Run, Set
from recon_ad.metrics.paired import AurocTest, DecisionTest, delong, mcnemar
from recon_ad.metrics.ranking import UndefinedMetric

Test = TypeVar("Test")


class Pair(NamedTuple):
    """A run and the one that it is held against.

    Attributes:
      row: number of its row, from 1 on.
      run: it.
      against: of the first row the run of the same seed; where there is none, the first.
      auroc: DeLong's test of the other one and this; or why there is none.
      decisions: McNemar's test of the other one and this; or why there is none.
    """

    row: int
    run: Run
    against: Run
    auroc: AurocTest | str
    decisions: DecisionTest | str


def pairs(one: Set) -> list[Pair]:
    """All runs but those of the first row, each with a run of that.

    The first row is what was given first. The best one would be chosen by the figures that are
    tested, and look better against the others than it is. Runs whose images were drawn by
    themselves, as generated ones of another seed are, have nothing to be held against.
    """
    first, found = one.rows[0].runs, []
    for number, row in enumerate(one.rows[1:], 2):
        for run in row.runs:
            alike = [r for r in first if r.data["fingerprint"] == run.data["fingerprint"]]
            if not alike:
                continue
            other = next((r for r in alike if r.seed == run.seed), alike[0])
            found.append(_pair(number, run, other))
    return found


def _pair(number: int, run: Run, other: Run) -> Pair:
    ours, theirs = run.judged, other.judged
    return Pair(
        number,
        run,
        other,
        _given(lambda: delong(theirs.score, ours.score, ours.anomalous)),
        _given(lambda: mcnemar(theirs.right, ours.right)),
    )


def _given(test: Callable[[], Test]) -> Test | str:
    """The test, or why there is none."""
    try:
        return test()
    except UndefinedMetric as reason:
        return str(reason)
