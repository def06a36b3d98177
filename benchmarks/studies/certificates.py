"""Measure whether the bounds of certificates hold, on simulated detectors and on real images.

    python -m benchmarks.studies.certificates
    python -m benchmarks.studies.certificates --data DATASETS --weights FILE --runs DIR

In 500 studies each, the first measures

1. how often a90/95 is at or above the true a90, on detectors with a known probability of detection
   over size. The sizes are drawn as `recon_ad.certify` draws them, for images of several sides. The
   curves are logistic, steep and flat, and a cumulative normal. Detectors that miss a share of all
   sizes have no a90, so that no size must be certified;
2. how often the upper bound of 95 % is at or above a known false-reject rate.

The second trains `knn` and `cae` at CPU scale on grid, the magnetic tiles and the ball screw,
unless DIR holds these runs, and certifies them with the good and defective test images. The model
of grid and `knn` is then exported, and ONNX Runtime and OpenVINO judge every fourth inserted defect
as well. What DIR holds is not done again. The contrast of real and inserted defects, and how much
of its circle each fills, show whether they look alike.

Each writes its part of results/certificates.json.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from jaxtyping import Bool, Shaped
from scipy import ndimage, special, stats

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.certification.cases import TRIALS, Case, bases_of, cases_of, inserted, sizes_of
from recon_ad.certification.defects import robust_range
from recon_ad.certification.detection import ABOVE, NO_MODEL, WANTED, Detection, detection
from recon_ad.certification.images import GoodImages
from recon_ad.certification.page import page
from recon_ad.certification.real import defective_images, diameter, largest_region
from recon_ad.certification.rejects import upper_bound
from recon_ad.certification.run import certify
from recon_ad.certification.trials import judge, row_of
from recon_ad.config import load_config
from recon_ad.data.arrays import to_unit
from recon_ad.data.locate import check_data, find_category
from recon_ad.data.source import GOOD
from recon_ad.data.truth import united_mask
from recon_ad.detector import onnx_detector
from recon_ad.detector.directory import load
from recon_ad.detector.image_files import decoded
from recon_ad.detector.inference import Inference
from recon_ad.detector.onnx_export import export, folder_images
from recon_ad.detector.open import identity
from recon_ad.detector.runtimes import RUNTIMES
from recon_ad.runtime import files
from recon_ad.tables.preste import FIELDS
from recon_ad.training.run import train

RESULTS = record.RESULTS / "certificates.json"
STUDIES, SEED = 500, 0
SETS, METHODS = ("grid", "magnetic_tile", "ball_screw"), ("knn", "cae")
GROUPS = {name: fields["holdout.group"] for name, fields in FIELDS.items()}
RUNTIMES_OF = ("grid", "knn")
EVERY = 4  # one in so many inserted defects is judged by every runtime
RING = 8  # px around a defect that its gray level is compared with
REJECTS = ((24, 0.01), (24, 0.05), (100, 0.0217), (500, 0.01))  # images, true rate


class Simulated(NamedTuple):
    """A simulated detector and the images that it is certified on.

    Attributes:
      a90: Size in px that it finds with probability .9 times `ceiling`.
      slope: Slope of the curve's logit over ln(size) at a90.
      largest: Largest inserted defect in px, a quarter of the images' side.
      ceiling: Share that it finds of very large defects.
      curve: Name of the curve.
    """

    a90: float
    slope: float
    largest: float = 128.0
    ceiling: float = 1.0
    curve: str = "logistic"


DETECTORS = (
    Simulated(12.0, 3.0),
    Simulated(20.0, 2.0),
    Simulated(30.0, 5.0),
    Simulated(8.0, 8.0),
    Simulated(20.0, 4.0, largest=85.0),
    Simulated(10.0, 3.0, largest=32.0),
    Simulated(15.0, 3.0, curve="normal"),
    Simulated(8.0, 4.0, ceiling=0.85),
    Simulated(15.0, 2.0, ceiling=0.85),
)


def _normal(x: np.ndarray) -> np.ndarray:
    """Return the cumulative normal with .9 and a logit's slope of 1 at x = 0."""
    at = stats.norm.ppf(WANTED)
    scale = WANTED * (1 - WANTED) / stats.norm.pdf(at)
    return stats.norm.cdf(at + scale * x)


CURVES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "logistic": lambda x: special.expit(special.logit(WANTED) + x),
    "normal": _normal,
}


