"""Check on every test image of a data set that an exported model decides as its detector does.

    python -m benchmarks.studies.agreement --detector D/detector --data FOLDER
        [--program recon_ad_inspect]

FOLDER is in the MVTec layout. The detector is exported, and JAX, ONNX Runtime, OpenVINO and, if
given, the C++ program judge all images in FOLDER/test. The result is added to
results/agreement.json under the names of the folder and the method.
"""

import csv
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.detector import onnx_detector
from recon_ad.detector.directory import load
from recon_ad.detector.image_files import decoded, inputs
from recon_ad.detector.inference import Inference
from recon_ad.detector.onnx_export import export, folder_images
from recon_ad.detector.runtimes import RUNTIMES
from recon_ad.ops.masks import count_regions
from recon_ad.runtime import files

RESULTS = Path("results/agreement.json")


class Decision(NamedTuple):
    """A runtime's decision about an image."""

    score: float
    label: bool
    regions: int


def judged(detector: Inference, images: dict[str, Path]) -> dict[str, Decision]:
    """Judge the images one by one in Python."""
    found = {}
    for name, file in images.items():
        prediction = detector.predict(decoded(detector, file), reconstruct=False)
        found[name] = Decision(
            float(prediction.score), bool(prediction.label), count_regions(prediction.marks)
        )
    return found


def judged_by_program(program: str, model: Path, folder: Path) -> dict[str, Decision]:
    """Judge the images with the C++ program, and read its table."""
    with tempfile.TemporaryDirectory() as output:
        command = [program, "--model", model, "--input", folder, "--output", output]
        subprocess.run([str(word) for word in command], check=True)
        with (Path(output) / "predictions.csv").open() as table:
            return {
                row["path"]: Decision(
                    float(row["score"]), row["anomalous"] == "true", int(row["regions"])
                )
                for row in csv.DictReader(table)
            }


def compared(ours: dict[str, Decision], theirs: dict[str, Decision]) -> dict[str, Any]:
    """Compare the decisions over all images."""
    assert ours.keys() == theirs.keys(), "not the same images"
    pairs = [(ours[name], theirs[name]) for name in ours]
    return {
        "images": len(pairs),
        "labels_that_differ": sum(a.label != b.label for a, b in pairs),
        "region_counts_that_differ": sum(a.regions != b.regions for a, b in pairs),
        "largest_score_difference": max(abs(a.score - b.score) for a, b in pairs),
        "largest_relative_score_difference": max(
            abs(a.score - b.score) / abs(a.score) for a, b in pairs
        ),
    }


def main() -> None:
    """Export the detector, judge all images, compare the decisions and write the result."""
    detector, folder = load(_DETECTOR.value), Path(_DATA.value) / "test"
    images = {
        file.relative_to(folder).as_posix(): file for file in inputs(folder, output=folder / "none")
    }
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch) / "model.onnx"
        result = export(detector, model, folder_images(folder, detector))
        assert result["passed"], result
        contenders: dict[str, Callable[[], dict[str, Decision]]] = {
            runtime: lambda r=runtime: judged(onnx_detector.load(model, runtime=r), images)
            for runtime in RUNTIMES
        }
        if _PROGRAM.value:
            contenders["c++"] = lambda: judged_by_program(_PROGRAM.value, model, folder)
        ours = judged(detector, images)
        rows = {name: compared(ours, run()) for name, run in contenders.items()}
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    kept[f"{Path(_DATA.value).name}, {detector.config.method.name}"] = {
        "command": "python -m benchmarks.studies.agreement",
        "thresholds": detector.thresholds._asdict(),
        "called_anomalous_by_jax": sum(d.label for d in ours.values()),
        "against_jax": rows,
        **record.facts("onnxruntime", "openvino"),
    }
    files.write_json(RESULTS, kept)
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    _DETECTOR = flags.DEFINE_string("detector", None, "Detector directory.", required=True)
    _DATA = flags.DEFINE_string("data", None, "Folder in the MVTec layout.", required=True)
    _PROGRAM = flags.DEFINE_string("program", "", "Path of the C++ program recon_ad_inspect.")
    cli.run(main)
