"""Page of a table in Markdown, NAME.md: our figures beside the paper's, and how ours were run."""

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

# At the end of every table, as a good figure at many false alarms is worth little.
PROMISE = (
    Column("image_fpr_promised", "false alarms promised"),
    Column("image_fpr_calibrated", "measured"),
)


def write(table: Table, runs: Sequence[Run], *, scale: str, workdir: Path) -> None:
    """Write `NAME.md` and the pictures of the runs that are available."""
    figures = []
    for figure in table.figures:
        caption = workdir / "figures" / f"{figure.name}.txt"
        missing = _drawn(figure, workdir, caption)
        png = f"figures/{figure.name}.png"
        if (workdir / png).is_file() and caption.is_file():
            text = caption.read_text().strip()
            figures.append(f"![{figure.name}]({png})\n\n*{figure.name}: {text}*")
        else:
            figures.append(f"{figure.name}: {missing}.")
    files.write_text(workdir / f"{table.name}.md", page(table, runs, scale=scale, figures=figures))


def _drawn(figure: Figure, workdir: Path, caption: Path) -> str:
    """Draw the picture if a run is newer than it; return "" or the reason for its absence."""
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
    files.write_text(caption, text + "\n")  # written last, so that it marks a complete picture
    return ""


def page(table: Table, runs: Sequence[Run], *, scale: str, figures: Sequence[str] = ()) -> str:
    """Return the page in Markdown.

    Args:
      table: Table to show.
      runs: Cells of the table.
      scale: Scale at which the cells were run.
      figures: Paragraphs in Markdown, one for each picture.
    """
    done = [run for run in runs if "reason" not in run]
    parts = [
        f"# {table.title}",
        f"Made by `python -m recon_ad.reproduce --table {table.name} --scale {scale}`. All "
        f"figures, configs and intervals are in {table.name}.json. A cell that was run with "
        "several seeds shows the mean, with the lowest and the highest figure in brackets. “–” "
        "means not available. (oracle) marks a figure at the threshold that is "
        "best for the test images themselves, which nobody knows on a line.",
    ]
    for part in dict.fromkeys(run["part"] for run in runs):
        parts.append(f"## {part or 'Figures'}")
        parts.append(_figures([run for run in runs if run["part"] == part], table))
    for heading, content in table.sections(done).items():
        parts += [f"## {heading}", content]
    if remarks := table.remarks(done):
        parts += ["## Results", bullets(remarks)]
    sources = sorted({run["paper"]["source"] for run in runs if run["paper"]})
    protocol = [f"Sources of the paper's figures: {'; '.join(sources)}."] if sources else []
    protocol += table.protocol
    for sentence in dict.fromkeys(s for run in runs for s in run["protocol"]):
        names = [run["name"] for run in runs if sentence in run["protocol"]]
        protocol.append(f"{', '.join(names)}: {sentence}")
    parts += ["## Differences from the paper" if sources else "## Protocol", bullets(protocol)]
    if broken := _broken_promises(done):
        parts += ["## More false alarms than promised", bullets(broken)]
    nulls = [f"{run['name']}: {run['reason']}" for run in runs if "reason" in run]
    keys = "|".join(re.escape(column.key) for column in table.columns)
    nulls += [
        f"{run['name']}, {key}: {reason}"
        for run in done
        for key, reason in run["missing"].items()
        if re.fullmatch(rf"(per_category\..*\.)?({keys})", key)
    ]
    if nulls:
        parts += ["## Missing figures", bullets(nulls)]
    if done:
        parts += ["## Runs", _runs(done)]
    if figures:
        parts += ["## Pictures", *figures]
    return "\n\n".join(parts) + "\n"


def by_kind(runs: Iterable[Run]) -> dict[Key, list[Run]]:
    """Group runs that differ only in the seed, in the order of each group's first run."""
    kinds: dict[Key, list[Run]] = {}
    for run in runs:
        key = (run["part"], run["dataset"], run["variant"], run["method"])
        kinds.setdefault(key, []).append(run)
    return kinds


def values(runs: Iterable[Run], key: str) -> list[float]:
    """Return a figure of each run that has it."""
    return [value for run in runs if (value := value_of(run, key)) is not None]


def ours(figures: Sequence[float], column: Column) -> str:
    """Return the mean, and with several seeds also the lowest and the highest figure."""
    if not figures:
        return NOTHING
    text = f"{statistics.mean(figures):.{column.digits}f}"
    if len(figures) > 1:
        text += f" ({min(figures):.{column.digits}f} to {max(figures):.{column.digits}f})"
    return text


def each_set(runs: Iterable[Run]) -> Iterator[Run]:
    """Yield the runs; a run that learnt several sets is yielded once for each set."""
    for run in runs:
        for name, figures in run.get("per_category", {}).items():
            yield run | {"dataset": name} | figures
        if "per_category" not in run:
            yield run


def _broken_promises(done: Sequence[Run]) -> list[str]:
    """Return a sentence for each cell, or set of a cell, that stops more than promised."""
    return [
        f"{run['name']}, {run['dataset']}, seed {run['seed']}: the share of good test images that "
        f"are stopped is {run['image_fpr_calibrated']:.3f}, significantly more than the promised "
        f"{run['image_fpr_promised']:.3f} (exact test, 5 %)."
        for run in each_set(done)
        if run.get("promise_broken")
    ]


def _figures(runs: Sequence[Run], table: Table) -> str:
    """Return a table with a line for each data set, variant and method, beside the paper's."""
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
            row.append(ours(values(done, column.key), column))
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
    """Return each method's mean over the data sets, which have equal weights for any seeds."""
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
            # A mean over fewer data sets must be marked as such.
            short = "" if len(each) == len(done) else f" (of {len(each)})"
            row.append(NOTHING if mean is None else f"{mean:.{column.digits}f}{short}")
            if column.key in printed:
                row.append(NOTHING)
        rows.append(row)
    return rows


def _runs(done: Sequence[Run]) -> str:
    """Return a table of steps, seeds and times, with hardware and versions."""
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
        "Wall time includes training, measurements on the test images during training, and "
        f"evaluation: {total:.0f} minutes in all.",
        *(f"Machine {i}: {machine}." for i, machine in enumerate(machines, 1)),
        *(f"Versions: {', '.join(f'{k} {v}' for k, v in stack)}." for stack in stacks),
    ]
    return markdown_table(rows) + "\n\n" + bullets(sentences)
