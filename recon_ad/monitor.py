"""Monitor a line: control charts, alarms, and a dashboard.

    python -m recon_ad.monitor --line O [--reference 500] [--run_length 10000] [--webhook URL]

The command follows O/line.sqlite, which `recon_ad.inspect` writes. It writes O/alarms.jsonl and
O/dashboard.html, which reloads itself. Alarms are logged and, if a webhook is given, posted to it
as JSON. A failed post is retried with growing pauses until the server accepts it; an alarm may
arrive twice if the monitor is killed at that moment. SIGTERM and SIGINT end the command with exit
status 0.

Later images are compared with those of `--reference`, which should be a period of normal operation.
`500` means the first 500 images of the table, `1001..1500` the rows with these ids, and
`2026-03-01T06:00..2026-03-01T14:00` the rows committed in that time. After an intended change, for
example of the lighting, add a period that lies after it, as in `--reference 500,8001..8500`. Alarms
before row 8001 are kept and not reported again, and rows from 8501 on are compared with the new
period.

With `--certificate C/certificate.json` of `recon_ad.certify`, there is also an alarm while the mean
brightness or sharpness of the latest 30 images lies beyond what the certificate covers (its
operating envelope). It needs no reference period.

Each chart gives one false alarm in `--run_length` images on average if the images are independent
of each other (see `recon_ad.line.chart_limits`).
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
from recon_ad.line.limits import read_limits
from recon_ad.runtime.stopping import on_signals
from recon_ad.runtime.waiting import exclusive_lock

LONGEST = 10_000_000  # images, the longest run length

logger = logging.getLogger("recon_ad")


def main() -> int:
    """Run the command."""
    line = Path(_LINE.value)
    if not (line / "line.sqlite").is_file():
        raise UserError(
            f"{line} contains no line.sqlite: give the --output folder of recon_ad.inspect."
        )
    references = [parse_period(text) for text in _REFERENCE.value]
    if not references:
        raise UserError(
            "--reference names no period: give one, such as 500 (the first 500 images)."
        )
    if not 2 <= _RUN_LENGTH.value <= LONGEST:
        raise UserError(f"--run_length {_RUN_LENGTH.value:g}: give a number from 2 to {LONGEST:,}.")
    url = urllib.parse.urlsplit(_WEBHOOK.value)
    if _WEBHOOK.value and (url.scheme not in ("http", "https") or not url.netloc):
        raise UserError(f"--webhook {_WEBHOOK.value}: give an address with http:// or https://.")
    limits = read_limits(Path(_CERTIFICATE.value)) if _CERTIFICATE.value else {}
    stop = on_signals()
    logger.info("following %s; see %s", line / "line.sqlite", line / "dashboard.html")
    with exclusive_lock(line / "monitor.lock"):
        follow(
            line,
            references=references,
            run_length=_RUN_LENGTH.value,
            limits=limits,
            webhook=_WEBHOOK.value,
            stop=stop,
        )
    return 0


if __name__ == "__main__":
    _LINE = flags.DEFINE_string("line", None, "Output folder of recon_ad.inspect.", required=True)
    _REFERENCE = flags.DEFINE_list(
        "reference", "500", "Reference periods in order: 500, 1001..1500, or TIME..TIME."
    )
    _RUN_LENGTH = flags.DEFINE_float(
        "run_length", 10_000, "Images between two false alarms of a chart, on average."
    )
    _CERTIFICATE = flags.DEFINE_string(
        "certificate", "", "certificate.json of recon_ad.certify, for limits of the images."
    )
    _WEBHOOK = flags.DEFINE_string("webhook", "", "URL that alarms are posted to as JSON.")
    cli.run(main)
