"""What a line's table says over time: charts of each statistic, and the alarms.

Everything follows from the rows and the reference periods alone, so that the same rows give the
same alarms however often the monitor was stopped. Rows are compared with the last period that is
over; those of a period itself, and those before the first, are not judged. So a period that is
added after an intended change leaves earlier alarms as they are.

No single row decides anything: a value that is no finite number is none, a time that is far from
the row before counts once the next row confirms it, and a chart that the reference will not do for
is left out.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from recon_ad.detector.image_files import BROKEN, NOT_REGISTERED
from recon_ad.errors import UserError
from recon_ad.line.charts import FEWEST, KINDS, Chart, State, make_chart, step

LATEST = 253_402_300_800.0  # the end of the year 9999, seconds since 1970
JUMP = 3600.0  # s between two rows, from which the next has to confirm the time
KEPT = 500  # latest values of each statistic, for the dashboard
PICTURED = 6  # latest rejects, for the dashboard
Row = Mapping[str, Any]

logger = logging.getLogger("recon_ad")


class Statistic(NamedTuple):
    """What is watched of each image.

    Attributes:
      name: of it.
      value: of a row; None where it has none, which is no change.
      words: what an alarm says, by its direction.
    """

    name: str
    value: Callable[[Row], float | int | None]
    words: Mapping[str, str]

    @property
    def charts(self) -> tuple[str, ...]:
        """Kinds of its charts; none is drawn where no image of the reference has a value."""
        return tuple(name for name, kind in KINDS.items() if self.name in kind.statistics)


def column(name: str) -> Callable[[Row], float | int | None]:
    """The finite number in that column; None where there is another thing."""
    return lambda row: number(row[name])


def number(value: Any) -> float | int | None:
    """The value, where it is a finite number: a table takes text and infinity, too."""
    is_one = isinstance(value, int | float) and math.isfinite(value)
    return value if is_one else None


STATISTICS = (
    Statistic(
        "score",
        column("score"),
        {
            "high": "scores are higher than they were",
            "low": "scores are lower than they were",
            "changed": "scores are distributed otherwise than they were",
        },
    ),
    Statistic(
        "brightness",
        column("brightness"),
        {
            "high": "images are brighter than they were",
            "low": "images are darker than they were",
        },
    ),
    Statistic(
        "sharpness",
        column("sharpness"),
        {
            "high": "images are sharper or noisier than they were",
            "low": "images are more blurred than they were",
        },
    ),
    Statistic(
        "rejected",
        column("anomalous"),
        {"high": "more images are rejected than before"},
    ),
    Statistic(
        "registration",
        column("registration"),
        {
            "high": "parts are found with more confidence than they were",
            "low": "parts are found with less confidence than they were",
        },
    ),
    Statistic(
        "not registered",
        # Without alignment there is no confidence, and nothing to watch.
        lambda row: (
            None if number(row["registration"]) is None else row["outcome"] == NOT_REGISTERED
        ),
        {"high": "more parts are not found than before"},
    ),
    Statistic(
        "broken",
        lambda row: row["outcome"] == BROKEN,
        {"high": "more files cannot be read than before"},
    ),
)


class Period(NamedTuple):
    """Rows that others are compared with.

    Attributes:
      text: as it was given.
      of: what of a row counts: "count", so that it is the first images there are, "id", or
        "committed", seconds since 1970.
      first: of its rows, by that.
      last: the same; it belongs to the period.
    """

    text: str
    of: str
    first: float
    last: float


def parse_period(text: str) -> Period:
    """`500`, the first images; `8001..8500`, rows; `2026-03-01T06:00..2026-03-01T14:00`, times of
    this machine's clock, or with an offset.

    Raises:
      UserError: it is none of these, or too short.
    """
    first, dots, last = (part.strip() for part in text.partition(".."))
    wrong = UserError(
        f"the reference period {text!r} cannot be read: give the number of first images, as 500, "
        "rows, as 8001..8500, or times, as 2026-03-01T06:00..2026-03-01T14:00."
    )
    try:
        if not dots:
            period = Period(text, "count", 1, int(first))
        elif first.isdigit() and last.isdigit():
            period = Period(text, "id", int(first), int(last))
        else:
            times = [datetime.fromisoformat(part).timestamp() for part in (first, last)]
            period = Period(text, "committed", *times)
    except (ValueError, OverflowError):
        raise wrong from None
    if dots and period.last <= period.first:
        raise UserError(f"the reference period {text!r} ends before it begins: turn it round.")
    if period.of != "committed" and period.last - period.first + 1 < FEWEST:
        raise UserError(f"the reference period {text!r} is short: give {FEWEST} images or more.")
    return period


class Alarm(NamedTuple):
    """A change that a chart has seen.

    Attributes:
      image: the row's id in the table at which it was seen.
      committed: that row's time, seconds since 1970.
      statistic: whose chart.
      kind: of the chart.
      direction: "high", "low" or "changed".
      words: what that means.
      reference: the period with which the image was compared.
      ended: the row's id at which it was over, or at which another reference period began; None
        while it lasts.
    """

    image: int
    committed: float
    statistic: str
    kind: str
    direction: str
    words: str
    reference: str
    ended: int | None


class Monitor:
    """Takes rows one after the other.

    Args:
      references: the periods, in their order.
      run_length: images between two false alarms of a chart, on average.

    `images` is how many there were, `last` when the last was committed, seconds since 1970;
    `reference` the period that rows are compared with, None before the first is over, and
    `collecting` the one that has begun and is not over. `latest` are the latest values of each
    statistic and `times` when these images were committed, `rejected` is how many images were
    rejected, `rejects` are the latest of their rows, and `threshold` is the last image's.
    """

    def __init__(self, *, references: Sequence[Period], run_length: float | int):
        self._ahead, self._run_length = deque(references), run_length
        self._reference: list[dict[str, float]] = []
        self._lasting: dict[tuple[str, str], int] = {}  # index of each chart's alarm
        self.reference: Period | None = None
        self.collecting: Period | None = None
        self.charts: dict[tuple[str, str], Chart] = {}
        self.states: dict[tuple[str, str], State] = {}
        self.alarms: list[Alarm] = []
        self.images, self.last = 0, 0.0
        self._beyond = False  # whether the row before lay beyond a period that has not begun
        self.latest: dict[str, deque[float]] = {s.name: deque(maxlen=KEPT) for s in STATISTICS}
        self.times: deque[float] = deque(maxlen=KEPT)
        self.rejected = 0
        self.rejects: deque[Row] = deque(maxlen=PICTURED)
        self.threshold = float("nan")

    @property
    def collected(self) -> int:
        """Images of the period that has begun."""
        return len(self._reference)

    @property
    def ahead(self) -> Period | None:
        """The period that has not begun."""
        return self._ahead[0] if self._ahead else None

    def feed(self, row: Row) -> None:
        """The next row.

        Raises:
          UserError: it lies beyond a reference period in which there was no row.
        """
        self.images += 1
        committed = self._time(row["committed"])
        self.times.append(self.last)
        if number(row.get("threshold")) is not None:
            self.threshold = float(row["threshold"])
        if number(row["anomalous"]):
            self.rejected += 1
            self.rejects.append({**row, "committed": self.last})
        values = {}
        for statistic in STATISTICS:
            value = statistic.value(row)
            values[statistic.name] = float("nan") if value is None else float(value)
            self.latest[statistic.name].append(values[statistic.name])
        place = {"id": row["id"], "committed": committed, "count": self.images}
        if self.collecting and place[self.collecting.of] > self.collecting.last:
            self._begin()
        if not self.collecting and self._ahead:
            ahead = self._ahead[0]
            now = place[ahead.of]
            before, self._beyond = self._beyond, now > ahead.last
            if self._beyond and before:
                raise UserError(
                    f"no image lies in the reference period {ahead.text!r}: give another."
                )
            if ahead.first <= now <= ahead.last:
                self._collect(row["id"])
        if self.collecting:
            self._reference.append(values)
            # The last row may be known to be it: charts are there before the next.
            if self.collecting.of != "committed" and (
                place[self.collecting.of] >= self.collecting.last
            ):
                self._begin()
            return
        self._chart(row, values)

    def _time(self, committed: Any) -> float:
        """When the row was committed; NaN, which no period knows, where that is in doubt.

        A clock may be wrong for a row: a time far from that of the row before counts once the next
        row confirms it.
        """
        if number(committed) is None or not 0 <= committed < LATEST:
            return float("nan")
        before, self.last = self.last, float(committed)
        near = self.images == 1 or abs(self.last - before) <= JUMP
        return self.last if near else float("nan")

    def _collect(self, image: int) -> None:
        self.collecting, self._reference = self._ahead.popleft(), []
        self.charts, self.states = {}, {}
        for index in self._lasting.values():
            self.alarms[index] = self.alarms[index]._replace(ended=image)
        self._lasting = {}

    def _begin(self) -> None:
        self.reference, self.collecting = self.collecting, None
        for statistic in STATISTICS:
            name = statistic.name
            values = [row[name] for row in self._reference if row[name] == row[name]]
            for kind in statistic.charts if values else ():
                try:
                    made = make_chart(name, kind, values, run_length=self._run_length)
                except UserError as error:
                    logger.warning("no chart of %s, %s: %s", name, kind, error)
                    continue
                self.charts[name, kind], self.states[name, kind] = made, State()

    def _chart(self, row: Row, values: Mapping[str, float]) -> None:
        for statistic in STATISTICS:
            for kind in statistic.charts:
                key = (statistic.name, kind)
                if key not in self.charts:
                    continue
                value = values[statistic.name]
                self.states[key], event = step(self.charts[key], self.states[key], value)
                if event == "end":
                    index = self._lasting.pop(key)
                    self.alarms[index] = self.alarms[index]._replace(ended=row["id"])
                elif event:
                    self._lasting[key] = len(self.alarms)
                    self.alarms.append(
                        Alarm(
                            row["id"], self.last, *key, event, statistic.words[event],
                            self.reference.text, None,
                        )
                    )  # fmt: skip
