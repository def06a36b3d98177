"""Write results/README.md, with a section and a table for each JSON file in results/.

    python -m benchmarks.report [FOLDER]

Run it after a file has changed. The page depends only on these files.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import summary
from benchmarks.harness import record
from benchmarks.phases import PHASES
from benchmarks.robustness.trials import STRICTER
from recon_ad.errors import UserError
from recon_ad.metrics.figures import figure_label
from recon_ad.runtime import files, provenance

Content = Mapping[str, Any]
Rows = Iterator[Sequence[str]]  # the first row is the header

HEAD = """# Results

All measured results, with one section for each JSON file in this folder. The files contain more
figures than the tables. This page is written by `python -m benchmarks.report`; do not edit it by
hand.
"""
KEYS = ("image_auroc", "pixel_auroc", "aupro_30", "iou_max_oracle", "patch_auroc")
FIGURES = {key: figure_label(key) for key in KEYS}
# These versions are always shown, as are those of packages outside recon_ad's own stack.
SHOWN = ("python", "jax", "numpy")


class Section(NamedTuple):
    """A section of the page, for one file.

    Attributes:
      title: Title, which says what was measured.
      rows: Function that yields the rows of the table.
      command: Command that wrote the file, if the file does not contain it.
      note: Text below the table.
    """

    title: str
    rows: Callable[[Content], Rows]
    command: str = ""
    note: str = ""


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def _speed(name: str) -> Callable[[Content], Rows]:
    """Return a function that yields the rows of `benchmarks.summary`."""

    def rows(content: Content) -> Rows:
        yield ["what", "ours", "others", "times as fast"]
        for row in summary.TABLES[name](content):
            yield [row.what, row.ours, row.others, _number(row.ratio, ".2f")]

    return rows


def _runs(content: Content) -> Rows:
    yield ["run", "patches", "training, s", "explained variance", *FIGURES.values()]
    for name, run in content.items():
        patches = run["training"]["steps"] * run["batch_size"]
        explained = run["training"]["explained_variance"]
        yield [
            name, f"{patches:,}", f"{run['train_seconds']:.0f}", f"{explained:.2f}",
            *(_number(run.get(key)) for key in FIGURES),
        ]  # fmt: skip


def _cells(content: Content) -> Rows:
    """Yield the finished cells of a paper's table, with a row for each category."""
    yield [
        "data", "variant", "method", "seed", "steps", *FIGURES.values(), "published figures",
        "total time, s",
    ]  # fmt: skip
    for cell in content["cells"]:
        for category, figures in (cell.get("per_category") or {cell["dataset"]: cell}).items():
            if all(figures.get(key) is None for key in FIGURES):
                continue
            cited = (f"{FIGURES[k]} {v}" for k, v in cell["paper"].items() if k in FIGURES)
            yield [
                category, cell["variant"], cell["method"], str(cell["seed"]), str(cell["steps"]),
                *(_number(figures.get(key)) for key in FIGURES), ", ".join(cited),
                _number(cell["wall_seconds"], ".0f"),
            ]  # fmt: skip


def _agreement(content: Content) -> Rows:
    differences = {
        "labels_that_differ": "different labels",
        "region_counts_that_differ": "different numbers of regions",
        "largest_relative_score_difference": "largest relative difference of scores",
    }
    yield ["detector", "runtime, compared with JAX", "images", *differences.values()]
    for name, run in content.items():
        for runtime, found in run["against_jax"].items():
            yield [name, runtime, str(found["images"]), *(f"{found[k]:.2g}" for k in differences)]


def _classifier(content: Content) -> Rows:
    yield ["detector", "labels", "features", "AUROC", "AUROC of the score alone"]
    for name, detector in content["detectors"].items():
        for labels, found in detector["labels"].items():
            shown = {
                of: "{mean:.2f} ({low:.2f} to {high:.2f})".format(**figures["auroc"])
                for of, figures in found.items()
            }
            alone = shown.pop("threshold")
            for features, auroc in shown.items():
                yield [name, labels, features, auroc, alone]


