"""Alarms over a line's table, from control charts of each statistic.

Everything follows from the rows and the reference periods alone, so that the same rows give the
same alarms however often the monitor was stopped. Rows are compared with the last reference period
that is over. Rows before the first period, and those within a period, are not judged. A period that
is added after an intended change therefore leaves earlier alarms unchanged.

No single row can upset the monitor. A value that is not a finite number counts as missing. A time
that is far from the previous row's counts only once the next row confirms it. A chart for which the
reference period is unsuitable is left out.
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
from recon_ad.line.limits import KIND, WORDS, Limits, Watch

LATEST = 253_402_300_800.0  # the end of the year 9999, seconds since 1970
JUMP = 3600.0  # s between two rows, above which the next row has to confirm the time
KEPT = 500  # latest values of each statistic that the dashboard shows
PICTURED = 6  # latest rejects that the dashboard shows
Row = Mapping[str, Any]

logger = logging.getLogger("recon_ad")


class Statistic(NamedTuple):
    """A quantity that is monitored for each image.

    Attributes:
      name: Name of the statistic.
      value: Function that returns a row's value, or None if it has none. None changes no chart.
      words: Message of an alarm, by its direction.
    """

    name: str
    value: Callable[[Row], float | int | None]
    words: Mapping[str, str]

    @property
    def charts(self) -> tuple[str, ...]:
        """Kinds of its charts. None is drawn if no image of the reference has a value."""
        return tuple(name for name, kind in KINDS.items() if self.name in kind.statistics)


def column(name: str) -> Callable[[Row], float | int | None]:
    """Return a function for the finite number in that column, or None for anything else."""
    return lambda row: number(row[name])


def number(value: Any) -> float | int | None:
    """Return the value if it is a finite number, else None: tables also store text and infinity."""
    is_one = isinstance(value, int | float) and math.isfinite(value)
    return value if is_one else None


STATISTICS = (
    Statistic(
        "score",
        column("score"),
        {
            "high": "scores are higher than before",
            "low": "scores are lower than before",
            "changed": "scores are distributed differently than before",
        },
    ),
    Statistic(
        "brightness",
        column("brightness"),
        {
            "high": "images are brighter than before",
            "low": "images are darker than before",
        },
    ),
    Statistic(
        "sharpness",
        column("sharpness"),
        {
            "high": "images are sharper or noisier than before",
            "low": "images are more blurred than before",
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
            "high": "parts are found with more confidence than before",
            "low": "parts are found with less confidence than before",
        },
    ),
    Statistic(
        "not registered",
        # Without alignment rows have no confidence, and the statistic does not apply.
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
    """A reference period: the rows that later rows are compared with.

    Attributes:
      text: The period as it was given.
      of: Quantity that `first` and `last` refer to: "count" (the number of the image since the
        start of the table), "id" (of the row), or "committed" (seconds since 1970).
      first: First value of the period.
      last: Last value, inclusive.
    """

    text: str
    of: str
    first: float
    last: float


def parse_period(text: str) -> Period:
    """Parse a reference period.

    Args:
      text: `500`, the first 500 images; `8001..8500`, rows by their ids; or
        `2026-03-01T06:00..2026-03-01T14:00`, times by this machine's clock or with an offset.

    Raises:
      UserError: If the text has none of these forms, or the period is too short.
    """
    first, dots, last = (part.strip() for part in text.partition(".."))
    wrong = UserError(
        f"the reference period {text!r} cannot be read: give a number of first images such as 500, "
        "rows such as 8001..8500, or times such as 2026-03-01T06:00..2026-03-01T14:00."
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
        raise UserError(f"the reference period {text!r} ends before it begins: swap its ends.")
    if period.of != "committed" and period.last - period.first + 1 < FEWEST:
        raise UserError(
            f"the reference period {text!r} is too short: give {FEWEST} images or more."
        )
    return period


class Alarm(NamedTuple):
    """A change that a chart has detected.

    Attributes:
      image: Id of the row at which the alarm began.
      committed: That row's time, seconds since 1970.
      statistic: Name of the statistic.
      kind: Kind of the chart, or `limits.KIND`.
      direction: "high", "low" or "changed".
      words: Message of the alarm.
      reference: Reference period with which the image was compared, or `limits.KIND`.
      ended: Id of the row at which the alarm ended or another reference period began; None while
        the alarm lasts.
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
    """Control charts and alarms of a line, fed with one row at a time.

    Args:
      references: The reference periods, in order.
      run_length: Images between two false alarms of a chart, on average.
      limits: Warning limits of a certificate, by statistic.

    Attributes:
      reference: Period that rows are compared with; None until the first one is over.
      collecting: Period that has begun and is not over, if any.
      charts: Charts by statistic and kind.
      states: States of the charts.
      alarms: All alarms so far.
      images: Number of rows so far.
      last: Time at which the last row was committed, seconds since 1970.
      latest: Latest values of each statistic.
      times: Times at which these rows were committed.
      rejected: Number of rejected images.
      rejects: Rows of the latest rejects.
      threshold: Threshold of the last image that has one.
    """

    def __init__(
        self, *, references: Sequence[Period], run_length: float | int, limits: Limits | None = None
    ):
        self._ahead, self._run_length = deque(references), run_length
        self._reference: list[dict[str, float]] = []
        self._lasting: dict[tuple[str, str], int] = {}  # index of each chart's alarm
        self._watches = {name: Watch(*pair) for name, pair in (limits or {}).items()}
        self._outside: dict[str, int] = {}  # index of the alarm of each statistic beyond its limits
        self.reference: Period | None = None
        self.collecting: Period | None = None
        self.charts: dict[tuple[str, str], Chart] = {}
        self.states: dict[tuple[str, str], State] = {}
        self.alarms: list[Alarm] = []
        self.images, self.last = 0, 0.0
        self._beyond = False  # whether the previous row lay beyond a period that has not begun
        self.latest: dict[str, deque[float]] = {s.name: deque(maxlen=KEPT) for s in STATISTICS}
        self.times: deque[float] = deque(maxlen=KEPT)
        self.rejected = 0
        self.rejects: deque[Row] = deque(maxlen=PICTURED)
        self.threshold = float("nan")

    @property
    def collected(self) -> int:
        """Number of images collected for the current reference period."""
        return len(self._reference)

    @property
    def ahead(self) -> Period | None:
        """The next reference period that has not begun, if any."""
        return self._ahead[0] if self._ahead else None

    def feed(self, row: Row) -> None:
        """Process the next row.

        Raises:
          UserError: If the rows have passed a reference period without a row in it.
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
        self._watch(row, values)
        place = {"id": row["id"], "committed": committed, "count": self.images}
        if self.collecting and place[self.collecting.of] > self.collecting.last:
            self._begin()
        if not self.collecting and self._ahead:
            ahead = self._ahead[0]
            now = place[ahead.of]
            before, self._beyond = self._beyond, now > ahead.last
            if self._beyond and before:
                raise UserError(
                    f"no image lies in the reference period {ahead.text!r}: give another one."
                )
            if ahead.first <= now <= ahead.last:
                self._collect(row["id"])
        if self.collecting:
            self._reference.append(values)
            # If this is known to be the period's last row, the charts start before the next row.
            if self.collecting.of != "committed" and (
                place[self.collecting.of] >= self.collecting.last
            ):
                self._begin()
            return
        self._chart(row, values)

    def _watch(self, row: Row, values: Mapping[str, float]) -> None:
        """Begin and end alarms of statistics that leave the limits of a certificate."""
        for name, watch in self._watches.items():
            direction, lasting = watch.outside(values[name]), self._outside.get(name)
            if lasting is not None and self.alarms[lasting].direction != direction:
                self.alarms[lasting] = self.alarms[lasting]._replace(ended=row["id"])
                del self._outside[name]
            if direction and name not in self._outside:
                self._outside[name] = len(self.alarms)
                words = WORDS[name, direction]
                self.alarms.append(
                    Alarm(row["id"], self.last, name, KIND, direction, words, KIND, None)
                )

    def _time(self, committed: Any) -> float:
        """Return when the row was committed, or NaN, which lies in no period, if that is in doubt.

        A clock may be wrong for one row, so a time far from the previous row's counts only once the
        next row confirms it.
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
