"""Tests of the runs of a set against its first row, on the same test images."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from recon_ad.comparing.runs import Run, Set
from recon_ad.metrics.paired import AurocTest, DecisionTest, delong, mcnemar
from recon_ad.metrics.ranking import UndefinedMetric

Test = TypeVar("Test")


class Pair(NamedTuple):
    """A run and the run of the first row with which it is compared.

    Attributes:
      row: Number of the run's row, from 1 on.
      run: The run.
      against: Run of the first row with the same seed, or else the first run of that row with the
        same images.
      auroc: DeLong's test of `against` and `run`, or the reason for its absence.
      decisions: McNemar's test of `against` and `run`, or the reason for its absence.
    """

    row: int
    run: Run
    against: Run
    auroc: AurocTest | str
    decisions: DecisionTest | str


def pairs(one: Set) -> list[Pair]:
    """Pair every run of the other rows with a run of the first row.

    The first row is the one given first. If the best row took its place, it would be chosen by the
    figures under test, and would seem better than it is. A run whose images differ from those of
    all runs of the first row, such as images generated with another seed, is left out.
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
    """Run the test, or return the reason for its absence."""
    try:
        return test()
    except UndefinedMetric as reason:
        return str(reason)
