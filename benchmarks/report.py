"""Write results/README.md, with a section and a table for each JSON file in results/.

    python -m benchmarks.report [FOLDER]

Run it after a file has changed. The page depends only on these files.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import report_rows
from benchmarks.harness import record
from benchmarks.report_rows import Content, Rows
from recon_ad.errors import UserError
from recon_ad.runtime import files, provenance

HEAD = """# Results

All measured results, with one section for each JSON file in this folder. The files contain more
figures than the tables. This page is written by `python -m benchmarks.report`; do not edit it by
hand.
"""
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


TABLE = "python -m recon_ad.reproduce --table {name} --scale {scale}"
# Sections by the name of the file, in the page's order.
SECTIONS: Mapping[str, Section] = {
    "runs": Section(
        "Trained and evaluated runs of the CAE",
        report_rows.runs,
        "python -m benchmarks.collect_runs",
    ),
    "schneider2022": Section("Schneider et al. 2022", report_rows.cells, TABLE),
    "bergmann2019": Section("Bergmann et al. 2019", report_rows.cells, TABLE),
    "covision": Section("Moved parts, after Buzzega et al.", report_rows.cells, TABLE),
    "detectors": Section("Every method on four sets", report_rows.cells, TABLE),
    "frameworks_cpu": Section(
        "JAX, PyTorch and ONNX Runtime, CPU", report_rows.speed("frameworks_cpu")
    ),
    "frameworks_gpu": Section(
        "JAX, PyTorch and ONNX Runtime, GPU", report_rows.speed("frameworks_gpu")
    ),
    "profile": Section("Largest costs of a training step", report_rows.speed("profile")),
    "gpu_compile": Section(
        "Programs compiled for absent GPUs",
        report_rows.gpu_compile,
        note="The training step divides its batch among the GPUs, while the core gives each GPU a "
        "full batch. Bytes are those of one GPU. The last row is XLA's own transposed convolution, "
        "which no method uses.",
    ),
    "inference": Section("From decoded image to mask", report_rows.speed("inference")),
    "residuals": Section(
        "SSIM residual of exported models",
        report_rows.speed("residuals"),
        note="Times are the shortest ones. The file also has the medians.",
    ),
    "encoder": Section("Encoders", report_rows.speed("encoder")),
    "aupro": Section("AUPRO", report_rows.speed("aupro")),
    "metrics_peers": Section(
        "Metrics compared with anomalib's",
        report_rows.metrics_peers,
        note="anomalib computes in float32. Its quantiles may pass one image more than the share "
        "allows; ours never do.",
    ),
    "agreement": Section("Decisions of exported detectors", report_rows.agreement),
    "registration": Section("Registration of moved parts", report_rows.registration),
    "classifier": Section(
        "Heatmap classifier",
        report_rows.classifier,
        note="The brackets give the 2.5th and 97.5th percentiles.",
    ),
    "drifts": Section(
        "Drifts of a line",
        report_rows.drifts,
        note="Delays are medians, in images; – means more than 2,000.",
    ),
    "line": Section("A line with and without disturbances", report_rows.line),
    "start": Section("Start of a command", report_rows.speed("start")),
    "phases": Section("From the command to the report", report_rows.phases),
    "promises": Section(
        "Promised and realised rates of thresholds and intervals",
        report_rows.promises,
        "python -m benchmarks.studies.promises --data=DATASETS --weights=FILE",
    ),
    "precision": Section(
        "knn with its encoder in bfloat16",
        report_rows.precision,
        "python -m benchmarks.studies.precision --data=DATASETS --weights=FILE",
        note="One training each, so that the coreset's choice differs too: over seeds knn's image "
        "AUROC on magnetic_tile varies by 0.02. “Apart” is a share of the threshold.",
    ),
    "few_images": Section(
        "subspace and knn on few good images",
        report_rows.few_images,
        "python -m benchmarks.studies.few_images --data=DATASETS --weights=FILE",
        note="Means over random choices of the good images. The good test images and every fourth "
        "defective one are judged. Seconds are from images to thresholds, with compilation. One "
        "image leaves nothing for a calibration, whose time is then missing.",
    ),
    "certificates": Section(
        "Bounds of certificates",
        report_rows.certificates,
        note="500 studies each; of 64 inserted defects, or of so many good images. The bounds are "
        "to hold in 95 %. Where there is no a90, a bound holds if no size is certified. Below: "
        "real defects of a size beside inserted ones of all kinds and contrasts; behind the size "
        "the median contrast of both to their surroundings, and how much they fill of the circle "
        "around them.",
    ),
    "robustness": Section(
        "Damaged and hostile input", report_rows.robustness, "python -m benchmarks.robustness"
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
