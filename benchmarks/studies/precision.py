"""Measure what an encoder in bfloat16 changes: figures, thresholds, and its export.

    python -m benchmarks.studies.precision --data DATASETS --weights FILE

`knn` learns grid and the magnetic tiles with DeiT-Tiny and the settings of configs/folder.py at CPU
scale, once with the encoder in float32 and once in bfloat16. The exported model multiplies in
float32 in both cases.

results/precision.json receives the image and pixel AUROC, the image threshold, the largest
difference of the export's scores and maps as a share of their thresholds, and the number of its
decisions that differ.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax
from absl import flags

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.config import load_config
from recon_ad.data import folder_source
from recon_ad.data.locate import check_data, find_category
from recon_ad.evaluation.run import evaluate_workdir
from recon_ad.training.run import train

SETS = ("grid", "magnetic_tile")
DTYPES = ("float32", "bfloat16")
IMAGES = "images"  # the parity group of whole images


def measured(folder: Path, *, dtype: str) -> dict[str, Any]:
    """Train, evaluate and export with the encoder in this type."""
    config = load_config(
        f"configs/folder.py:method=knn,scale=cpu,path={folder},weights={_WEIGHTS.value}"
    )
    config.encoder.dtype = dtype
    source = folder_source(folder)
    with tempfile.TemporaryDirectory() as name:
        workdir = Path(name)
        detector = train(config, workdir, source=source)
        metrics = evaluate_workdir(workdir, detector=detector, source=source, export=True)
        parity = json.loads((workdir / "model.parity.json").read_text())
    compared = parity["groups"][IMAGES]
    return {
        "image_auroc": metrics["image_auroc"],
        "pixel_auroc": metrics["pixel_auroc"],
        "image_threshold": detector.thresholds.image,
        "export_score_share": compared["score"]["max_share_of_scale"],
        "export_map_share": compared["anomaly_map"]["max_share_of_scale"],
        "export_labels_differ": compared["label"]["differ"],
        "export_passed": parity["passed"],
    }


def main() -> None:
    """Measure both sets in both types and write the result."""
    rows: list[dict[str, Any]] = []
    for name in SETS:
        folder = find_category(check_data(Path(_DATA.value)), [name])
        for dtype in DTYPES:
            rows.append({"set": name, "dtype": dtype} | measured(folder, dtype=dtype))
            print(rows[-1], flush=True)
            record.write("precision", {"rows": rows})
            jax.clear_caches()


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", None, "Folder with the data sets.", required=True)
    _WEIGHTS = flags.DEFINE_string("weights", "hub", "Weights of DeiT-Tiny.")
    cli.run(main)
