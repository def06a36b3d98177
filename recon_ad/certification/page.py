"""The page of a certificate: the answers in a sentence each, then tables, curves and pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import special

from recon_ad.certification.defects import KINDS, STRENGTHS
from recon_ad.certification.detection import ABOVE, BELOW, CEILING, WANTED, WITHIN
from recon_ad.certification.pictures import pictures
from recon_ad.certification.run import Certificate
from recon_ad.certification.sections import envelope, real_defects, repeats
from recon_ad.metrics.promise import percent
from recon_ad.report import markup
from recon_ad.report.drawing import BLUE, INK, MANY, dress, legend, plain_powers, svg
from recon_ad.report.html import page as report_page
from recon_ad.report.markup import paragraph, text

BINS = 8  # of sizes, whose shares are drawn as dots
GLOSSARY = {
    "Good image": "An image of a part without a defect.",
    "Stopped": "The detector calls the image defective, so that the part is taken off the line.",
    "Threshold": "The score above which an image is stopped. It was set from good images.",
    "95 % confidence": "If the study were made a hundred times, about 95 bounds would be true.",
    "a50, a90": "The sizes at which one in two, and nine in ten, are found: best estimates.",
    "a90/95": "The size from which nine in ten defects are found, with 95 % confidence. It is the "
    "figure to rely on.",
    "Contrast": "How far a defect changes the gray level, as a share of the range of gray levels "
    "that the part shows (from its darkest to its brightest hundredth). 20 % is faint, 40 % "
    "clear and 80 % strong.",
    "Size": "The diameter of the smallest circle that holds the defect: a spot's diameter, a "
    "scratch's length.",
    "Interval, 95 %": "The range in which the true share lies, with 95 % confidence.",
    "Curve (fit)": "The probability of finding a defect over its size. A small p, such as 0.01, "
    "says that the curve fits badly.",
    "Located": "The detector stops the image and what it marks overlaps the defect.",
    "Fleiss' κ": "How far verdicts on the same part agree: 1 always, 0 no more than by chance.",
    "Promised rate": "The share of good images that the calibration expects to be stopped.",
}
METHOD = (
    "Defects are drawn by the computer into good images that pass the detector, with soft edges, "
    "at random places within the region of interest. The detector judges each image as in "
    "use, with its calibrated thresholds.",
    "Sizes are spread evenly on a logarithmic scale. The probability of finding a defect is a "
    "logistic curve over the logarithm of its size (MIL-HDBK-1823A, ASTM E2862), fitted with "
    "Firth's correction (1993) and bounded by profile likelihood, whose limit comes from simulated "
    "studies. Where that curve does not fit, or some defects of every size seem to be missed (no "
    "model in the table), only growth with size is assumed. Nothing is extrapolated beyond the "
    "tested sizes.",
    "Bounds of the rate of stopped good images are exact (Clopper and Pearson 1934). They count "
    "images as independent: pictures of one part, or of one minute, count for less.",
    "Inserted defects are not real ones. The figures hold for the kinds, contrasts and sizes "
    "tested here, on images like these. They do not say how many real defects are found.",
)


def page(certificate: Certificate) -> str:
    """Return the page as text."""
    figures = certificate.figures
    sections = [
        ("rejects", "Good parts that are stopped", _rejects(figures["false_rejects"])),
        ("detection", "Defects that are found", _detection(figures)),
        ("real", "Real defects", real_defects(figures["real_defects"])),
        ("repeats", "The same part again", repeats(figures["repeatability"])),
        ("envelope", "How far images may change", envelope(figures["envelope"])),
        ("smallest", "The smallest defects that were found", pictures(certificate.smallest)),
        ("largest", "The largest defects that were missed", pictures(certificate.largest)),
        ("method", "Method", "".join(paragraph(text(words), kind="words") for words in METHOD)),
        ("glossary", "Glossary", _glossary()),
        ("data", "Detector, images and versions", _facts(figures)),
    ]
    answers = [
        _answer_on_sizes(figures),
        _answer_on_rejects(figures["false_rejects"]),
        _answer_on_repeats(figures["repeatability"]),
    ]
    lead = "".join(
        paragraph(f"<strong>{text(name)}:</strong> {text(words)}", kind="lead")
        for name, words in answers
    )
    return report_page(
        "Certificate of a detector",
        "What it finds, how often it errs, whether it agrees with itself",
        lead=lead,
        messages=_messages(figures),
        sections=sections,
    )


def _messages(figures: Mapping[str, Any]) -> list[str]:
    found = []
    real = figures["real_defects"]
    if real is not None and 2 * real["located"]["count"] < real["located"]["total"]:
        located = real["located"]
        found.append(
            f"In {located['total'] - located['count']} of {located['total']} images with real "
            "defects that are found, the detector marks another place than the defect. It may stop "
            "them for something else, such as their light or the time at which they were taken."
        )
    if real is not None and real["differs"]:
        found.append(_difference(real))
    rejects, images = figures["false_rejects"], figures["images"]
    if rejects.get("promise_broken"):
        found.append(
            f"{rejects['count']} of {rejects['total']} good images are stopped, more than chance "
            f"explains if the promised rate of {percent(rejects['promised'])} held: calibrate the "
            "detector with good images of the time and place of use."
        )
    if not figures["detector"]["seen_known"]:
        found.append(
            "The detector's file does not say which images it learnt from, so that nobody checked "
            "that these good images are new to it."
        )
    if lost := images["not_registered"]:
        found.append(
            f"The part was not found in {len(lost)} of {images['count']} good images, which count "
            "in no figure."
        )
    if real is None:
        found.append(
            "Sizes are of defects drawn by the computer. Check the detector on real defects "
            "(--defects) before you rely on them."
        )
    return found


def _difference(real: Mapping[str, Any]) -> str:
    """Return in which direction real defects differ from inserted ones, size by size."""
    sides = {"less": [], "more": []}
    for row in real["by_size"]:
        if row["differs"]:
            sides["less" if row["difference"] < 0 else "more"].append(
                f"of {row['from_px']:g} to {row['to_px']:g} px {row['found']} of {row['real']} "
                f"real ones, {row['inserted_found']} of {row['inserted']} drawn ones"
            )
    found = [f"found {side} often ({'; '.join(rows)})" for side, rows in sides.items() if rows]
    return (
        "Defects drawn by the computer do not stand for the real ones that were given, which are "
        f"{' and '.join(found)}, beyond chance."
    )


def _name(entry: Mapping[str, Any]) -> str:
    contrast = entry["contrast"]
    return entry["label"] if contrast is None else f"{entry['label']}, contrast {percent(contrast)}"


def _described(entry: Mapping[str, Any]) -> str:
    """Return the name with the contrast in words, for a reader who has not seen the glossary."""
    if entry["contrast"] is None:
        return entry["label"]
    strength = STRENGTHS[entry["contrast"]]
    return f"{strength} {_name(entry)}"


def _size(estimate: Mapping[str, Any], *, bound: bool = False) -> str:
    """Return a size with its unit, in mm too where the size of a pixel is known."""
    number = f"{estimate['px']:.3g}\u00a0px"
    if "mm" in estimate:
        number += f" ({estimate['mm']:.3g}\u00a0mm)"
    if estimate["where"] == BELOW:
        return f"{number} or less"
    if estimate["where"] == ABOVE:
        return f"not shown up to {number}" if bound else f"above {number}"
    return number


def _answer_on_sizes(figures: Mapping[str, Any]) -> tuple[str, str]:
    entries, real = figures["detection"], figures["real_defects"]
    sure = [e for e in entries if e["image"]["a90_95"]["where"] != ABOVE]
    never = [e for e in entries if e["image"]["a90_95"]["where"] == ABOVE]
    words = f"for {len(sure) or 'none'} of the {len(entries)} kinds and contrasts tested "
    words += "a size is shown from which it finds nine in ten, with 95\u00a0% confidence"
    if sure:
        ranked = sorted(sure, key=lambda e: e["image"]["a90_95"]["px"])
        least, most = (
            f"{_size(e['image']['a90_95'])} ({_described(e)})" for e in (ranked[0], ranked[-1])
        )
        words += f": {least}" if len(sure) == 1 else f": from {least} to {most}"
    if never:
        largest = _size(never[0]["image"]["a90_95"] | {"where": WITHIN})
        others = f"For the other {len(never)} none is" if sure else "They were tested"
        words += f". {others}, up to the largest, {largest}"
    if real is None:
        return "Smallest defect", f"{words}."
    total, missed = real["escapes"]["total"], real["escapes"]["count"]
    given = (
        f"it finds {total - missed} of {total} images with real defects "
        f"({percent(1 - real['escapes']['rate'])}) and misses {missed}"
    )
    if real["located"]["total"]:
        given += f"; in {real['located']['count']} it marks the right place"
    words = f"{given}. Of defects drawn by the computer: {words}."
    return "Smallest defect", words + " These sizes do not hold for the real ones." * bool(
        real["differs"] and sure
    )


def _answer_on_rejects(rejects: Mapping[str, Any]) -> tuple[str, str]:
    promise = ""
    if (promised := rejects["promised"]) is not None:
        promise = f" Its calibration promised {percent(promised)}."
        more = rejects["images_needed"][f"{promised:.3g}"] - rejects["total"]
        if not rejects["promise_broken"] and more > 0:
            promise += f" To show that takes {more:,} more good images, none of them stopped."
    return "Good parts stopped", (
        f"{rejects['count']} of {rejects['total']} good images; with 95\u00a0% confidence it stops "
        f"no more than {percent(rejects['at_most'])} of all good images.{promise}"
    )


def _answer_on_repeats(repeats: Mapping[str, Any]) -> tuple[str, str]:
    good, defective = repeats["good_alike"], repeats["defective_alike"]
    made = "all slightly changed pictures" if repeats["tolerances"] else "all of your pictures"
    words = (
        f"for {good['count']} of {good['total']} good parts {made} of the part got the same "
        f"verdict; with 95\u00a0% confidence that holds for {percent(good['at_least'])} of good "
        "parts or more."
    )
    if defective is not None:
        words += (
            f" For parts with a defect near the threshold, the hardest case, it was so for "
            f"{defective['count']} of {defective['total']}."
        )
    return "Same verdict again", words


def _rejects(rejects: Mapping[str, Any]) -> str:
    rows = [
        ["stopped", f"{rejects['count']} of {rejects['total']} ({percent(rejects['rate'])})"],
        [
            "true share, between (95 % interval)",
            f"{percent(rejects['low'])} to {percent(rejects['high'])}",
        ],
        ["true share, at most (with 95 % confidence)", percent(rejects["at_most"])],
    ]
    if rejects["promised"] is not None:
        kept = "not kept" if rejects["promise_broken"] else "not contradicted"
        rows.append(["promised", f"{percent(rejects['promised'])}, {kept} by these images"])
    for bound, needed in rejects["images_needed"].items():
        more = max(0, needed - rejects["total"])
        words = f"{more:,} more, if none of them is stopped" if more else "shown already"
        rows.append([f"images needed to show at most {percent(float(bound))}", words])
    cells = [[text(cell) for cell in row] for row in rows]
    listed = ""
    if rejects["stopped"]:
        names = ", ".join(markup.name(name) for name in rejects["stopped"])
        listed = markup.folded("Good images that are stopped", paragraph(names))
    return markup.table("Good images", ["", "result"], cells) + listed


def _detection(figures: Mapping[str, Any]) -> str:
    entries = figures["detection"]
    rows = []
    for entry in entries:
        image, localised = entry["image"], entry["localised"]
        rows.append(
            [
                text(_name(entry)),
                f"<strong>{text(_size(image['a90_95'], bound=True))}</strong>",
                text(_size(image["a90"])),
                text(_size(image["a50"])),
                text(_size(localised["a90_95"], bound=True)),
                text(f"{sum(entry['found'])}\u00a0of\u00a0{entry['trials']}"),
                text(_curve_words(image)),
            ]
        )
    heads = ["defects", "a90/95", "a90", "a50", "a90/95, located", "found", "curve (fit)"]
    kinds = "".join(
        f"<li>{text(kind.label.capitalize())}: {text(kind.meaning)}.</li>"
        for kind in KINDS.values()
    )
    trials = entries[0]["trials"]
    note = (
        "a90/95 is the size from which nine in ten are found, with 95 % confidence. a90 and a50 "
        "are best estimates without that confidence. Sizes are in px of the images as they were "
        f"given. Not shown: too many were missed, or the {trials} trials are too few to tell."
    )
    plots = "".join(_curve(kind, [e for e in entries if e["kind"] == kind]) for kind in KINDS)
    return (
        paragraph(text(note), kind="note")
        + markup.table("Sizes", heads, rows)
        + markup.folded("What the kinds stand for", f'<ul class="note">{kinds}</ul>')
        + f'<div class="plots">{plots}</div>'
    )


def _curve_words(fitted: Mapping[str, Any]) -> str:
    """Return which curve was used and how well the logistic one fits."""
    p, ends_p = fitted["fit_p"], fitted["ceiling_p"]
    if ends_p is not None and ends_p < CEILING:
        return f"{fitted['rule']} (may miss some of any size)"
    shown = "" if p is None else f" (p = {p:.2f})" if p >= 0.005 else " (p < 0.01)"
    return fitted["rule"] + shown


def _curve(kind: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """Draw the probability of detection of one kind, with the shares found as dots."""
    figure = Figure(figsize=(3.6, 3.0), layout="constrained")
    axes = figure.add_subplot()
    dress(axes, x="size, px", y="share found")
    axes.set_xscale("log")
    plain_powers(axes.xaxis)
    axes.set_ylim(-0.03, 1.03)
    axes.axhline(WANTED, color=INK, linewidth=0.8, linestyle=(0, (2, 3)))
    handles = {}
    words = []
    for colour, entry in zip((BLUE, *MANY[1:]), entries, strict=False):
        sizes, found = np.array(entry["sizes_px"]), np.array(entry["found"], float)
        for part in np.array_split(np.arange(len(sizes)), BINS):
            middle = float(np.exp(np.log(sizes[part]).mean()))
            axes.plot(middle, found[part].mean(), "o", markersize=4, color=colour, clip_on=False)
        model = entry["image"]
        if model["slope"] is not None:
            x = np.geomspace(sizes[0], sizes[-1], 100)
            p = special.expit(model["intercept"] + model["slope"] * np.log(x))
            axes.plot(x, p, color=colour, linewidth=1.8)
        if model["a90_95"]["where"] != ABOVE:
            axes.axvline(model["a90_95"]["px"], color=colour, linewidth=1.0, linestyle=(0, (5, 2)))
        contrast = entry["contrast"]
        label = "found" if contrast is None else f"contrast {percent(contrast)}"
        handles[label] = Line2D([], [], color=colour, marker="o", markersize=4)
        words.append(f"{label}: a90/95 {_size(model['a90_95'], bound=True)}")
    legend(axes, handles, loc="best")
    caption = (
        f"{entries[0]['label'].capitalize()}. Dots: shares found; line: curve; dashed: a90/95. "
        f"{'; '.join(words)}."
    )
    return markup.curve(svg(figure), alt=f"Curve. {caption}", caption=caption)


def _glossary() -> str:
    rows = [[text(word), text(meaning)] for word, meaning in GLOSSARY.items()]
    return markup.table("Words", ["word", "meaning"], rows)


def _facts(figures: Mapping[str, Any]) -> str:
    detector, images = figures["detector"], figures["images"]
    rows = {
        "digest of the detector": detector["identity"],
        "image threshold": f"{detector['image_threshold']:.6g}",
        "pixel threshold": f"{detector['pixel_threshold']:.6g}",
        "good images": f"{images['count']} in {images['folder']}",
        "copies left out": len(images["copies_left_out"]),
        "seed": figures["seed"],
        "versions": ", ".join(f"{k} {v}" for k, v in figures["versions"].items()),
    }
    table = markup.table("Facts", ["", ""], [[text(k), markup.broken(v)] for k, v in rows.items()])
    digests = [[markup.name(k), f"<code>{text(v)}</code>"] for k, v in images["digests"].items()]
    listed = markup.table("Digests of the good images", ["image", "SHA-256"], digests, kind="tall")
    return table + markup.folded("Digests of the good images", listed)