def _drifts(content: Content) -> Rows:
    drifts = next(iter(next(iter(content["references"].values())).values()))["delay"]
    yield ["reference", "chart", "false alarms in 10,000", *(f"delay: {name}" for name in drifts)]
    for images, charts in content["references"].items():
        for name, chart in charts.items():
            alarms = chart["false_alarms_per_10000"]["as_it_is"]
            delays = [_number(chart["delay"][drift]["median"], ",.0f") for drift in drifts]
            yield [images, name, f"{alarms:.2f}", *delays]


def _registration(content: Content) -> Rows:
    ours, theirs = content["corner_error_px"], content["opencv_guil"]
    absent = content["flag"]["registered_although_not_there"].values()
    yield ["what", "figure"]
    yield ["images with the part", str(content["pictures"])]
    yield ["of these, not registered", str(content["flag"]["not_registered_although_there"])]
    yield ["images without the part", str(sum(found["pictures"] for found in absent))]
    yield ["of these, registered", str(sum(found["registered"] for found in absent))]
    errors = " / ".join(f"{ours[name]:.2f}" for name in ("median", "p95", "greatest"))
    yield ["error of the worst corner, px: median / 95th percentile / maximum", errors]
    yield ["time, ms", f"{content['ms_per_image']:.0f}"]
    corners = theirs["corner_error_px"]
    yield [
        f"OpenCV's generalised Hough transform at {theirs['side']} px: error of the worst corner, "
        "px; time, ms",
        f"{min(corners):.0f} to {max(corners):.0f}; {theirs['ms_per_image']:.0f}",
    ]


def _line(content: Content) -> Rows:
    disturbed, calm = content["disturbed"], content["undisturbed"]
    latency = calm["paced"]["latency_s"]
    yield ["what", "figure"]
    for name in ("images", "broken", "killed", "rows"):
        yield [f"disturbed, {name}", str(disturbed[name])]
    yield ["undisturbed, images/s", f"{calm['images_per_second']:.1f}"]
    shown = " / ".join(f"{latency[key]:.2f}" for key in ("median", "p99"))
    yield ["from file to row, s: median / 99th percentile", shown]


PARTS = {  # names on the page
    "program": "images, in the C++ program's decoders under sanitizers",
    "metadata": "model metadata, in the C++ program under sanitizers",
}


def _robustness(content: Content) -> Rows:
    yield ["input", "tried", "rejected", "accepted", "crashes, hangs, tracebacks, wrong results"]
    for part, found in content.items():
        if isinstance(found, Mapping) and "tried" in found:
            faults = [str(found[kind]) for kind in ("crash", "hang", "traceback", "wrong")]
            counts = [str(found.get(kind, 0)) for kind in ("tried", "refused", "accepted")]
            if alone := found.get(STRICTER):  # rejected only by the C++ program
                counts[1] += f", and {alone} that Python accepts"
            yield [PARTS.get(part, part), *counts, ", ".join(faults)]
    for command, found in content.get("kills", {}).items():
        if "kills" in found:
            ends = "same result as undisturbed" if found["same_in_the_end"] else "another result"
            lost = f"{ends}, {found['tracebacks']} tracebacks"
            yield [f"{command}, killed", str(found["kills"]), "", "", lost]
    for command, found in content.get("disk", {}).items():
        if "sentences" in found:
            lost = (
                f"{found['same_in_the_end']} with the same result as undisturbed, "
                f"{found['tracebacks']} tracebacks"
            )
            yield [f"{command}, disk full", str(found["tried"]), "", "", lost]


def _phases(content: Content) -> Rows:
    yield ["run", *PHASES, "total", "second evaluation"]
    for name, found in content["runs"].items():
        seconds = [found["train"].get(phase) for phase in (*PHASES, "all")]
        again = found["evaluate_again"]["all"]
        yield [name, *(f"{s:.0f} s" if s else "–" for s in seconds), f"{again:.0f} s"]


