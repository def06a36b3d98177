"""Does the classifier of heatmaps tell defects from harmless anomalies, and from how many labels?

    python -m benchmarks.studies.classifier --data FOLDER --weights WEIGHTS --workdir D

FOLDER is in the MVTec layout. A detector learns from three of four of its good training images; on
the fourth, and on good test images, harmless anomalies are drawn (`studies.harmless`), one image
each. They and the defective test images, all of which the detector has not seen, are what is told
apart. Of each class half of 10, 20 or 50 labels is drawn, again and again; figures are of the
images that are left. What is compared:

    threshold   of the image score, alone: the best on the same labels
    hu, encoder the classifier as `recon_ad.classify` trains it, by the probability alone

and the decision that a line makes, by both thresholds. WEIGHTS are of DeiT-Tiny: the encoder's, and
those of `knn`, the second detector. Detectors are kept in D. Writes results/classifier.json.
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
from recon_ad.detector.jax_detector import Detector, load
from recon_ad.metrics.ranking import auroc, levels
from recon_ad.runtime.compilation import keep_compiled
from recon_ad.tables.labels import SPLITS, compared, look
from recon_ad.training.run import train

LABELS = (10, 20, 50)
FEATURES = ("hu", "encoder")
KEPT = 4  # one in so many good training images is not learnt from
CONFIGS = {
    "cae": "configs/folder.py:method=cae,scale=cpu,path={path}",
    "knn": "configs/folder.py:method=knn,scale=cpu,weights={weights},path={path}",
}


def trained(data: Path, workdir: Path, *, method: str, weights: str) -> Detector:
    """The detector, from the good images that are learnt from."""
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
    """Harmless anomalies on good images, then defects; `defect` says what they show."""
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
    """Everything about one detector."""
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
    """Of the classifier, as users get them."""
    return load_config(f"configs/classifier.py:features={features},weights={weights}")


def main() -> None:
    """Measures, writes, prints."""
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
    _WEIGHTS = flags.DEFINE_string("weights", None, "Of DeiT-Tiny.", required=True)
    _WORKDIR = flags.DEFINE_string("workdir", None, "Where detectors are kept.", required=True)
    _METHODS = flags.DEFINE_multi_enum("method", list(CONFIGS), list(CONFIGS), "Detectors.")
    cli.run(main)
