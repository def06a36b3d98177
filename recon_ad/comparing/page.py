"""Table of a comparison in Markdown, and its page: one HTML file that needs no network."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from recon_ad.comparing.pairs import Pair, pairs
from recon_ad.comparing.runs import KEYS, Comparison, Row, Run, Set, figure_of
from recon_ad.metrics.figures import AVERAGED, FIGURES, MAIN, figure_label
from recon_ad.report import markup, wording
from recon_ad.report.html import page
from recon_ad.report.markdown import NOTHING, bullets, markdown_table
from recon_ad.report.markup import paragraph, text
from recon_ad.report.plots import heldout_curves

# Figures of the first tables; the page has all figures below them.
SHORT = (*MAIN, *(f"category_mean.{key}" for key in AVERAGED))
NOTE = (
    "Each row is the mean over the seeds that it names. ± is half the 95 % interval by Student's t "
    "(with two seeds or more); it covers the choice of seeds, not that of the test images. A "
    "figure is bold if its interval lies above those of all other rows. A row with one seed has no "
    "interval, so nothing in its columns is bold. Defective images found and false alarms, which "
    "trade off against each other, and times are never bold. (oracle) marks a figure at the "
    "threshold that is best for these very test images, which nobody knows on a line. A best image "
    "F1 is left out if calling every image defective reaches it too. "
    f"{NOTHING} means that the runs have no such figure."
)

TESTS = (
    "p is the probability that two detectors that are equally good would differ by this much or "
    "more through the choice of test images alone. Below 0.05 is commonly called a difference; one "
    "in twenty comparisons of equal detectors falls below it by chance. Image AUROC is tested by "
    "DeLong's test, correct and wrong decisions at the calibrated threshold by McNemar's exact "
    "test. Neither test accounts for the choice of seeds."
)


def markdown(comparison: Comparison) -> str:
    """Return the tables in Markdown, with the notes that they need."""
    parts = ["# Runs compared"]
    if comparison.messages:
        parts.append(bullets(comparison.messages))
    for one in comparison.sets:
        parts += [f"## {one.name}", *([bullets(one.warnings)] if one.warnings else [])]
        keys = [key for key in SHORT if key in _present(one)]
        parts.append(markdown_table(_table(one, keys, strong="**{}**".format), aligned=True))
        if one.along:
            parts += ["Other settings that differ:", markdown_table(_along(one), aligned=True)]
        if tested := pairs(one):
            table = markdown_table(_tests(tested), aligned=True)
            parts += ["Compared with row 1, on the same test images:", table, TESTS]
    return "\n\n".join([*parts, NOTE]) + "\n"


def html(comparison: Comparison, *, beside: Path) -> str:
    """Return the page.

    Args:
      comparison: Comparison to show.
      beside: Folder of the page, to which its links to the runs' reports are relative.
    """
    runs = sum(len(row.runs) for one in comparison.sets for row in one.rows)
    rows = sum(len(one.rows) for one in comparison.sets)
    lead = (
        f"{_count(runs, 'finished run')} in {_count(rows, 'row')}, on "
        f"{_count(len(comparison.sets), 'set')} of images."
    )
    sections = [
        (f"set{i}", one.name, _section(one, beside)) for i, one in enumerate(comparison.sets, 1)
    ]
    return page(
        "Comparison of runs",
        "Runs compared",
        lead=lead,
        messages=comparison.messages,
        sections=sections,
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _present(one: Set) -> list[str]:
    """Return the figures that any row has."""
    return [key for key in KEYS if any(key in row.figures for row in one.rows)]


def _head(key: str) -> str:
    prefix, _, name = key.rpartition(".")
    return figure_label(name) + (", mean of categories" if prefix else "")


def _form(key: str, value: float) -> str:
    return wording.FORMS[FIGURES[key.rpartition(".")[2]].unit](value)


def _cell(row: Row, key: str) -> str:
    if key not in row.figures:
        return NOTHING
    mean = row.figures[key]
    half = "" if mean.half is None else f" ± {_form(key, mean.half)}"
    # A mean over fewer seeds must be marked as such.
    short = "" if mean.n == len(row.runs) else f" (of {mean.n})"
    return f"{_form(key, mean.value)}{half}{short}"


def _setting(row: Row, name: str) -> str:
    value = row.settings.get(name)
    return NOTHING if value is None or value == "" else str(value)


def _table(
    one: Set,
    keys: Sequence[str],
    *,
    strong: Callable[[str], str],
    plain: Callable[[str], str] = str,
) -> list[list[str]]:
    """Return the head and a line for each row; `plain` and `strong` format plain text."""
    lines = [["row", *one.columns, "runs", *map(_head, keys)]]
    for i, row in enumerate(one.rows):
        of = "seed" if len(row.runs) == 1 else "seeds"
        seeds = f"{len(row.runs)}, {of} {', '.join(str(run.seed) for run in row.runs)}"
        line = [plain(str(i + 1)), *(plain(_setting(row, name)) for name in one.columns)]
        line.append(plain(seeds))
        for key in keys:
            shown = plain(_cell(row, key))
            line.append(strong(shown) if one.best.get(key) == i else shown)
        lines.append(line)
    return lines


def _along(one: Set, *, plain: Callable[[str], str] = str) -> list[list[str]]:
    head = ["setting", *(f"row {i}" for i in range(1, len(one.rows) + 1))]
    settings = [[name, *(_setting(row, name) for row in one.rows)] for name in one.along]
    return [head, *([plain(cell) for cell in line] for line in settings)]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _tests(tested: Sequence[Pair], *, plain: Callable[[str], str] = str) -> list[list[str]]:
    """Return the head and a line for each pair."""
    head = ["row", "seed", "compared with", "difference in Image AUROC", "p of the AUROC"]
    lines = [[*head, "correct only here", "correct only in row 1", "p of the decisions"]]
    for pair in tested:
        line = [str(pair.row), str(pair.run.seed), f"row 1, seed {pair.against.seed}"]
        if isinstance(pair.auroc, str):
            line += [NOTHING, f"no test: {pair.auroc}"]
        else:
            line += [f"{pair.auroc.difference:+.3f}", _p(pair.auroc.p)]
        if isinstance(pair.decisions, str):
            line += [NOTHING, NOTHING, f"no test: {pair.decisions}"]
        else:
            there, here, p = pair.decisions
            line += [f"{here:,}", f"{there:,}", _p(p)]
        lines.append([plain(cell) for cell in line])
    return lines


def _section(one: Set, beside: Path) -> str:
    keys = _present(one)
    short = [key for key in SHORT if key in keys]
    parts = [paragraph(text(sentence), kind="warning") for sentence in one.warnings]
    parts += [_means(one, short), paragraph(text(NOTE), kind="note")]
    if one.along:
        head, *rows = _along(one, plain=text)
        parts.append(markup.table("Other settings that differ", head, rows))
    if tested := pairs(one):
        head, *rows = _tests(tested, plain=text)
        table = markup.table("Compared with row 1, on the same test images", head, rows)
        parts += [table, paragraph(text(TESTS), kind="note")]
    parts += [_curves(one), _runs(one, short, beside)]
    if len(keys) > len(short):
        parts.append(markup.folded("All figures", _means(one, keys) + _runs(one, keys, beside)))
    return "".join(parts)


def _means(one: Set, keys: Sequence[str]) -> str:
    head, *rows = _table(one, keys, strong="<strong>{}</strong>".format, plain=text)
    return markup.table("Means over seeds", head, rows)


def _curves(one: Set) -> str:
    """Draw the held-out losses, one figure per method, as methods' losses are not comparable."""
    methods: dict[str, dict[str, list]] = {}
    for i, row in enumerate(one.rows, 1):
        names = [name for name in one.columns if name != "method.name"]
        words = ", ".join(f"{name} {_setting(row, name)}" for name in names)
        logs = [[line for line in run.log if "heldout_loss" in line] for run in row.runs]
        logs = [log for log in logs if len(log) > 1]  # a single measurement makes no curve
        if logs:
            kinds = methods.setdefault(str(row.settings["method.name"]), {})
            kinds[f"row {i}: {words}" if words else f"row {i}"] = logs
    figures = []
    for method, kinds in methods.items():
        caption = f"Held-out loss of {method}, one line per run. Runs of one row share a colour."
        figures.append(
            markup.curve(heldout_curves(kinds), alt=f"Curves. {caption}", caption=caption)
        )
    return f'<div class="plots">{"".join(figures)}</div>' * bool(figures)


def _runs(one: Set, keys: Sequence[str], beside: Path) -> str:
    """Return a table with a line for each run and a link to its report."""
    lines = []
    for i, row in enumerate(one.rows, 1):
        for run in row.runs:
            figures = [(key, figure_of(run, key)) for key in keys]
            lines.append(
                [_link(run, beside), str(i), text(run.seed)]
                + [text(_form(k, v)) if wording.is_number(v) else NOTHING for k, v in figures]
            )
    return markup.table("Single runs", ["report of", "row", "seed", *map(_head, keys)], lines)


def _link(run: Run, beside: Path) -> str:
    report = run.folder / "report.html"
    if not report.is_file():
        return markup.name(run.folder)
    address = quote(os.path.relpath(report.resolve(), beside.resolve()))
    return f'<a href="{text(address)}">{markup.name(run.folder)}</a>'
