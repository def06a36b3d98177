"""The page of a table in Markdown, NAME.md: ours beside the paper's, and how ours came about."""

import logging
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from recon_ad.report.markdown import NOTHING, bullets, markdown_table
from recon_ad.report.wording import value_of
from recon_ad.runtime import files
from recon_ad.tables.base import Column, Figure, Run, Table

logger = logging.getLogger("recon_ad")

Key = tuple[str, str, str, str]  # part, dataset, variant, method

# At the end of every table: a figure that is bought by false alarms is not worth much.
PROMISE = (
    Column("image_fpr_promised", "false alarms promised"),
    Column("image_fpr_calibrated", "measured"),
)


def write(
    table: Table, runs: Sequence[Run], *, scale: str, workdir: Path, draw: bool = False
) -> None:
    """Writes `NAME.md`, with `draw` also the pictures whose runs are here."""
    figures = []
    for figure in table.figures:
        caption = workdir / "figures" / f"{figure.name}.txt"
        missing = _drawn(figure, workdir, caption) if draw else "drawn when all cells are finished"
        png = f"figures/{figure.name}.png"
        if (workdir / png).is_file() and caption.is_file():
            text = caption.read_text().strip()
            figures.append(f"![{figure.name}]({png})\n\n*{figure.name}: {text}*")
        else:
            figures.append(f"{figure.name}: {missing}.")
    files.write_text(workdir / f"{table.name}.md", page(table, runs, scale=scale, figures=figures))


def _drawn(figure: Figure, workdir: Path, caption: Path) -> str:
    """Draws the picture, if a run of its is newer than it; "" or why there is none."""
    folders = {name: workdir / "runs" / name for name in figure.cells}
    here = {n: f for n, f in folders.items() if (f / "metrics.json").is_file()}
    if not here:
        return f"the runs of {', '.join(figure.cells)} are not in this folder"
    newest = max((folder / "metrics.json").stat().st_mtime for folder in here.values())
    if caption.is_file() and caption.stat().st_mtime > newest:
        return ""
    logger.info("drawing %s", figure.name)
    png, text = figure.draw(here)
    files.write_bytes(caption.with_suffix(".png"), png)
    files.write_text(caption, text + "\n")  # last: with it the picture is complete
    return ""


def page(table: Table, runs: Sequence[Run], *, scale: str, figures: Sequence[str] = ()) -> str:
    """The page.

    Args:
      table: whose figures to show.
      runs: its cells.
      scale: at which they were run.
      figures: paragraphs in Markdown, one for each picture.
    """
    done = [run for run in runs if "reason" not in run]
    parts = [
        f"# {table.title}",
        f"`python -m recon_ad.reproduce --table {table.name} --scale {scale}`; all figures, "
        f"configs and intervals are in {table.name}.json. Where a cell was run with several "
        "seeds, the mean is shown, with the least and the greatest in brackets. – is a figure "
        "that there is not.",
    ]
    for part in dict.fromkeys(run["part"] for run in runs):
        parts.append(f"## {part or 'Figures'}")
        parts.append(_figures([run for run in runs if run["part"] == part], table))
    if remarks := table.remarks(done):
        parts += ["## What came out", bullets(remarks)]
    sources = sorted({run["paper"]["source"] for run in runs if run["paper"]})
    protocol = [f"The paper's figures: {'; '.join(sources)}."] if sources else []
    protocol += table.protocol
    for sentence in dict.fromkeys(s for run in runs for s in run["protocol"]):
        names = [run["name"] for run in runs if sentence in run["protocol"]]
        protocol.append(f"{', '.join(names)}: {sentence}")
    parts += ["## What differs from the paper" if sources else "## Protocol", bullets(protocol)]
    if broken := _broken_promises(done):
        parts += ["## False alarms above the promise", bullets(broken)]
    nulls = [f"{run['name']}: {run['reason']}" for run in runs if "reason" in run]
    keys = "|".join(re.escape(column.key) for column in table.columns)
    nulls += [
        f"{run['name']}, {key}: {reason}"
        for run in done
        for key, reason in run["missing"].items()
        if re.fullmatch(rf"(per_category\..*\.)?({keys})", key)
    ]
    if nulls:
        parts += ["## What there is not, and why", bullets(nulls)]
    if done:
        parts += ["## How it was run", _runs(done)]
    if figures:
        parts += ["## Pictures", *figures]
    return "\n\n".join(parts) + "\n"


def by_kind(runs: Iterable[Run]) -> dict[Key, list[Run]]:
    """Runs that differ by their seed only, in the order in which the first of them stands."""
    kinds: dict[Key, list[Run]] = {}
    for run in runs:
        key = (run["part"], run["dataset"], run["variant"], run["method"])
        kinds.setdefault(key, []).append(run)
    return kinds


