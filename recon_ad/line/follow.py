"""The monitor's loop: it reads rows, updates the charts, and logs and posts alarms."""

import json
import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recon_ad.line.alarms import Alarm, Monitor, Period
from recon_ad.line.dashboard import page, stamp
from recon_ad.line.limits import Limits
from recon_ad.line.store import Store
from recon_ad.line.webhook import Webhook
from recon_ad.runtime import files
from recon_ad.runtime.stopping import Stop
from recon_ad.runtime.waiting import Retry, opened

POLL = 1.0  # s between two reads of the table

REDRAWN = 5.0  # s between two pages; the page shows how old the last image is

logger = logging.getLogger("recon_ad")


class Told:
    """Record of the alarms that have been logged and posted, kept in a file.

    Args:
      path: Path of the file.
      settings: Table and settings of the monitor. A record with different ones is discarded.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self._path, self._settings = path, settings
        self._marks: dict[str, list[str]] = {"logged": [], "posted": []}
        try:
            kept = json.loads(path.read_text())
            if kept["settings"] == settings:
                self._marks = {what: [str(x) for x in kept["marks"][what]] for what in self._marks}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            logger.warning("%s is damaged (%s): alarms may be reported again", path, error)

    def has(self, what: str, alarm: Alarm) -> bool:
        """Return whether the alarm was "logged" or "posted"."""
        return self._name(alarm) in self._marks[what]

    def mark(self, what: str, alarm: Alarm) -> None:
        """Record that the alarm was "logged" or "posted"."""
        self._marks[what].append(self._name(alarm))
        files.write_json(self._path, {"settings": self._settings, "marks": self._marks})

    def _name(self, alarm: Alarm) -> str:
        # Includes the reference period, because with another one the same row is another alarm.
        what = f"{alarm.statistic} {alarm.kind} {alarm.direction}"
        return f"{alarm.image} {what}, {alarm.reference}"


def follow(
    line: Path,
    *,
    references: Sequence[Period],
    run_length: float,
    webhook: str,
    stop: Stop,
    limits: Limits | None = None,
) -> Monitor:
    """Follow the table until a stop is requested.

    Args:
      line: Output folder of `recon_ad.inspect`.
      references: Reference periods, in order.
      run_length: Images between two false alarms of a chart, on average.
      webhook: URL that alarms are posted to; "" posts nothing.
      stop: Stop request.
      limits: Warning limits of a certificate, by statistic.

    Returns:
      The monitor after the last row.
    """
    monitor = Monitor(references=references, run_length=run_length, limits=limits)
    retry = Retry(line, stop)
    store = opened(lambda: Store(line / "line.sqlite"), retry=retry, stop=stop)
    if store is None:
        return monitor
    settings = {"table": store.identity, "run_length": run_length}
    told = Told(line / "told.json", settings)
    hook = Webhook(webhook, name=line.resolve().name)
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
                shown = page(monitor, name=line.resolve().name, now=time.time(), line=line)
                files.write_text(line / "dashboard.html", shown)
                drawn = time.monotonic()
            for alarm in monitor.alarms:
                if stop.asked:
                    break
                if webhook and not told.has("posted", alarm):
                    if not hook.take(alarm):
                        break
                    told.mark("posted", alarm)
            retry.over()
        except (OSError, sqlite3.OperationalError) as error:
            retry.wait(error)
        if stop.wait(POLL):
            break
    store.close()
    return monitor
