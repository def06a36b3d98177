"""Measure methods on features that are trained on few good images.

    python -m benchmarks.studies.few_images --data DATASETS --weights FILE

`subspace` and `knn` learn from 4, 8 or 16 good images of grid and of the magnetic tiles, with ten
random choices each, DeiT-Tiny and the settings of configs/folder.py at CPU scale. They judge the
good test images and every fourth defective one. With one image nothing is left for the calibration,
so only the order of the scores is measured.

results/few_images.json receives the image AUROC, the promised and the realised false-positive rate,
and the seconds from images to thresholds.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.config import load_config
from recon_ad.data import Source, folder_source
from recon_ad.data.locate import check_data, find_category
from recon_ad.detector.jax_detector import Detector
from recon_ad.methods import build_method
from recon_ad.metrics.ranking import auroc, levels
from recon_ad.training.fitted import with_steps, with_tiles
from recon_ad.training.run import train

SETS = ("grid", "magnetic_tile")
METHODS = ("subspace", "knn")
IMAGES = (1, 4, 8, 16)
DRAWS = 10
EVERY = 4  # one in so many defective test images is judged


def detector_of(source: Source, *, method: str, seed: int) -> tuple[Detector, float]:
    """Return a detector trained on all good images of a source, and the seconds that it took.

    It is calibrated if there is more than one image.
    """
    spec = f"configs/folder.py:method={method},scale=cpu,seed={seed},weights={_WEIGHTS.value}"
    config = load_config(spec).unlock()
    begin = time.perf_counter()
    if len(source.train) > 1:
        with tempfile.TemporaryDirectory() as workdir:
            return train(config, workdir, source=source), time.perf_counter() - begin
    image = source.train[0].load()
    config = with_steps(with_tiles(config, source.train, part=None), entries=1)
    built = build_method(config, channels=image.shape[2])
    frozen, _ = built.pretrained()
    untrained = Detector(config, channels=image.shape[2], variables={})
    tile = untrained.prepared(image)[None]
    features = jax.jit(built.prepare)(frozen, tile)
    state = built.init(jax.random.key(seed), features)
    state, _ = built.train_step(state, features, jax.random.key(seed), image=np.zeros(1, np.int32))
    variables = jax.device_get(built.finish(frozen, state, ()))
    return (
        Detector(config, channels=image.shape[2], variables=variables),
        time.perf_counter() - begin,
    )


def drawn(source: Source, *, count: int, method: str, seed: int) -> dict[str, Any]:
    """Measure one random choice of training images."""
    chosen = np.random.default_rng(seed).permutation(len(source.train))[:count]
    few = source._replace(train=tuple(source.train[i] for i in sorted(chosen)))
    detector, seconds = detector_of(few, method=method, seed=seed)
    scores = np.array([detector.predict(r.load(), reconstruct=False).score for r in source.test])
    anomalous = np.array([r.anomalous for r in source.test])
    promised = realised = None
    if count > 1:
        promised = detector.record["calibration"]["fpr_supported"]
        realised = float(np.mean(scores[~anomalous] > detector.thresholds.image))
    found = auroc(levels(scores, anomalous))
    return {"auroc": found, "promised": promised, "realised": realised, "seconds": seconds}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of each figure over the draws, and the lowest and highest AUROC."""
    found: dict[str, Any] = {"draws": len(rows)}
    for name in rows[0]:
        values = [row[name] for row in rows if row[name] is not None]
        found[name] = float(np.mean(values)) if values else None
    found["auroc_range"] = [f(row["auroc"] for row in rows) for f in (min, max)]
    found["seconds_most"] = max(row["seconds"] for row in rows)
    return found


def main() -> None:
    """Measure all random choices and write the result."""
    rows: list[dict[str, Any]] = []
    for name in SETS:
        folder = find_category(check_data(Path(_DATA.value)), [name])
        source = folder_source(folder, channels=1)
        good = [r for r in source.test if not r.anomalous]
        bad = [r for r in source.test if r.anomalous][::EVERY]
        source = source._replace(test=(*good, *bad))
        for method in METHODS:
            for count in IMAGES:
                draws = [
                    drawn(source, count=count, method=method, seed=seed) for seed in range(DRAWS)
                ]
                rows.append({"set": name, "method": method, "images": count, **summary(draws)})
                print(rows[-1], flush=True)
                record.write("few_images", {"rows": rows})
                jax.clear_caches()


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", None, "Folder with the data sets.", required=True)
    _WEIGHTS = flags.DEFINE_string("weights", "hub", "Weights of DeiT-Tiny.")
    cli.run(main)
