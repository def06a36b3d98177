"""Sections of the page of a certificate: real defects, and the same part again."""

from collections.abc import Mapping
from typing import Any

from recon_ad.metrics.promise import percent
from recon_ad.report import markup
from recon_ad.report.markup import paragraph, text


def real_defects(real: Mapping[str, Any] | None) -> str:
    """Write the escapes by kind, and by size beside the inserted defects."""
    if real is None:
        return ""
    every = [("all", real["escapes"]), *real["by_kind"].items()]
    kinds = [
        [
            markup.name(kind),
            text(f"{e['count']}\u00a0of\u00a0{e['total']}"),
            text(percent(e["rate"])),
            text(f"{percent(e['low'])} to {percent(e['high'])}"),
        ]
        for kind, e in every
    ]
    made = paragraph(text(_sentence_on_real(real)), kind="words")
    made += markup.table("Missed", ["kind", "missed", "share", "interval, 95 %"], kinds)
    if real["by_size"]:
        heads = ["size, px", "real found", "inserted found", "difference", "interval, 95 %", ""]
        made += markup.table("By size", heads, [_bin(row) for row in real["by_size"]])
        note = (
            "Inserted: of all kinds and contrasts. Difference: the real share minus the inserted "
            "one, in percentage points, with Newcombe's interval. A row is called different where "
            "chance does not explain it, even though several rows are compared."
        )
        made += paragraph(text(note), kind="note")
    return made


def _sentence_on_real(real: Mapping[str, Any]) -> str:
    escapes, unsized = real["escapes"], real["without_size"]
    words = (
        f"Of {escapes['total']} images with real defects {escapes['count']} are missed: with "
        f"95\u00a0% confidence between {percent(escapes['low'])} and {percent(escapes['high'])} "
        "of all."
    )
    located = real["located"]
    if located["total"]:
        words += (
            f" Of {located['total']} that are found and have a mask, the detector marks the defect "
            f"in {located['count']}."
        )
    return words + f" {unsized} have no mask and count by kind alone." * bool(unsized)


def _bin(row: Mapping[str, Any]) -> list[str]:
    cells = [
        f"{row['from_px']:g} to {row['to_px']:g}",
        f"{row['found']}\u00a0of\u00a0{row['real']}",
    ]
    if row["interval"] is None:
        cells += ["none of this size", "", "", ""]
    else:
        low, high = row["interval"]
        cells += [
            f"{row['inserted_found']}\u00a0of\u00a0{row['inserted']}",
            f"{100 * row['difference']:+.0f}\u00a0points",
            f"{100 * low:+.0f} to {100 * high:+.0f}",
            "different" if row["differs"] else "",
        ]
    return [text(cell) for cell in cells]


def repeats(found: Mapping[str, Any]) -> str:
    """Return the table of agreement and of scores."""
    alike, good, kappa = found["alike"], found["good_alike"], found["kappa"]
    agreement = "not defined, as all verdicts are the same" if kappa is None else f"{kappa:.2f}"
    rows = [
        ["good parts", str(found["good_parts"])],
        ["parts with an inserted defect near the threshold", str(found["defective_parts"])],
        ["pictures", str(found["pictures"])],
        ["parts whose pictures agree", f"{alike['count']} of {alike['total']}"],
        ["good parts whose pictures agree", f"{good['count']} of {good['total']}"],
        ["agreement beyond chance (Fleiss' κ)", agreement],
    ]
    if found["score_sd_within"] is not None:
        rows += [
            [
                "scatter of one good part's score",
                f"{found['score_sd_within']:.3g}",
            ],
            ["scatter between good parts' scores", f"{found['score_sd_between']:.3g}"],
        ]
    if found["share_of_gap"] is not None:
        rows.append(
            [
                "scatter of one part, as a share of the distance from a typical good score to the "
                "threshold",
                percent(found["share_of_gap"]),
            ]
        )
    cells = [[text(cell) for cell in row] for row in rows]
    return paragraph(text(_source(found)), kind="note") + markup.table(
        "Pictures of the same part", ["", "result"], cells
    )


def _source(found: Mapping[str, Any]) -> str:
    given = found["tolerances"]
    if not given:
        return (
            "The pictures are the user's own. In the rate of stopped parts each part counts once."
        )
    return (
        f"The pictures are made from one picture of each part: shifted by up to "
        f"{given['shift_px']:g} px, turned by up to {given['angle_degrees']:g}°, brighter or "
        f"darker by up to {percent(given['brightness'])}, with noise of "
        f"{percent(given['noise'])} of the range. Half of the parts with a defect were found with "
        "a score just above the threshold and half missed just below it, the hardest case."
    )


REASONS = {"rejects": "good parts are stopped", "detection": "defects are missed"}


def envelope(found: Mapping[str, Any]) -> str:
    """Return the table of disturbances, with the level that holds and the one that does not."""
    rows = []
    for one in found["disturbances"].values():
        holds = _level(one, found, one["holds_to"], otherwise="not even the smallest step")
        leaves = _level(one, found, one["leaves_at"], otherwise="not reached in the tests")
        because = " and ".join(REASONS[reason] for reason in one["because"])
        rows.append([one["label"], holds, leaves, because])
    heads = ["change of the images", "no fault seen up to", "fault seen at", "because too many"]
    cells = [[text(cell) for cell in row] for row in rows]
    return paragraph(text(_tested(found)), kind="note") + markup.table("Changes", heads, cells)


def _level(
    one: Mapping[str, Any], found: Mapping[str, Any], level: float | None, *, otherwise: str
) -> str:
    """Return a level with what was stopped and found at it."""
    if level is None:
        return otherwise
    if one["unit"]:
        space = "\u00a0" if one["unit"] == "px" else ""
        shown = f"{level:g}{space}{one['unit']}".removesuffix("quality")
    else:
        shown = percent(level)
    row = next(row for row in one["tested"] if row["level"] == level)
    return f"{shown} ({_counts(found, row)})"


def _counts(found: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    counts = f"{row['stopped']['count']} of {row['stopped']['total']} good ones stopped"
    if not found["defects"]:
        return counts
    return f"{counts}, {row['found']} of {found['defects']} defects found"


def _tested(found: Mapping[str, Any]) -> str:
    words = (
        f"Each change is made stronger step by step, on {found['good_images']} good images and "
        f"{found['defects']} inserted defects. The defects are a quarter larger than those of "
        "which nine in ten are found. Without a change: "
        f"{_counts(found, found['undisturbed'])}. A fault is seen at the first step at which more "
        f"good images are stopped than chance explains at a rate of {percent(found['rate_kept'])}, "
        "or fewer than nine in ten of the defects are found, again beyond chance. Nothing is known "
        "between that step and the last one before it, and so few images do not show a small fault."
    )
    if not found["defects"]:
        words += " No kind has an a90 within the tested sizes, so that only good images count."
    undisturbed = found["undisturbed"]
    failing = [REASONS[r] for r in REASONS if undisturbed[f"{r}_fail"]]
    if failing:
        words += f" Even without a change too many {' and '.join(failing)}: that is not judged."
    low, high = found["warning_limits"]["brightness"]
    words += (
        f" The mean brightness of the good images is {found['usual']['brightness']:.3g}. With "
        f"--certificate, recon_ad.monitor warns below {low:.3g} and above {high:.3g}, that of the "
        "last steps without a fault or, where none is, of the first step; and beyond the limits of "
        "sharpness in certificate.json."
    )
    return words
