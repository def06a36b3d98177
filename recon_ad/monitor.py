"""Watches a line's table: control charts, alarms, a dashboard.

    python -m recon_ad.monitor --line O [--reference 500] [--run_length 10000] [--webhook URL]

follows O/line.sqlite, which `recon_ad.inspect` writes, and writes O/dashboard.html, which loads
itself again, and O/alarms.jsonl. Alarms are logged and, where a webhook is given, posted to it as
JSON, again and again until it takes them, with growing pauses; one may come twice where the monitor
was killed just then. SIGTERM and SIGINT end it with exit status 0.

Later images are compared with those of `--reference`: let it be a period in which all was well.
`500` are the first images of the table, `1001..1500` the rows with these ids, and
`2026-03-01T06:00..2026-03-01T14:00` those that were committed then. After an intended change, of
the light, say, add a period that lies after it, as in `--reference 500,8001..8500`: the alarms
before row 8001 stay as they were and are not told again, and from row 8501 on the new period
counts.

Each of the charts gives a false alarm once in `--run_length` images on average, if images do not
depend on each other; see `recon_ad.line.chart_limits`.
"""

import http.client
import json
import logging
import sqlite3
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from recon_ad import cli
from recon_ad.errors import UserError
from recon_ad.line.alarms import Alarm, Monitor, Period, parse_period
from recon_ad.line.dashboard import page, stamp
from recon_ad.line.store import Store
from recon_ad.runtime import files
from recon_ad.runtime.stopping import Stop, on_signals
from recon_ad.runtime.waiting import Patience, alone

POLL = 1.0  # s between two looks at the table
REDRAWN = 5.0  # s between two pages at most: how old the last image is stands there
PATIENCE = 5.0  # s that a webhook may take
PAUSES = (1.0, 300.0)  # s between two tries at a webhook, at first and at most
LONGEST = 10_000_000  # run length

logger = logging.getLogger("recon_ad")


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its content."""

    def redirect_request(self, *args: Any) -> None:
        """None makes an error of it."""
        return None


class Told:
    """Which alarms have been logged and posted, kept in a file.

    Args:
      path: of the file.
      settings: with others, or another table, nothing has been told.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self._path, self._settings = path, settings
        self._marks: dict[str, list[str]] = {"logged": [], "posted": []}
        if path.is_file():
            kept = json.loads(path.read_text())
            if kept["settings"] == settings:
                self._marks = kept["marks"]

    def has(self, what: str, alarm: Alarm) -> bool:
        """Whether that was done."""
        return self._name(alarm) in self._marks[what]

    def mark(self, what: str, alarm: Alarm) -> None:
        """It was done."""
        self._marks[what].append(self._name(alarm))
        files.write_json(self._path, {"settings": self._settings, "marks": self._marks})

    def _name(self, alarm: Alarm) -> str:
        # With the period: of another one the same row is another alarm.
        what = f"{alarm.statistic} {alarm.kind} {alarm.direction}"
        return f"{alarm.image} {what}, {alarm.reference}"


class Webhook:
    """Posts alarms, and waits longer and longer where it is not let.

    Args:
      url: http or https; "" posts nothing.
      name: of the line.
    """

    def __init__(self, url: str, *, name: str):
        self._url, self._name = url, name
        self._pause, self._next = PAUSES[0], 0.0
        self._opener = urllib.request.build_opener(NoRedirects)

    def take(self, alarm: Alarm) -> bool:
        """Whether the alarm has been taken, or there is no webhook."""
        if not self._url:
            return True
        if time.monotonic() < self._next:
            return False
        content = json.dumps({"line": self._name} | alarm._asdict()).encode()
        headers = {"Content-Type": "application/json"}
        try:
            request = urllib.request.Request(self._url, content, headers)
            with self._opener.open(request, timeout=PATIENCE):
                self._pause = PAUSES[0]
                return True
        except (OSError, ValueError, http.client.HTTPException) as error:
            logger.warning(
                "the webhook did not take an alarm (%s); tried again after %g s", error, self._pause
            )
            self._next = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, PAUSES[1])
            return False


def follow(
    line: Path, *, references: Sequence[Period], run_length: float, webhook: str, stop: Stop
) -> Monitor:
    """Follows the table until it is to stop."""
    store = Store(line / "line.sqlite")
    monitor = Monitor(references=references, run_length=run_length)
    settings = {"table": store.identity, "run_length": run_length}
    told = Told(line / "told.json", settings)
    hook = Webhook(webhook, name=line.resolve().name)
    patience = Patience(line, stop)
    seen, drawn = 0, float("-inf")
    while True:
        try:
            for row in store.rows(after=seen):
                seen = row["id"]
                monitor.feed(row)
            for alarm in monitor.alarms:
                if not told.has("logged", alarm):
                    when = stamp(alarm.committed)
                    logger.warning("%s, image %d: %s", when, alarm.image, alarm.words)
                    told.mark("logged", alarm)
            if time.monotonic() - drawn > REDRAWN:
                rows = "".join(json.dumps(alarm._asdict()) + "\n" for alarm in monitor.alarms)
                files.write_text(line / "alarms.jsonl", rows)
                shown = page(monitor, name=line.resolve().name, now=time.time())
                files.write_text(line / "dashboard.html", shown)
                drawn = time.monotonic()
            for alarm in monitor.alarms:
                if stop.asked:
                    break
                if webhook and not told.has("posted", alarm):
                    if not hook.take(alarm):
                        break
                    told.mark("posted", alarm)
            patience.over()
        except (OSError, sqlite3.OperationalError) as error:
            patience.wait(error)
        if stop.wait(POLL):
            break
    store.close()
    return monitor


def main() -> int:
    """The command."""
    line = Path(_LINE.value)
    if not (line / "line.sqlite").is_file():
        raise UserError(
            f"{line} holds no line.sqlite: give the folder that is --output of recon_ad.inspect."
        )
    references = [parse_period(text) for text in _REFERENCE.value]
    if not references:
        raise UserError("--reference names no period: give one, as 500, the first images.")
    if not 2 <= _RUN_LENGTH.value <= LONGEST:
        raise UserError(f"--run_length {_RUN_LENGTH.value:g}: give one from 2 to {LONGEST:,}.")
    url = urllib.parse.urlsplit(_WEBHOOK.value)
    if _WEBHOOK.value and (url.scheme not in ("http", "https") or not url.netloc):
        raise UserError(f"--webhook {_WEBHOOK.value}: give an address with http:// or https://.")
    stop = on_signals()
    logger.info("following %s; see %s", line / "line.sqlite", line / "dashboard.html")
    with alone(line / "monitor.lock"):
        follow(
            line,
            references=references,
            run_length=_RUN_LENGTH.value,
            webhook=_WEBHOOK.value,
            stop=stop,
        )
    return 0


if __name__ == "__main__":
    _LINE = flags.DEFINE_string("line", None, "Output folder of recon_ad.inspect.", required=True)
    _REFERENCE = flags.DEFINE_list("reference", "500", "Reference periods, in their order.")
    _RUN_LENGTH = flags.DEFINE_float("run_length", 10_000, "Images between two false alarms.")
    _WEBHOOK = flags.DEFINE_string("webhook", "", "Address that alarms are posted to.")
    cli.run(main)