def values(runs: Iterable[Run], key: str) -> list[float]:
    """A figure of each run that has it."""
    return [value for run in runs if (value := value_of(run, key)) is not None]


def _ours(figures: Sequence[float], column: Column) -> str:
    if not figures:
        return NOTHING
    text = f"{statistics.mean(figures):.{column.digits}f}"
    if len(figures) > 1:
        text += f" ({min(figures):.{column.digits}f} to {max(figures):.{column.digits}f})"
    return text


def each_set(runs: Iterable[Run]) -> Iterator[Run]:
    """Runs, and for one that learnt several sets, its figures on each of them."""
    for run in runs:
        for name, figures in run.get("per_category", {}).items():
            yield run | {"dataset": name} | figures
        if "per_category" not in run:
            yield run


def _broken_promises(done: Sequence[Run]) -> list[str]:
    """One sentence for each cell, or set of a cell, with significantly more than promised."""
    return [
        f"{run['name']}, {run['dataset']}, seed {run['seed']}: "
        f"{run['image_fpr_calibrated']:.3f} of the good test images are stopped, where "
        f"{run['image_fpr_promised']:.3f} is promised (exact test, 5 %)."
        for run in each_set(done)
        if run.get("promise_broken")
    ]


def _figures(runs: Sequence[Run], table: Table) -> str:
    """One line for each data set, variant and method; the paper's column where it has figures."""
    kinds = by_kind(each_set(runs))
    measured = any(values(same, PROMISE[1].key) for same in kinds.values())
    columns = (*table.columns, *(PROMISE if measured else ()))
    printed = {c.key for c in table.columns if any(c.key in run["paper"] for run in runs)}
    variants = any(run["variant"] for run in runs)
    head = ["data", *(["variant"] if variants else []), "method", "seeds"]
    for column in columns:
        head += [column.head, *(["paper"] if column.key in printed else [])]
    rows = [head]
    for (_, dataset, variant, method), same in kinds.items():
        done = [run for run in same if "reason" not in run]
        row = [dataset, *([variant] if variants else []), method, str(len(done))]
        for column in columns:
            row.append(_ours(values(done, column.key), column))
            if column.key in printed:
                paper = same[0]["paper"].get(column.key)
                row.append(NOTHING if paper is None else f"{paper:g}")
        rows.append(row)
    if table.mean_row:
        rows += _means(kinds, columns, printed, variants=variants)
    return markdown_table(rows)


def _means(
    kinds: dict[Key, list[Run]], columns: Sequence[Column], printed: set[str], *, variants: bool
) -> list[list[str]]:
    """Each method's mean over the data sets, which count the same however many seeds they have."""
    rows = []
    for method in dict.fromkeys(key[3] for key in kinds):
        done = [
            [run for run in same if "reason" not in run]
            for key, same in kinds.items()
            if key[3] == method
        ]
        done = [same for same in done if same]
        if not done:
            continue
        seeds = {len(same) for same in done}
        count = str(min(seeds)) if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
        row = [f"**mean of {len(done)}**", *([""] if variants else []), method, count]
        for column in columns:
            each = [found for same in done if (found := values(same, column.key))]
            mean = statistics.mean(statistics.mean(found) for found in each) if each else None
            # A mean over other data sets than the others' must not pass for theirs.
            short = "" if len(each) == len(done) else f" (of {len(each)})"
            row.append(NOTHING if mean is None else f"{mean:.{column.digits}f}{short}")
            if column.key in printed:
                row.append(NOTHING)
        rows.append(row)
    return rows


def _runs(done: Sequence[Run]) -> str:
    """Steps, seeds, times, hardware and versions."""
    machines = list(dict.fromkeys(run["hardware"] for run in done))
    head = ["cell", "seed", "steps", "batch", "training, s", "wall time, s", "machine"]
    rows = [head]
    for run in done:
        rows.append(
            [
                run["name"],
                str(run["seed"]),
                f"{run['steps']:,}",
                str(run["config"]["train"]["batch_size"]),
                f"{run['train_seconds']:.0f}",
                f"{run['wall_seconds']:.0f}",
                str(machines.index(run["hardware"]) + 1),
            ]
        )
    total = sum(run["wall_seconds"] for run in done) / 60
    stacks = list(dict.fromkeys(tuple(run["versions"].items()) for run in done))
    sentences = [
        "Wall time is training, looks at the test images on the way, and evaluation: "
        f"{total:.0f} minutes in all.",
        *(f"Machine {i}: {machine}." for i, machine in enumerate(machines, 1)),
        *(f"Versions: {', '.join(f'{k} {v}' for k, v in stack)}." for stack in stacks),
    ]
    return markdown_table(rows) + "\n\n" + bullets(sentences)
