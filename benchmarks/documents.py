"""Write the figures of results/detectors.json into the README and docs/.

    python -m benchmarks.documents [FILE]

A document marks where a table belongs, by `<!-- detectors NAME -->` and `<!-- end -->`: "all" is
the table of all methods beside cited figures, and a method's name is the table of that method. Run
this after the file has changed.
"""

import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import record
from recon_ad.runtime import files
from recon_ad.tables import bergmann2019

Cells = Sequence[Mapping[str, Any]]

ROOT = record.RESULTS.parent
MARKED = re.compile(r"(<!-- detectors (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SETS = {
    "grid": "*grid*",
    "magnetic_tile": "magnetic tiles",
    "ball_screw": "ball screw",
    "nanofibres": "*nanofibres*",
}
METHODS = (
    "knn", "subspace", "vit_flow", "vit_recon",
    "ssim_ae", "l2_ae", "ssim_l1", "fm_ae", "cae", "vae", "aae", "dae",
)  # fmt: skip
DECISIONS = ("image_tpr_calibrated", "image_fpr_calibrated")
# The columns of the table of all methods; nanofibres has no good test images.
SHOWN = (
    ("grid", ("image_auroc", "pixel_auroc", "aupro_30")),
    ("grid", DECISIONS),
    ("magnetic_tile", ("image_auroc", "pixel_auroc")),
    ("magnetic_tile", DECISIONS),
    ("ball_screw", ("pixel_auroc",)),
    ("nanofibres", ("pixel_auroc",)),
)
CONFOUNDED = {"ball_screw": ("image_auroc", "image_tpr_calibrated")}  # by brightness alone
NAMES = {
    "image_auroc": "image",
    "pixel_auroc": "pixel",
    "aupro_30": "AUPRO",
    "image_tpr_calibrated": "found",
    "image_fpr_calibrated": "stopped",
}
# Beside ours, by name and set: by other authors, on the official split.
CITED: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    f"{name}, Bergmann et al.": {
        "grid": bergmann2019.GRID[method],
        "nanofibres": bergmann2019.NANOFIBRES[method],
    }
    for name, method in (("SSIM autoencoder", "ssim_ae"), ("L2 autoencoder", "l2_ae"))
} | {
    f"anomalib's {name}": {"grid": {"image_auroc": image, "pixel_auroc": pixel}}
    for name, image, pixel in (
        ("PatchCore", 0.959, 0.968),
        ("MH-PatchCore, on a CPU", 0.980, 0.983),
        ("FastFlow, DeiT", 0.991, 0.980),
        ("Dinomaly", 0.999, 0.994),
    )
}
COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro_30": "AUPRO",
    "seg_f1_calibrated": "SegF1 at the threshold",
    "image_tpr_calibrated": "defective images found",
}


def single(cells: Cells, dataset: str, method: str) -> Cells:
    """Return the finished cells of a method on a set, one for each seed."""
    return [
        cell
        for cell in cells
        if (cell["dataset"], cell["method"], cell["variant"]) == (dataset, method, "")
        and cell.get("wall_seconds") is not None
    ]


def mean(cells: Cells, key: str, form: str = ".3f") -> str:
    """Return a figure's mean over the cells, or a dash where there is no figure."""
    values = [cell[key] for cell in cells if cell.get(key) is not None]
    return format(statistics.mean(values), form).removeprefix("0") if values else "–"


def seeds_of(cells: Cells) -> str:
    """Return for how many seeds there are cells, as a range where methods differ."""
    counts = {len(single(cells, name, method)) for name in SETS for method in METHODS} - {0}
    return " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else "0"


def all_methods(cells: Cells) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of all methods, and the cited ones."""
    heads = (
        f"{SETS[name].strip('*')}: {' / '.join(NAMES[key] for key in keys)}" for name, keys in SHOWN
    )
    yield ("", *heads)
    for method in METHODS:
        found = {name: single(cells, name, method) for name in SETS}
        if any(found.values()):
            figures = (
                " / ".join(mean(found[name], key) for key in keys) if found[name] else "–"
                for name, keys in SHOWN
            )
            yield (f"`{method}`", *figures)
    for title, sets in CITED.items():
        figures = (
            " / ".join(mean([sets[name]], key) for key in keys)
            if sets.get(name, {}).keys() & set(keys)
            else "–"
            for name, keys in SHOWN
        )
        yield (f"*{title}*", *figures)


def of_method(cells: Cells, method: str) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a method's table, one for each set."""
    yield ("set", "seeds", *COLUMNS.values(), "false alarms promised → measured", "seconds")
    for name, title in SETS.items():
        if found := single(cells, name, method):
            rates = (mean(found, f"image_fpr_{key}") for key in ("promised", "calibrated"))
            hidden = CONFOUNDED.get(name, ())
            figures = ("–" if key in hidden else mean(found, key) for key in COLUMNS)
            seconds = mean(found, "wall_seconds", ".0f")
            yield (title, str(len(found)), *figures, " → ".join(rates), seconds)


def table(cells: Cells, name: str) -> str:
    """Return the table of that name in Markdown, or a sentence where there are no cells yet."""
    rows = list(all_methods(cells) if name == "all" else of_method(cells, name))
    if len(rows) == 1:
        return "Not run yet.\n"
    head, *body = rows
    lines = [head, ("---",) * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written(text: str, cells: Cells) -> str:
    """Return a document with its tables of these cells."""
    return MARKED.sub(lambda m: f"{m[1]}{table(cells, m[2])}{m[4]}", text)


def documents() -> list[Path]:
    """Return the documents that have such tables."""
    candidates = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in candidates if MARKED.search(path.read_text())]


if __name__ == "__main__":
    SOURCE = Path(sys.argv[1]) if len(sys.argv) > 1 else record.RESULTS / "detectors.json"
    CELLS = json.loads(SOURCE.read_text())["cells"]
    for document in documents():
        files.write_text(document, written(document.read_text(), CELLS))
    print(f"{len(documents())} documents with figures of {seeds_of(CELLS)} seeds")