def outcome(rng: np.random.Generator, detector: Simulated) -> tuple[np.ndarray, np.ndarray]:
    """Return the sizes and hits of a study."""
    sizes = sizes_of(rng, largest=detector.largest)
    grown = CURVES[detector.curve](detector.slope * np.log(sizes / detector.a90))
    return sizes, (rng.random(len(sizes)) < detector.ceiling * grown).astype(int)


def held(found: Detection, detector: Simulated) -> bool:
    """Return whether the bound is at or above the true a90; none certified where there is none."""
    if found.a90_95.where == ABOVE:
        return True
    return detector.ceiling == 1 and found.a90_95.px >= detector.a90


def simulated() -> dict[str, Any]:
    """Measure how often the bounds hold on simulated detectors."""
    rows: list[dict[str, Any]] = []
    for detector in DETECTORS:
        rng = np.random.default_rng(SEED)
        found = [detection(*outcome(rng, detector)) for _ in range(STUDIES)]
        rows.append(
            detector._asdict()
            | {
                "held": float(np.mean([held(one, detector) for one in found])),
                "not_reached": float(np.mean([one.a90_95.where == ABOVE for one in found])),
                "no_model": float(np.mean([one.rule == NO_MODEL for one in found])),
                "median_ratio": float(np.median([o.a90_95.px / detector.a90 for o in found])),
            }
        )
        print(rows[-1], flush=True)
    rejects = []
    for images, rate in REJECTS:
        counts = np.random.default_rng(SEED).binomial(images, rate, STUDIES)
        kept = [upper_bound(int(k), images) >= rate for k in counts]
        rejects.append({"images": images, "rate": rate, "held": float(np.mean(kept))})
    return {
        "command": "python -m benchmarks.studies.certificates",
        "studies": STUDIES,
        "trials": TRIALS,
        "detection": rows,
        "false_rejects": rejects,
    }


def trained(folder: Path, workdir: Path, *, method: str) -> Path:
    """Train a detector on a category unless that was done, and return its directory."""
    weights = f",weights={_WEIGHTS.value}" if method == "knn" else ""
    config = load_config(f"configs/folder.py:path={folder},method={method},scale=cpu{weights}")
    with config.unlocked():
        config.holdout.group = GROUPS.get(folder.name, "")
    train(config, workdir)
    return workdir / "detector"


def certified(folder: Path, directory: Path) -> dict[str, Any]:
    """Certify a detector on the test images of its category."""
    output, detector = directory.parent / "certificate", load(directory)
    found = certify(
        detector, folder / "test" / GOOD, output, identity=identity(directory),
        defects=folder / "test",
    )  # fmt: skip
    files.write_json(output / "certificate.json", found.figures)
    files.write_text(output / "certificate.html", page(found))
    figures = found.figures
    real, rejects = figures["real_defects"], figures["false_rejects"]
    return {
        "false_rejects": {k: rejects[k] for k in ("count", "total", "at_most", "promised")},
        "a90_95": [
            {k: entry[k] for k in ("kind", "contrast")} | entry["image"]["a90_95"]
            for entry in figures["detection"]
        ],
        "alike": figures["repeatability"]["alike"],
        "kappa": figures["repeatability"]["kappa"],
        "escapes": real["escapes"],
        "located": real["located"],
        "by_kind": real["by_kind"],
        "by_size": real["by_size"],
        "differs": real["differs"],
        "appearance": appearances(folder, detector),
        "envelope": {
            name: {k: one[k] for k in ("holds_to", "leaves_at", "because")}
            for name, one in figures["envelope"]["disturbances"].items()
        },
    }


def appearances(folder: Path, detector: Inference) -> list[dict[str, Any]]:
    """Return the median contrast and fill of real and inserted defects by size, see `appearance`.

    Defects are inserted into all good test images, whether or not the detector stops them.
    """
    real = [
        (diameter(mask), *appearance(decoded(detector, one.file), mask))
        for one in defective_images(folder / "test")
        if one.masks and (mask := united_mask(one.masks)).any()
    ]
    good = GoodImages(detector, folder / "test" / GOOD, roi=None)
    rows = {image.name: {"registered": True, "stopped": False} for image in good.images}
    drawn = cases_of(bases_of(good, rows), SEED)[::EVERY]
    made = [(case.size, *appearance(*inserted(good, case, SEED))) for case in drawn]
    bins: dict[float, dict[str, Any]] = {}
    for name, entries in (("real", real), ("inserted", made)):
        powers = np.floor(np.log2([max(entry[0], 1.0) for entry in entries]))
        for power in np.unique(powers):
            contrast, fill = np.median(np.array(entries)[powers == power, 1:], axis=0)
            row = bins.setdefault(
                power, {"from_px": float(2**power), "to_px": float(2 ** (power + 1))}
            )
            row[name] = {"contrast": float(contrast), "fill": float(fill)}
    return [bins[power] for power in sorted(bins)]


