"""Measure how well the heatmap classifier separates defects from harmless anomalies.

    python -m benchmarks.studies.classifier --data FOLDER --weights WEIGHTS --workdir D

FOLDER is in the MVTec layout. A detector learns from three in four of its good training images.
Harmless anomalies (`studies.harmless`) are drawn on the fourth and on the good test images. They
and the defective test images, none of which the detector has seen, are the two classes. 10, 20 or
50 labels, half of each class, are drawn repeatedly, and the remaining images are evaluated. The
study compares

    threshold     an image threshold alone, the best one on the same labels
    hu, encoder   the classifier as trained by `recon_ad.classify`, by its probability alone

and the decision of a line, which uses both thresholds. WEIGHTS are those of DeiT-Tiny, for the
classifier's encoder and for `knn`, the second detector. Detectors are kept in D. The result is
written to results/classifier.json.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.harness import record
from benchmarks.studies.harmless import KINDS, harmless
from recon_ad import cli
from recon_ad.classifier.training import balanced_accuracy
from recon_ad.config import load_config
from recon_ad.data import Record, folder_source
from recon_ad.detector.directory import load
from recon_ad.detector.jax_detector import Detector
from recon_ad.metrics.ranking import auroc, levels
from recon_ad.runtime.compilation import keep_compiled
from recon_ad.tables.labels import SPLITS, compared, look
from recon_ad.training.run import train

LABELS = (10, 20, 50)
FEATURES = ("hu", "encoder")
KEPT = 4  # one in so many good training images is not used for training
CONFIGS = {
    "cae": "configs/folder.py:method=cae,scale=cpu,path={path}",
    "knn": "configs/folder.py:method=knn,scale=cpu,weights={weights},path={path}",
}


def trained(data: Path, workdir: Path, *, method: str, weights: str) -> Detector:
    """Return the detector, trained on three in four of the good images if it does not exist."""
    learnt = workdir / "learnt"
    for i, image in enumerate(sorted((data / "train" / "good").iterdir())):
        link = learnt / "train" / "good" / image.name
        if i % KEPT != KEPT - 1 and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(image.resolve())
    if not (workdir / method / "detector").is_dir():
        train(load_config(CONFIGS[method].format(path=learnt, weights=weights)), workdir / method)
    return load(workdir / method / "detector")


def pictures(data: Path, *, channels: int, seed: int) -> list[Record]:
    """Return images with harmless anomalies, then defective ones; `defect` is their kind."""
    source = folder_source(data, channels=channels)
    good = [r for i, r in enumerate(source.train) if i % KEPT == KEPT - 1]
    good += [r for r in source.test if not r.anomalous]
    kinds = list(KINDS)

    def drawn(i: int) -> Record:
        image, kind = good[i].load(), kinds[i % len(kinds)]
        made = harmless(image, kind, np.random.default_rng([seed, i]))
        return Record(good[i].name, lambda: made, kind)

    return [drawn(i) for i in range(len(good))] + [r for r in source.test if r.anomalous]


def measured(data: Path, workdir: Path, *, method: str, weights: str) -> dict[str, Any]:
    """Measure everything for one detector."""
    detector = trained(data, workdir, method=method, weights=weights)
    configs = {name: settings(name, weights) for name in FEATURES}
    seen, given = look(detector, pictures(data, channels=detector.channels, seed=0), configs)
    kinds = np.array([record.defect for record in given])
    defects = ~np.isin(kinds, list(KINDS))
    scores, above = seen.scores, seen.above
    names = list(dict.fromkeys(kinds.tolist()))
    return {
        "images": {kind: int((kinds == kind).sum()) for kind in names},
        "above_the_image_threshold": {kind: float(above[kinds == kind].mean()) for kind in names},
        "balanced_accuracy_at_the_image_threshold": balanced_accuracy(above, defects),
        "score_auroc_of_defects_against": {
            kind: auroc(levels(scores[chosen], defects[chosen]))
            for kind in KINDS
            for chosen in [defects | (kinds == kind)]
        },
        "labels": {str(count): compared(seen, defects, configs, count=count) for count in LABELS},
    }


def settings(features: str, weights: str) -> Any:
    """Return the classifier's default config."""
    return load_config(f"configs/classifier.py:features={features},weights={weights}")


def main() -> None:
    """Measure, write the result and print it."""
    keep_compiled()
    data, weights = Path(_DATA.value), _WEIGHTS.value
    begin = time.perf_counter()
    detectors = {
        method: measured(data, Path(_WORKDIR.value), method=method, weights=weights)
        for method in _METHODS.value
    }
    result = {
        "command": f"python -m benchmarks.studies.classifier, of {data.name}",
        "splits": SPLITS,
        "interval": "2.5th and 97.5th percentile over the splits",
        "detectors": detectors,
        "seconds": time.perf_counter() - begin,
        "classifier": settings("hu", "").to_dict() | {"features": "hu and encoder"},
    }
    record.write("classifier", result)
    for method, found in detectors.items():
        for count, rows in found["labels"].items():
            for name, row in rows.items():
                figures = {k: tuple(round(x, 3) for x in v.values()) for k, v in row.items()}
                print(method, count, name, figures)


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", None, "Folder in the MVTec layout.", required=True)
    _WEIGHTS = flags.DEFINE_string("weights", None, "Weights of DeiT-Tiny.", required=True)
    _WORKDIR = flags.DEFINE_string("workdir", None, "Folder for the detectors.", required=True)
    _METHODS = flags.DEFINE_multi_enum("method", list(CONFIGS), list(CONFIGS), "Detectors.")
    cli.run(main)