def _metrics_peers(content: Content) -> Rows:
    yield [
        "metric", "anomalib's computation", "largest difference if it is exact", "if it is not",
    ]  # fmt: skip
    for row in content["rows"]:
        differences = (row[f"largest_difference_where_{kind}"] for kind in ("exact", "approximate"))
        shown = (_number(difference, ".0e") for difference in differences)
        yield [figure_label(row["figure"]), row["anomalib"], *shown]


def _promises(content: Content) -> Rows:
    yield ["what", "promised", "realised", "for comparison"]
    for row in content["coverage"]:
        of = f"{row['good']} + {row['defective']} images, AUROC {row['auroc']}"
        before = f"{row['covered_by_bootstrap']:.3f} with the bootstrap"
        yield [f"95 % interval, {of}", "0.95", f"{row['covered']:.3f}", before]
    kinds: dict[tuple, list[Mapping]] = {}
    for row in content.get("simulation", ()):
        kinds.setdefault((row["series"], row["correlation"], row["way"]), []).append(row)
    for (series, correlation, way), rows in kinds.items():
        of = f"{series} series, correlation {correlation}" if series else "independent images"
        promised = statistics.mean(row["promised"] for row in rows)
        same, new = (
            statistics.mean(row[f"realised_{which}_series"] for row in rows)
            for which in ("same", "new")
        )
        yield [
            f"simulated, {of}: {way}", f"{promised:.3f}", f"{same:.3f}", f"{new:.3f} on new series",
        ]  # fmt: skip
    for name, methods in content.get("splits", {}).items():
        if not isinstance(methods, Mapping):
            continue
        for method, ways in methods.items():
            for way, found in ways.items():
                above = f"{found['significantly_above']:.1%} of splits significantly above"
                label = f"{name}, {method}, {way}, {found['splits']} splits"
                yield [label, f"{found['promised']:.3f}", f"{found['realised']:.3f}", above]


def _certificates(content: Content) -> Rows:
    yield [
        "simulated detectors; real defects", "bound held; real ones found",
        "of it, no bound within the tested sizes; inserted ones found",
        "without a model; difference, 95 %",
    ]  # fmt: skip
    for row in content["detection"]:
        missed = 1 - row["ceiling"]
        true = f"no a90: {missed:.0%} missed at any size" if missed else f"a90 {row['a90']:g} px"
        shape = "" if row["curve"] == "logistic" else f", {row['curve']}"
        label = f"{true}, slope {row['slope']:g}{shape}, 2 to {row['largest']:g} px tested"
        shares = (row[key] for key in ("held", "not_reached", "no_model"))
        yield [label, *(f"{share:.1%}" for share in shares)]
    for row in content["false_rejects"]:
        label = f"false rejects, {row['images']} images, rate {row['rate']:g}"
        yield [label, f"{row['held']:.1%}", "–", "–"]
    for name, found in content.get("real", {}).items():
        for row in found.get("by_size", ()) if isinstance(found, Mapping) else ():
            if row["interval"] is not None:
                low, high = row["interval"]
                yield [
                    f"{name}, {row['from_px']:g} to {row['to_px']:g} px",
                    f"{row['found']} of {row['real']}",
                    f"{row['inserted_found']} of {row['inserted']}",
                    f"{low:+.2f} to {high:+.2f}{', differs' * row['differs']}",
                ]


def _precision(content: Content) -> Rows:
    yield [
        "set", "encoder in", "image AUROC", "pixel AUROC", "export's scores apart",
        "its maps apart", "its decisions that differ",
    ]  # fmt: skip
    for row in content["rows"]:
        aurocs = (f"{row[key]:.4f}" for key in ("image_auroc", "pixel_auroc"))
        apart = (f"{row[key]:.1e}" for key in ("export_score_share", "export_map_share"))
        yield [row["set"], row["dtype"], *aurocs, *apart, str(row["export_labels_differ"])]