def appearance(
    image: Shaped[np.ndarray, "h w c"], mask: Bool[np.ndarray, "h w"]
) -> tuple[float, float]:
    """Return how far a defect differs from its surroundings, and how much of its circle it fills.

    The largest region of the mask counts, as for the size. The contrast is the difference of the
    median gray levels in it and in a ring of `RING` px around it, as a share of the image's range,
    as inserted contrasts are.
    """
    gray, region = to_unit(image).mean(axis=2), largest_region(mask)
    ring = ndimage.binary_dilation(region, iterations=RING) & ~mask
    contrast = abs(float(np.median(gray[region]) - np.median(gray[ring]))) / robust_range(image)
    return contrast, float(region.sum()) / (math.pi / 4 * diameter(mask) ** 2)


def by_runtime(folder: Path, directory: Path) -> dict[str, Any]:
    """Compare verdicts and sizes of an exported model with those of its detector."""
    detector, model = load(directory), directory.parent / "model.onnx"
    if not model.is_file():
        made = export(detector, model, folder_images(folder / "test" / GOOD, detector))
        assert made["passed"], made
    runtimes: dict[str, Inference] = {"jax": detector}
    runtimes |= {name: onnx_detector.load(model, runtime=name) for name in RUNTIMES}
    good = GoodImages(detector, folder / "test" / GOOD, roi=None)
    rows = {i.name: row_of(judge(detector, good.load(i), None)) for i in good.images}
    drawn = cases_of(bases_of(good, rows), SEED)[::EVERY]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runtimes}
    for case in drawn:
        image, mask = inserted(good, case, SEED)
        for name, opened in runtimes.items():
            found[name].append(row_of(judge(opened, image, None), mask))
    return {
        name: _compared(drawn, found["jax"], theirs)
        for name, theirs in found.items()
        if name != "jax"
    } | {"trials": len(drawn)}


def _compared(
    drawn: Sequence[Case], ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return how far two runtimes differ on the same inserted defects."""
    kinds = [(case.kind, case.contrast) for case in drawn]
    ratios = []
    for kind in dict.fromkeys(kinds):
        mine = [i for i, other in enumerate(kinds) if other == kind]
        sizes = np.array([drawn[i].size for i in mine])
        a90 = [
            detection(sizes, np.array([int(rows[i]["stopped"]) for i in mine])).a90.px
            for rows in (ours, theirs)
        ]
        ratios.append(a90[1] / a90[0])
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "verdicts_that_differ": sum(a["stopped"] != b["stopped"] for a, b in pairs),
        "located_that_differ": sum(a["located"] != b["located"] for a, b in pairs),
        "largest_relative_score_difference": max(
            abs(a["score"] - b["score"]) / abs(a["score"]) for a, b in pairs
        ),
        "a90_ratio": [min(ratios), max(ratios)],
    }


def real(data: Path, runs: Path) -> None:
    """Certify the detectors of all sets and methods, and write what is known after each."""
    found: dict[str, Any] = {}
    for method in METHODS:
        for name in SETS:
            folder = find_category(data, [name])
            assert folder is not None, f"no folder {name} in --data"
            directory = trained(folder, runs / f"{name}-{method}", method=method)
            found[f"{name}, {method}"] = certified(folder, directory)
            if (name, method) == RUNTIMES_OF:
                found["runtimes"] = by_runtime(folder, directory)
            facts = record.facts("scipy", "onnxruntime", "openvino")
            files.write_json(RESULTS, _earlier() | {"real": found | facts})


def _earlier() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def main() -> None:
    """Measure one part and write it."""
    if _DATA.value:
        real(check_data(Path(_DATA.value)), Path(_RUNS.value))
    else:
        figures = simulated()
        record.write("certificates", {"real": _earlier().get("real", {}), **figures}, "scipy")


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", "", "Folder with the data sets.")
    _WEIGHTS = flags.DEFINE_string("weights", "hub", "Weights of DeiT-Tiny.")
    _RUNS = flags.DEFINE_string("runs", "certificates", "Folder of the runs.")
    cli.run(main)
