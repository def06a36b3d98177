"""The monitor's page: one HTML file that loads itself again and needs nothing else."""

import time
from collections.abc import Sequence

import numpy as np

from recon_ad.line.alarms import Alarm, Monitor
from recon_ad.report.markup import paragraph, section, table, text

REFRESH = 5  # s
STALE = 600.0  # s without an image, after which a line is not called well
WIDTH, HEIGHT = 640, 90  # of a curve, px
LISTED = 50  # alarms, the latest
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1d2329; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 1.5rem 0 .3rem }
.state { font-weight: 600; padding: .6rem 1rem; border-left: .4rem solid #2a7f4f;
  background: #eef6f1 }
.state.alarm { border-color: #b3261e; background: #fbeceb }
svg { width: 100%; height: auto; border-bottom: 1px solid #c9ced4 }
table { border-collapse: collapse; width: 100% }
.charts table { table-layout: fixed }
th, td { text-align: left; padding: .2rem .8rem .2rem 0 }
caption { text-align: left; color: #5a646e } .scroll { overflow-x: auto }
@media (prefers-color-scheme: dark) { body { color: #e4e7ea; background: #14181c }
  .state { background: #17251d } .state.alarm { background: #2c1715 } caption { color: #a3adb7 }
  svg { border-color: #3b434b } }
"""


def page(monitor: Monitor, *, name: str, now: float) -> str:
    """The page.

    Args:
      monitor: with all rows so far.
      name: of the line.
      now: seconds since 1970.
    """
    lasting = [alarm for alarm in monitor.alarms if alarm.ended is None]
    age = now - monitor.last
    stale = bool(monitor.images) and age > STALE
    if stale:
        state = f"No image for {age / 60:.0f} minutes."
    elif monitor.collecting or not monitor.reference:
        state = f"{_waiting(monitor)}."
    elif lasting:
        state = "; ".join(dict.fromkeys(alarm.words for alarm in lasting)).capitalize() + "."
    else:
        state = "As in the reference period."
    kind = "state alarm" if lasting or stale else "state"
    parts = [
        f"<h1>{text(name)}</h1>",
        paragraph(text(state), kind=kind),
        paragraph(
            f"{monitor.images:,} images, the last at {text(stamp(monitor.last))}; page of "
            f"{text(stamp(now))}." + _compared(monitor)
        ),
    ]
    parts.append(section("alarms", "Alarms", _alarms(monitor.alarms)))
    for statistic, values in monitor.latest.items():
        if monitor.images and not np.isfinite(values).any():
            continue  # not measured on this line, as registration without alignment
        body = curve(np.array(values), alt=f"{statistic} of the latest {len(values)} images")
        charts = [key for key in monitor.charts if key[0] == statistic]
        if charts:
            body += table(
                f"Charts of {statistic}",
                ["chart", "now", "alarm beyond", "state"],
                [_chart(monitor, key) for key in charts],
                kind="charts",
            )
        parts.append(section(statistic.replace(" ", "-"), statistic.capitalize(), body))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH}">'
        f"<title>{text(name)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _waiting(monitor: Monitor) -> str:
    """What charts wait for."""
    period = monitor.collecting
    if not period:
        begins = monitor.ahead.text if monitor.ahead else ""
        return f"Charts begin after the reference period {begins}, which has not begun"
    if period.of == "committed":
        return (
            f"Charts begin when the reference period {period.text} is over: "
            f"{monitor.collected:,} images so far"
        )
    whole = int(period.last - period.first) + 1
    return (
        f"Charts begin when the reference period {period.text} is complete: "
        f"{monitor.collected:,} of {whole:,} images are there, {whole - monitor.collected:,} are "
        "missing"
    )


def _compared(monitor: Monitor) -> str:
    """Which reference period counts, and what is still to come."""
    told = "" if not monitor.charts else f" Compared with {text(monitor.reference.text)}."
    return told + (f" Next reference period: {text(monitor.ahead.text)}." if monitor.ahead else "")


def stamp(seconds: float) -> str:
    """A time as the machine's clock shows it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def curve(values: np.ndarray, *, alt: str) -> str:
    """The values in order as an SVG; gaps where there is none."""
    known = values[np.isfinite(values)]
    if not known.size:
        return paragraph("No values yet.")
    low, high = float(known.min()), float(known.max())
    span = high - low or 1.0
    x = np.arange(len(values)) * (WIDTH / max(1, len(values) - 1))
    y = HEIGHT - 5 - (values - low) / span * (HEIGHT - 10)
    lines, points = [], []
    for px, py in [*zip(x, y, strict=True), (0.0, float("nan"))]:
        if np.isfinite(py):
            points.append(f"{px:.1f},{py:.1f}")
        elif points:
            # A value between two gaps, twice: a line of one point draws nothing.
            drawn = points if len(points) > 1 else points * 2
            lines.append(f'<polyline stroke-linecap="round" points="{" ".join(drawn)}"/>')
            points = []
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(alt)}" fill="none" '
        f'stroke="#3a6ea5" stroke-width="1.5"><title>{text(alt)}</title>{"".join(lines)}</svg>'
        + paragraph(f"from {low:.4g} to {high:.4g}, latest {known[-1]:.4g}")
    )


def _chart(monitor: Monitor, key: tuple[str, str]) -> list[str]:
    chart, state = monitor.charts[key], monitor.states[key]
    now = max(state.up, state.down)
    return [text(chart.kind), f"{now:.2f}", f"{chart.limit:.2f}", text(state.alarm or "quiet")]


def _alarms(alarms: Sequence[Alarm]) -> str:
    if not alarms:
        return paragraph("None.")
    rows = [
        [
            text(stamp(alarm.committed)),
            f"{alarm.image:,}",
            text(alarm.words),
            text(f"{alarm.statistic}, {alarm.kind}"),
            text(alarm.reference),
            "lasts" if alarm.ended is None else f"until image {alarm.ended:,}",
        ]
        for alarm in reversed(alarms[-LISTED:])
    ]
    caption = f"{len(alarms):,} alarms" + (f", the latest {LISTED}" if len(alarms) > LISTED else "")
    return table(caption, ["time", "image", "what", "chart", "compared with", ""], rows)
