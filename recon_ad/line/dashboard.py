"""The monitor's page: one self-contained HTML file that reloads itself."""

import base64
import io
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import numpy as np
from jaxtyping import Float
from PIL import Image

from recon_ad.line.alarms import STATISTICS, Alarm, Monitor, Period, number, parse_period
from recon_ad.line.limits import IMAGES, KIND
from recon_ad.line.run import overlay_of
from recon_ad.report import wording
from recon_ad.report.markup import folded, name, paragraph, section, table, text

REFRESH = 5  # s
STALE = 600.0  # s without an image after which the page warns
WIDTH, HEIGHT = 640, 120  # coordinate range of a curve, which is stretched to the page
LISTED = 50  # latest alarms that are listed
SHARE = 50  # images over which the share of an event is averaged
THUMBNAIL = 360  # px, longer side of a reject's picture
TITLES = {
    "score": "Anomaly score",
    "brightness": "Brightness (0 black, 1 white)",
    "rejected": f"Rejected, share of the latest {SHARE} images",
    "not registered": f"Part not found, share of the latest {SHARE} images",
    "broken": f"Unreadable files, share of the latest {SHARE} images",
    "registration": "Confidence with which the part is found (1 is best)",
}
KINDS = (
    "The charts compare each image with the reference period. ewma is a moving average, which "
    "shows small lasting changes. cusum adds up deviations from the usual values and shows sudden "
    "changes. distribution compares how the values are spread. events counts what should be rare."
)


