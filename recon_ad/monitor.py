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

import logging
import urllib.parse
import urllib.request
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.errors import UserError
from recon_ad.line.alarms import parse_period
from recon_ad.line.follow import follow
from recon_ad.runtime.stopping import on_signals
from recon_ad.runtime.waiting import exclusive_lock

LONGEST = 10_000_000  # run length

logger = logging.getLogger("recon_ad")


def main() -> int:
    """Runs the command."""
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
    with exclusive_lock(line / "monitor.lock"):
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
