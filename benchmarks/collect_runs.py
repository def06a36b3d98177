"""Collect the metrics of finished runs in one JSON file and print them as a table.

    python -m benchmarks.collect_runs results/runs.json NAME=WORKDIR …

A NAME that is already in the file is replaced; all others are kept.
"""

import json
import sys
from pathlib import Path

from recon_ad.metrics.figures import FIGURES
from recon_ad.runtime import files

SHOWN = ("image_auroc", "pixel_auroc", "aupro_30", "iou_max_oracle", "patch_auroc")


def collected(workdir: Path) -> dict:
    """Return the metrics and settings to keep of one run."""
    metrics = json.loads((workdir / "metrics.json").read_text())
    protocol = metrics["protocol"]
    kept = {key: metrics[key] for key in FIGURES}
    kept |= {key: metrics[key] for key in ("intervals", "no_model", "truths", "missing")}
    training, config = protocol["training"], protocol["config"]
    kept["training"] = {
        key: training[key] for key in ("steps", "parameters", "explained_variance", "message")
    }
    kept["patch_size"] = config["data"]["patch_size"]
    kept["batch_size"] = config["train"]["batch_size"]
    kept["stride"] = protocol["stride"]
    kept["smoothing_sigma_px"] = protocol["smoothing_sigma_px"]
    kept["score_rule"] = protocol["score_rule"]
    kept["seed"] = protocol["seed"]
    return kept | {"hardware": protocol["hardware"], "versions": protocol["versions"]}


def row(name: str, run: dict) -> str:
    """Return one line of the README's table."""
    figures = ["–" if run.get(key) is None else f"{run[key]:.3f}" for key in SHOWN]
    explained = f"{run['training']['explained_variance']:.2f}"
    patches = run["training"]["steps"] * run["batch_size"]
    cells = [name, f"{patches:,}", f"{run['train_seconds']:.0f} s", explained, *figures]
    return f"| {' | '.join(cells)} |"


def main(output: str, *runs: str) -> None:
    """Collect the runs, write the file and print the table."""
    path = Path(output)
    content = json.loads(path.read_text()) if path.is_file() else {}
    for entry in runs:
        name, _, workdir = entry.partition("=")
        content[name] = collected(Path(workdir))
    files.write_json(path, content)
    print("\n".join(row(name, run) for name, run in content.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
