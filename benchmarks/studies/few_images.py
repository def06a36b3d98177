"""Measure methods on features that are trained on few good images.

    python -m benchmarks.studies.few_images --data DATASETS --weights FILE

`subspace` and `knn` learn from 1, 4, 8 or 16 good images of grid and of the magnetic tiles, with
ten random choices each, DeiT-Tiny and the settings of configs/folder.py at CPU scale. They judge
the good test images and every fourth defective one. With one image nothing is left for the
calibration, so only the order of the scores is measured.

results/few_images.json receives the image AUROC, the promised and the realised false-positive rate,
and the seconds from images to thresholds, with compilation, of each choice and on average. A
stopped run goes on there: remove the file to measure anew.
"""

import itertools
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.config import load_config
from recon_ad.data import Record, Source, folder_source
from recon_ad.data.locate import check_data, find_category
from recon_ad.data.pipeline import Images
from recon_ad.detector.jax_detector import Detector
from recon_ad.methods import build_method
from recon_ad.metrics.ranking import auroc, levels
from recon_ad.training.fitted import with_dtype, with_steps, with_tiles
from recon_ad.training.loop import fit_state
from recon_ad.training.run import train

RESULTS = record.RESULTS / "few_images.json"
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
    with tempfile.TemporaryDirectory() as name:
        workdir = Path(name)
        if len(source.train) > 1:
            detector = train(config, workdir, source=source)
        else:
            detector = uncalibrated(config, workdir, source.train)
    return detector, time.perf_counter() - begin


def uncalibrated(config: ConfigDict, workdir: Path, records: Sequence[Record]) -> Detector:
    """Return a detector that is trained as by `train`, on all images, and has no thresholds."""
    config = with_dtype(with_tiles(config, records, part=None))
    side = config.data.patch_size
    images = Images(
        records,
        size=tuple(config.data.resize),
        patch_size=side,
        memory_mib=config.data.cache_mib,
        disk_mib=config.data.disk_cache_mib,
        tiled=True,
    )
    config = with_steps(config, entries=len(images))
    method = build_method(config, channels=images.channels)
    frozen, _ = method.pretrained()
    heldout = np.zeros((0, side, side, images.channels), np.float32)
    state, _ = fit_state(
        config, workdir, images, heldout, method=method, frozen=frozen, profile=False
    )
    variables = jax.device_get(method.finish(frozen, state, ()))
    return Detector(config, channels=images.channels, variables=variables)


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


def summary(draws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean of each figure over the draws, and the lowest and highest AUROC."""
    found: dict[str, Any] = {"draws": len(draws)}
    for name in ("auroc", "promised", "realised", "seconds"):
        values = [draw[name] for draw in draws if draw[name] is not None]
        found[name] = float(np.mean(values)) if values else None
    found["auroc_range"] = [f(draw["auroc"] for draw in draws) for f in (min, max)]
    found["seconds_most"] = max(draw["seconds"] for draw in draws)
    return found


def measure(sources: Mapping[str, Source]) -> None:
    """Measure the random choices that are not measured yet, and write the result after each."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"rows": [], "each": []}
    rows, each = kept["rows"], kept["each"]
    for name, method, count in itertools.product(sources, METHODS, IMAGES):
        cell = {"set": name, "method": method, "images": count}
        draws = [draw for draw in each if cell.items() <= draw.items()]
        for seed in range(len(draws), DRAWS):
            draw = cell | {"seed": seed}
            draw |= drawn(sources[name], count=count, method=method, seed=seed)
            draws.append(draw)
            each.append(draw)
            rows = [row for row in rows if not cell.items() <= row.items()]
            rows.append(cell | summary(draws))
            record.write("few_images", {"rows": rows, "each": each})
            print(draw, flush=True)
            jax.clear_caches()  # so that the seconds of each draw contain all compilations


def main() -> None:
    """Open the sets and measure all random choices."""
    sources = {}
    for name in SETS:
        folder = find_category(check_data(Path(_DATA.value)), [name])
        assert folder is not None, f"no folder {name} in --data"
        source = folder_source(folder, channels=1)
        good = [r for r in source.test if not r.anomalous]
        bad = [r for r in source.test if r.anomalous][::EVERY]
        sources[name] = source._replace(test=(*good, *bad))
    measure(sources)


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", None, "Folder with the data sets.", required=True)
    _WEIGHTS = flags.DEFINE_string("weights", "hub", "Weights of DeiT-Tiny.")
    cli.run(main)