def _gpu_compile(content: Content) -> Rows:
    """Yield a row for each program, with values that depend on the device count side by side."""
    counts = sorted({row["devices"] for row in content["rows"]})
    of = " / ".join(map(str, counts))
    yield [
        "method", "program", f"batch on {of} GPUs", "compilation, s", "scratch, MB", "total, MB",
        "largest window", "collectives",
    ]  # fmt: skip
    programs: dict[tuple[str, str], list[Mapping]] = {}
    for row in content["rows"]:
        programs.setdefault((row["method"], row["program"]), []).append(row)
    for (method, program), rows in programs.items():
        failed = [row["error"] for row in rows if not row["compiles"]]
        if failed:
            yield [method, program, *["–"] * 5, failed[0]]
            continue
        columns = [
            [str(row["batch"]) for row in rows],
            [f"{row['seconds']:.0f}" for row in rows],
            [f"{row['scratch_bytes'] / 1e6:.0f}" for row in rows],
            [f"{row['device_bytes'] / 1e6:.0f}" for row in rows],
            [_window(row) for row in rows],
            [_listed(row["collectives"]) for row in rows],
        ]
        yield [method, program, *(_joined(column) for column in columns)]
    seen = content["seen"]
    yield [
        seen["what"], "–", str(seen["image"][0]), f"{seen['seconds']:.0f}",
        f"{seen['scratch_bytes'] / 1e6:.0f}", f"{seen['device_bytes'] / 1e6:.0f}",
        _window(seen), "–",
    ]  # fmt: skip


def _window(row: Mapping) -> str:
    return "–" if row["largest_window"] is None else "×".join(map(str, row["largest_window"]))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "–"


def _joined(values: Sequence[str]) -> str:
    """Join the values side by side, or return one if they are all the same."""
    return values[0] if len(set(values)) == 1 else " / ".join(values)


TABLE = "python -m recon_ad.reproduce --table {name} --scale {scale}"
# Sections by the name of the file, in the page's order.
SECTIONS: Mapping[str, Section] = {
    "runs": Section(
        "Trained and evaluated runs of the CAE", _runs, "python -m benchmarks.collect_runs"
    ),
    "schneider2022": Section("Schneider et al. 2022", _cells, TABLE),
    "bergmann2019": Section("Bergmann et al. 2019", _cells, TABLE),
    "covision": Section("Moved parts, after Buzzega et al.", _cells, TABLE),
    "detectors": Section("Every method on four sets", _cells, TABLE),
    "frameworks_cpu": Section("JAX, PyTorch and ONNX Runtime, CPU", _speed("frameworks_cpu")),
    "frameworks_gpu": Section("JAX, PyTorch and ONNX Runtime, GPU", _speed("frameworks_gpu")),
    "profile": Section("Largest costs of a training step", _speed("profile")),
    "gpu_compile": Section(
        "Programs compiled for absent GPUs",
        _gpu_compile,
        note="The training step divides its batch among the GPUs, while the core gives each GPU a "
        "full batch. Bytes are those of one GPU. The last row is XLA's own transposed convolution, "
        "which no method uses.",
    ),
    "inference": Section("From decoded image to mask", _speed("inference")),
    "residuals": Section(
        "SSIM residual of exported models",
        _speed("residuals"),
        note="Times are the shortest ones. The file also has the medians.",
    ),
    "encoder": Section("Encoders", _speed("encoder")),
    "aupro": Section("AUPRO", _speed("aupro")),
    "metrics_peers": Section(
        "Metrics compared with anomalib's",
        _metrics_peers,
        note="anomalib computes in float32. Its quantiles may pass one image more than the share "
        "allows; ours never do.",
    ),
    "agreement": Section("Decisions of exported detectors", _agreement),
    "registration": Section("Registration of moved parts", _registration),
    "classifier": Section(
        "Heatmap classifier",
        _classifier,
        note="The brackets give the 2.5th and 97.5th percentiles.",
    ),
    "drifts": Section(
        "Drifts of a line",
        _drifts,
        note="Delays are medians, in images; – means more than 2,000.",
    ),
    "line": Section("A line with and without disturbances", _line),
    "start": Section("Start of a command", _speed("start")),
    "phases": Section("From the command to the report", _phases),
    "promises": Section(
        "Promised and realised rates of thresholds and intervals",
        _promises,
        "python -m benchmarks.studies.promises --data=DATASETS --weights=FILE",
    ),
    "precision": Section(
        "knn with its encoder in bfloat16",
        _precision,
        "python -m benchmarks.studies.precision --data=DATASETS --weights=FILE",
        note="One training each, so that the coreset's choice differs too: over seeds knn's image "
        "AUROC on magnetic_tile varies by 0.02. “Apart” is a share of the threshold.",
    ),
    "certificates": Section(
        "Bounds of certificates",
        _certificates,
        note="500 studies each; of 64 inserted defects, or of so many good images. The bounds are "
        "to hold in 95 %. Where there is no a90, a bound holds if no size is certified. Below: "
        "real defects of a size beside inserted ones of all kinds and contrasts.",
    ),
    "robustness": Section(
        "Damaged and hostile input", _robustness, "python -m benchmarks.robustness"
    ),
}