def page(monitor: Monitor, *, name: str, now: float, line: Path | None = None) -> str:
    """Return the page as HTML.

    Args:
      monitor: Monitor with all rows so far.
      name: Name of the line.
      now: Current time, seconds since 1970.
      line: Folder with the overlays of rejected images. None shows no rejects.
    """
    lasting = [alarm for alarm in monitor.alarms if alarm.ended is None]
    age = now - monitor.last
    stale = bool(monitor.images) and age > STALE
    waiting = bool(monitor.collecting) or not monitor.reference
    if stale:
        state = f"No image for {age / 60:.0f} minutes."
    elif waiting:
        state = f"{_waiting(monitor)}."
    elif lasting:
        state = "; ".join(dict.fromkeys(alarm.words for alarm in lasting)).capitalize() + "."
    else:
        state = "No change since the reference period."
    kind = "state alarm" if lasting or stale else "state waiting" if waiting else "state"
    parts = [
        paragraph(f"Inspection line: {text(name)}", kind="note"),
        f'<h1 class="{kind}">{text(state)}</h1>',
        paragraph(
            f"{monitor.images:,} images, {monitor.rejected:,} of them rejected; last image at "
            f"{text(stamp(monitor.last))}, page written at {text(stamp(now))}." + _compared(monitor)
        ),
        section("alarms", "Alarms", _alarms(monitor.alarms)),
    ]
    if line is not None and (pictures := _rejects(monitor, line)):
        parts.append(section("rejects", "Latest rejects", pictures))
    for statistic, values in monitor.latest.items():
        if monitor.images and not np.isfinite(values).any():
            continue  # not measured on this line, such as registration without alignment
        title = TITLES.get(statistic, statistic.capitalize())
        body = _drawn(monitor, statistic, title) + _charts(monitor, statistic)
        parts.append(section(statistic.replace(" ", "-"), title, body))
    parts.append(paragraph(KINDS, kind="note"))
    style = resources.files("recon_ad.line").joinpath("dashboard.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="refresh" content="{REFRESH}">'
        f"<title>{text(name)}: {text(state)}</title><style>{style}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _waiting(monitor: Monitor) -> str:
    """Return which reference period the charts are waiting for."""
    period = monitor.collecting
    if not period:
        begins = monitor.ahead.text if monitor.ahead else ""
        return f"Charts start after the reference period {begins}, which has not begun"
    if period.of == "committed":
        return (
            f"Charts start when the reference period {period.text} is over: "
            f"{monitor.collected:,} images so far"
        )
    if period.of == "count":
        return f"Charts start after {_spoken(period)}: {monitor.collected:,} so far"
    whole = int(period.last - period.first) + 1
    return (
        f"Charts start when the reference period {period.text} is complete: "
        f"{monitor.collected:,} of {whole:,} images so far"
    )


def _compared(monitor: Monitor) -> str:
    """Return the current reference period and the next one, in words."""
    words = ""
    if monitor.charts and monitor.reference:
        words = f" Compared with {_spoken(monitor.reference)}."
    if monitor.ahead:
        words += f" Next reference period: {_spoken(monitor.ahead)}."
    return text(words)


def _reference_of(alarm: Alarm) -> str:
    """Return with what the images of an alarm were compared."""
    if alarm.kind == KIND:
        return f"{alarm.statistic}, mean of {IMAGES} images; compared with the certificate"
    period = _spoken(parse_period(alarm.reference))
    return f"chart {alarm.statistic}, {alarm.kind}; compared with {period}"


def _spoken(period: Period) -> str:
    if period.of == "count":
        return f"the first {period.text} images"
    return f"images {period.text}" if period.of == "id" else period.text


def stamp(seconds: float) -> str:
    """Format a time by the machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _drawn(monitor: Monitor, statistic: str, title: str) -> str:
    """Return the curve of a statistic, or of its share of the latest images if it is an event."""
    values = np.array(monitor.latest[statistic])
    known = values[np.isfinite(values)]
    if np.isin(known, (0.0, 1.0)).all():
        if not known.any():
            return paragraph(f"None of the latest {len(values):,} images.")
        values = shares(values)
    limit = monitor.threshold if statistic == "score" else float("nan")
    alt = f"{title}: the latest {len(values)} images"
    return curve(values, alt=alt, times=tuple(monitor.times), threshold=limit)


def shares(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return, at each image, the share of ones among the known values of the latest `SHARE`."""
    ones, known = (np.cumsum(x) for x in (np.nan_to_num(values), np.isfinite(values)))
    before = np.maximum(np.arange(len(values)) - SHARE, -1)
    ones, known = (x - np.where(before < 0, 0, x[before]) for x in (ones, known))
    return np.where(known > 0, ones / np.maximum(known, 1), np.nan)


def curve(
    values: Float[np.ndarray, " n"],
    *,
    alt: str,
    times: Sequence[float] = (),
    threshold: float = float("nan"),
) -> str:
    """Draw the values in order with both axes, leaving gaps for missing values.

    Args:
      values: Values; NaN marks a missing one.
      alt: Description of the curve.
      times: Time of each value, seconds since 1970. An empty sequence draws no time axis.
      threshold: Threshold, drawn if it is finite. Values above it are marked with a dot.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return paragraph("No values yet.")
    limited = bool(np.isfinite(threshold))
    ends = np.append(known, threshold) if limited else known
    low, high = float(ends.min()), float(ends.max())
    span = high - low or 1.0
    x = np.arange(len(values)) * (WIDTH / max(1, len(values) - 1))
    y = HEIGHT - 5 - (values - low) / span * (HEIGHT - 10)
    lines, points = [], []
    for px, py in [*zip(x, y, strict=True), (0.0, float("nan"))]:
        if np.isfinite(py):
            points.append(f"{px:.1f},{py:.1f}")
        elif points:
            lines.append(_polyline(points))
            points = []
    over = ""
    if limited:
        at = HEIGHT - 5 - (threshold - low) / span * (HEIGHT - 10)
        lines.append(f'<line class="threshold" x1="0" x2="{WIDTH}" y1="{at:.1f}" y2="{at:.1f}"/>')
        above = np.flatnonzero(values > threshold)
        lines += [_polyline([f"{x[i]:.1f},{y[i]:.1f}"], kind="above") for i in above]
        over = f"; dashed line: threshold {wording.significant(threshold)}"
    marks = (high, (low + high) / 2, low) if high > low else (low,)
    labels = "".join(f"<span>{wording.significant(v)}</span>" for v in marks)
    clock = "".join(f"<span>{text(t)}</span>" for t in _clock(times))
    return (
        f'<figure class="chart"><div class="y">{labels}</div>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{text(alt)}"><title>{text(alt)}</title>{"".join(lines)}</svg>'
        f'<div class="x">{clock}</div>'
        f"<figcaption>latest {wording.significant(float(known[-1]))}{over}</figcaption></figure>"
    )


def _polyline(points: Sequence[str], *, kind: str = "") -> str:
    # A single point is repeated, because a line of one point draws nothing.
    drawn = points if len(points) > 1 else [*points, *points]
    return f'<polyline class="{kind}" points="{" ".join(drawn)}"/>'


def _clock(times: Sequence[float]) -> list[str]:
    """Return the times of the first, middle and last image, with the day if they differ in it."""
    if not times:
        return []
    chosen = [times[0], times[len(times) // 2], times[-1]]
    moments = [time.localtime(seconds) for seconds in chosen]
    days = len({(t.tm_year, t.tm_yday) for t in moments}) > 1
    return [time.strftime("%m-%d %H:%M" if days else "%H:%M:%S", t) for t in moments]


def _charts(monitor: Monitor, statistic: str) -> str:
    rows = []
    for key, chart in monitor.charts.items():
        if key[0] == statistic:
            state = monitor.states[key]
            now = f"{max(state.up, state.down):.2f}"
            words = _words(statistic).get(state.alarm, state.alarm) or "quiet"
            rows.append([text(chart.kind), now, f"{chart.limit:.2f}", text(words)])
    if not rows:
        return ""
    shown = table(f"Charts of {statistic}", ["chart", "now", "alarm beyond", "state"], rows)
    return folded("Control charts", shown)


def _words(statistic: str) -> Mapping[str, str]:
    return next((s.words for s in STATISTICS if s.name == statistic), {})


def _alarms(alarms: Sequence[Alarm]) -> str:
    if not alarms:
        return paragraph("None.")
    items = []
    for alarm in reversed(alarms[-LISTED:]):
        lasts = alarm.ended is None
        ended = "" if lasts else f", until image {alarm.ended:,}"
        items.append(
            f'<li class="{"lasts" if lasts else ""}"><b>{text(alarm.words.capitalize())}</b>'
            f"{' (ongoing)' * lasts}<br>{text(stamp(alarm.committed))}, from image {alarm.image:,}"
            f"{ended}<br><small>{text(_reference_of(alarm))}</small></li>"
        )
    count = f"{len(alarms):,} alarms" if len(alarms) != 1 else "1 alarm"
    words = count + (f", the latest {LISTED} of them" if len(alarms) > LISTED else "") + ":"
    return paragraph(words) + f'<ul class="alarms">{"".join(items)}</ul>'


def _rejects(monitor: Monitor, line: Path) -> str:
    """Return small pictures of the latest rejects' overlays, with links to the files."""
    figures = []
    for row in reversed(monitor.rejects):
        path = overlay_of(line, str(row["name"]), anomalous=True)
        try:
            picture = _thumbnail(path, path.stat().st_mtime_ns)
        except (OSError, ValueError, Image.DecompressionBombError):
            continue  # deleted, or still being written
        address = quote(path.relative_to(line).as_posix())
        score = wording.score(row["score"]) if number(row["score"]) is not None else "none"
        figures.append(
            f'<figure><a href="{text(address)}"><img alt="Overlay of {text(row["name"])}" '
            f'src="data:image/jpeg;base64,{picture}"></a><figcaption>{name(row["name"])}<br>'
            f"{text(stamp(row['committed']))}, score {text(score)}</figcaption>"
            "</figure>"
        )
    return f'<div class="rejects">{"".join(figures)}</div>' * bool(figures)


@lru_cache(maxsize=32)
def _thumbnail(path: Path, changed_ns: int) -> str:
    """Return a small JPEG of the picture in base64, cached until `changed_ns` differs."""
    del changed_ns
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        picture.convert("RGB").save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
