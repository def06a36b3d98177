"""Rows of the tables in results/README.md, from the content of the JSON files in results/."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks import summary
from benchmarks.phases import PHASES
from benchmarks.robustness.trials import STRICTER
from recon_ad.metrics.figures import figure_label

Content = Mapping[str, Any]
Rows = Iterator[Sequence[str]]  # the first row is the header

KEYS = ("image_auroc", "pixel_auroc", "aupro_30", "iou_max_oracle", "patch_auroc")
SORTS = ("real", "inserted")  # of defects
FIGURES = {key: figure_label(key) for key in KEYS}


def _number(value: float | None, form: str = ".3f") -> str:
    return "–" if value is None else format(value, form)


def speed(name: str) -> Callable[[Content], Rows]:
    """Return a function that yields the rows of `benchmarks.summary`."""

    def rows(content: Content) -> Rows:
        yield ["what", "ours", "others", "times as fast"]
        for row in summary.TABLES[name](content):
            yield [row.what, row.ours, row.others, _number(row.ratio, ".2f")]

    return rows


def runs(content: Content) -> Rows:
    """Yield a row for each run of the CAE."""
    yield ["run", "patches", "training, s", "explained variance", *FIGURES.values()]
    for name, run in content.items():
        patches = run["training"]["steps"] * run["batch_size"]
        explained = run["training"]["explained_variance"]
        yield [
            name, f"{patches:,}", f"{run['train_seconds']:.0f}", f"{explained:.2f}",
            *(_number(run.get(key)) for key in FIGURES),
        ]  # fmt: skip


def cells(content: Content) -> Rows:
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


def agreement(content: Content) -> Rows:
    """Yield a row for each detector and runtime."""
    differences = {
        "labels_that_differ": "different labels",
        "region_counts_that_differ": "different numbers of regions",
        "largest_relative_score_difference": "largest relative difference of scores",
    }
    yield ["detector", "runtime, compared with JAX", "images", *differences.values()]
    for name, run in content.items():
        for runtime, found in run["against_jax"].items():
            yield [name, runtime, str(found["images"]), *(f"{found[k]:.2g}" for k in differences)]


def classifier(content: Content) -> Rows:
    """Yield a row for each detector, its labels and the features."""
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


def drifts(content: Content) -> Rows:
    """Yield a row for each control chart with each number of reference images."""
    drifts = next(iter(next(iter(content["references"].values())).values()))["delay"]
    yield ["reference", "chart", "false alarms in 10,000", *(f"delay: {name}" for name in drifts)]
    for images, charts in content["references"].items():
        for name, chart in charts.items():
            alarms = chart["false_alarms_per_10000"]["as_it_is"]
            delays = [_number(chart["delay"][drift]["median"], ",.0f") for drift in drifts]
            yield [images, name, f"{alarms:.2f}", *delays]


def registration(content: Content) -> Rows:
    """Yield the errors and the time of the registration, ours and OpenCV's."""
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


def line(content: Content) -> Rows:
    """Yield the counts of the disturbed line and the speed of the undisturbed one."""
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


def robustness(content: Content) -> Rows:
    """Yield a row for each kind of input, and for each command that was killed or had no disk."""
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


def phases(content: Content) -> Rows:
    """Yield a row for each run, with the seconds of its phases."""
    yield ["run", *PHASES, "total", "second evaluation"]
    for name, found in content["runs"].items():
        seconds = [found["train"].get(phase) for phase in (*PHASES, "all")]
        again = found["evaluate_again"]["all"]
        yield [name, *(f"{s:.0f} s" if s else "–" for s in seconds), f"{again:.0f} s"]


def metrics_peers(content: Content) -> Rows:
    """Yield a row for each figure that anomalib computes too."""
    yield [
        "metric", "anomalib's computation", "largest difference if it is exact", "if it is not",
    ]  # fmt: skip
    for row in content["rows"]:
        differences = (row[f"largest_difference_where_{kind}"] for kind in ("exact", "approximate"))
        shown = (_number(difference, ".0e") for difference in differences)
        yield [figure_label(row["figure"]), row["anomalib"], *shown]


def promises(content: Content) -> Rows:
    """Yield a row for each interval or threshold, with what it promises and what it keeps."""
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


def few_images(content: Content) -> Rows:
    """Yield a row for each method and number of training images."""
    yield [
        "data", "method", "good images", "choices", "image AUROC", "lowest to highest",
        "false alarms promised", "false alarms realised", "seconds", "seconds at most",
    ]  # fmt: skip
    for row in content["rows"]:
        low, high = row["auroc_range"]
        yield [
            row["set"], row["method"], str(row["images"]), str(row["draws"]),
            _number(row["auroc"]), f"{low:.3f} to {high:.3f}", _number(row["promised"]),
            _number(row["realised"]), f"{row['seconds']:.1f}", f"{row['seconds_most']:.1f}",
        ]  # fmt: skip


def certificates(content: Content) -> Rows:
    """Yield a row for each simulated detector, and for each size of real defects."""
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
    certified = {k: v for k, v in content["real"].items() if "by_size" in v}
    for name, found in certified.items():
        looks = {row["from_px"]: row for row in found.get("appearance", ())}
        for row in found.get("by_size", ()):
            if row["interval"] is not None:
                low, high = row["interval"]
                pairs = [looks.get(row["from_px"], {}).get(one, {}) for one in SORTS]
                contrasts, fills = (
                    " and ".join(_number(pair.get(key), ".2f") for pair in pairs)
                    for key in ("contrast", "fill")
                )
                yield [
                    f"{name}, {row['from_px']:g} to {row['to_px']:g} px; contrast {contrasts}, "
                    f"filled {fills}",
                    f"{row['found']} of {row['real']}",
                    f"{row['inserted_found']} of {row['inserted']}",
                    f"{low:+.2f} to {high:+.2f}{', differs' * row['differs']}",
                ]


def precision(content: Content) -> Rows:
    """Yield a row for each set and type of the encoder's numbers."""
    yield [
        "set", "encoder in", "image AUROC", "pixel AUROC", "export's scores apart",
        "its maps apart", "its decisions that differ",
    ]  # fmt: skip
    for row in content["rows"]:
        aurocs = (f"{row[key]:.4f}" for key in ("image_auroc", "pixel_auroc"))
        apart = (f"{row[key]:.1e}" for key in ("export_score_share", "export_map_share"))
        yield [row["set"], row["dtype"], *aurocs, *apart, str(row["export_labels_differ"])]


def gpu_compile(content: Content) -> Rows:
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