def _commands(name: str, section: Section, content: Content) -> Iterator[str]:
    """Yield the commands as code, each with the text after its comma."""
    commands = [section.command.format(name=name, scale=content.get("scale"))]
    for part in (content, *content.values()):
        if isinstance(part, Mapping) and "command" in part:
            commands.append(part["command"])
    for command in filter(None, dict.fromkeys(commands)):
        words, comma, rest = command.partition(",")
        yield f"`{words}`{comma}{rest}"


def _origin(content: Content) -> Iterator[str]:
    """Yield the hardware, date and versions of the file, or of each run or cell in it."""
    parts = [content, *content.get("cells", ()), *content.values()]
    for part in parts:
        if not isinstance(part, Mapping) or "hardware" not in part:
            continue
        versions = part["versions"]
        names = [n for n in versions if n in SHOWN or n not in provenance.PACKAGES]
        shown = [f"{name} {versions[name]}" for name in names]
        date = [f"measured {part['measured']}"] if "measured" in part else []
        yield "; ".join([part["hardware"], *date, ", ".join(shown)])


def _section(folder: Path, name: str, section: Section) -> str:
    content = json.loads((folder / f"{name}.json").read_text())
    header, *rows = section.rows(content)
    table = [header, ["---"] * len(header), *rows]
    page = f", [{name}.md]({name}.md)" if (folder / f"{name}.md").is_file() else ""
    by = " and ".join(_commands(name, section, content))
    paragraphs = [
        f"## {section.title}",
        f"[{name}.json]({name}.json){page}, written by {by}.",
        *dict.fromkeys(f"{origin}." for origin in _origin(content)),
        "\n".join(f"| {' | '.join(cells)} |" for cells in table),
        section.note,
    ]
    return "\n\n".join(filter(None, paragraphs))


def page(folder: Path) -> str:
    """Return the page in Markdown, with a section for each JSON file in the folder."""
    present = {path.stem for path in folder.glob("*.json")}
    if absent := present - SECTIONS.keys():
        raise UserError(
            f"no section for {', '.join(sorted(absent))}: add one to SECTIONS in "
            "benchmarks/report.py."
        )
    sections = [_section(folder, n, section) for n, section in SECTIONS.items() if n in present]
    return "\n\n".join([HEAD.strip(), *sections]) + "\n"


if __name__ == "__main__":
    RESULTS = Path(sys.argv[1]) if len(sys.argv) > 1 else record.RESULTS
    files.write_text(RESULTS / "README.md", page(RESULTS))
