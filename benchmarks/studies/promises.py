"""Measure whether thresholds keep their promised false-positive rate, simulated and on images.

    python -m benchmarks.studies.promises [--data DATASETS --weights FILE]

1. Simulated good images, independent or in series, are judged by a nearest-neighbour detector in
   eight dimensions. The realised false-positive rate is compared with the promised one, on further
   images of the same series and on images of new series. "Before" holds out four blocks and counts
   images as independent. "Split" and "cross" hold out or cross-fit ten blocks with the design
   effect, or groups.
2. The coverage of the interval of the image AUROC is compared with that of the bootstrap that it
   replaced.
3. With `--data`, features of good images of grid and of magnetic tiles come from DeiT-Tiny. In 200
   random choices some images train and calibrate, and the others are new. `knn` is cross-fitted and
   held out. `vit_flow` is trained once, and the images that it has not seen are divided.

The result is written to results/promises.json.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from scipy import stats
from scipy.spatial import cKDTree

from benchmarks.harness import record
from recon_ad import cli
from recon_ad.config import load_config
from recon_ad.data import Record, folder_source
from recon_ad.data.arrays import resize, to_unit
from recon_ad.data.holdout import HoldOut, cross_holdout, split_holdout
from recon_ad.data.locate import check_data, find_category
from recon_ad.methods import build_method, knn
from recon_ad.metrics.auroc_interval import auroc_interval
from recon_ad.metrics.bootstrap import multiplicities
from recon_ad.metrics.conformal import (
    Promise,
    conformal_threshold,
    design_effect,
    surprising,
)
from recon_ad.metrics.ranking import auroc, levels

SEED = 0
RATES = (0.01, 0.05, 0.1)
SIZES = (20, 50, 100, 200, 500)  # good images
SERIES = ((None, 0.0), (20, 0.5), (20, 0.8), (10, 0.5), (10, 0.8))  # number, correlation
DRAWS, NEW, DIMENSIONS = 100, 1000, 8
COVERAGE = ((20, 40, 0.86), (30, 90, 0.96), (12, 30, 0.98), (8, 8, 0.96))
SPLITS, WANTED, CHOSEN = 200, 0.05, 100  # for real images
SIDE, MEMORY, CORESET = 224, 10_000, 1_000  # px, features


def _named(count: int) -> list[Record]:
    return [Record(f"{i:05d}", lambda: np.zeros(0)) for i in range(count)]


def _four_blocks(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the former split: a fifth is held out, in the middles of four stretches."""
    wanted = max(1, round(0.2 * count))
    blocks = min(4, wanted)
    held = []
    for i in range(blocks):
        start, stop = i * count // blocks, (i + 1) * count // blocks
        size = (i + 1) * wanted // blocks - i * wanted // blocks
        first = start + (stop - start - size) // 2
        held.extend(range(first, first + size))
    return np.setdiff1d(np.arange(count), held), np.array(held)


def _scores(train: np.ndarray, images: np.ndarray) -> np.ndarray:
    return cKDTree(train).query(images)[0]


def _promise(scores: np.ndarray, holdout: HoldOut, *, fpr: float) -> Promise:
    """Return the threshold and the promised rate, as `detector.thresholds` computes them."""
    blocks = np.array(holdout.blocks)
    groups = blocks if holdout.grouped else None
    effect = 1.0 if holdout.grouped else design_effect(scores, blocks)[1]
    return conformal_threshold(scores, fpr=fpr, effect=effect, groups=groups)


def _simulated(
    rng: np.random.Generator, count: int, series: int | None, correlation: float
) -> tuple[np.ndarray, list[Record], str, np.ndarray]:
    """Draw images of so many series.

    Returns:
      The images, their records, the regular expression of the series in their names, and further
      images of the same series.
    """
    images = rng.normal(size=(count, DIMENSIONS))
    if series is None:
        return images, _named(count), "", rng.normal(size=(NEW, DIMENSIONS))
    number = np.arange(count) * series // count
    centres = rng.normal(size=(series, DIMENSIONS))
    images = correlation**0.5 * centres[number] + (1 - correlation) ** 0.5 * images
    records = [
        record._replace(name=f"s{number[i]:02d}_{record.name}")
        for i, record in enumerate(_named(count))
    ]
    further = rng.normal(size=(NEW, DIMENSIONS))
    of_same = centres[rng.integers(series, size=NEW)]
    further = correlation**0.5 * of_same + (1 - correlation) ** 0.5 * further
    return images, records, r"s(\d+)", further


def simulation() -> list[dict[str, Any]]:
    """Return mean realised and promised rates over `DRAWS` sets of images, for each calibration."""
    rows = []
    for series, correlation in SERIES:
        for count in SIZES:
            rng = np.random.default_rng(SEED)
            found: dict[str, dict[float, list[tuple[float, float, float]]]] = {}
            for _ in range(DRAWS):
                images, records, group, further = _simulated(rng, count, series, correlation)
                new = rng.normal(size=(NEW, DIMENSIONS))  # one image from each new series
                for name, score, holdout, at in _ways(images, records, group):
                    both = _scores(at, further), _scores(at, new)
                    for fpr in RATES:
                        promise = (
                            conformal_threshold(score, fpr=fpr)
                            if holdout is None
                            else _promise(score, holdout, fpr=fpr)
                        )
                        realised = (float(np.mean(scores > promise.threshold)) for scores in both)
                        pairs = found.setdefault(name, {}).setdefault(fpr, [])
                        pairs.append((promise.fpr, *realised))
            for name, each in found.items():
                for fpr, pairs in each.items():
                    promised, same, other = np.mean(pairs, axis=0)
                    rows.append(
                        {
                            "series": series, "correlation": correlation, "images": count,
                            "way": name, "wanted": fpr, "promised": float(promised),
                            "realised_same_series": float(same),
                            "realised_new_series": float(other),
                            "standard_errors": (np.std(pairs, axis=0)[1:] / DRAWS**0.5).tolist(),
                        }
                    )  # fmt: skip
    return rows


def _ways(
    images: np.ndarray, records: list[Record], group: str
) -> Iterator[tuple[str, np.ndarray, HoldOut | None, np.ndarray]]:
    """Yield each way of calibrating.

    Yields:
      Its name, the scores of the good images, how they were held out, and the images with which
      new ones are compared.
    """
    train, held = _four_blocks(len(images))
    yield "before", _scores(images[train], images[held]), None, images[train]
    place = {record.name: i for i, record in enumerate(records)}
    for by in ("", group) if group else ("",):
        name = " by groups" if by else ""
        split = split_holdout(records, fraction=0.2, group=by, few=0, gap=0, min_side=1)
        train, held = ([place[r.name] for r in part] for part in (split.train, split.heldout))
        yield f"split{name}", _scores(images[train], images[held]), split, images[train]
        crossed = cross_holdout(records, group=by)
        blocks = np.array(crossed.blocks)
        scores = np.empty(len(images))
        for block in np.unique(blocks):
            scores[blocks == block] = _scores(images[blocks != block], images[blocks == block])
        yield f"cross{name}", scores, crossed, images


def coverage(draws: int = 4000) -> list[dict[str, Any]]:
    """Measure how often 95 % intervals contain the true image AUROC of normal scores."""
    rows = []
    for good, defective, true in COVERAGE:
        rng, ours, before = np.random.default_rng(SEED), [], []
        labels = np.arange(good + defective) >= good
        for i in range(draws):
            scores = rng.normal(size=len(labels))
            scores[labels] += 2**0.5 * stats.norm.ppf(true)
            low, high = auroc_interval(scores, labels)
            ours.append(low <= true <= high)
            if i < draws // 10:  # only a tenth of the draws, because the bootstrap is slow
                found = [
                    auroc(levels(np.repeat(scores, times), np.repeat(labels, times)))
                    for times in multiplicities(labels, seed=i, resamples=500)
                ]
                low, high = np.quantile(found, [0.025, 0.975])
                before.append(low <= true <= high)
        rows.append(
            {
                "good": good, "defective": defective, "auroc": true, "draws": draws,
                "covered": float(np.mean(ours)), "covered_by_bootstrap": float(np.mean(before)),
            }
        )  # fmt: skip
    return rows


def features_of(
    records: list[Record], weights: str, method: str
) -> tuple[Any, Any, np.ndarray, Callable[..., Any]]:
    """Return the method, its frozen weights, the features of the images, and the config."""
    spec = f"configs/folder.py:method={method},scale=cpu,side={SIDE},weights={weights}"
    config = load_config(spec).unlock()
    config.knn.memory, config.knn.coreset = MEMORY, CORESET
    built = build_method(config, channels=1)
    frozen, _ = built.pretrained()
    prepare = jax.jit(built.prepare)
    found = []
    for one in records:
        image = to_unit(resize(one.load(), (SIDE, SIDE)))[None]
        found.append(np.asarray(prepare(frozen, image))[0])
    return built, frozen, np.stack(found), config


@jax.jit
def _distances(features: jax.Array, keys: jax.Array, gone: jax.Array) -> jax.Array:
    """Return the largest distance of an image's features to the nearest key that is not gone."""
    squares = knn.squared_distances(features.reshape(-1, features.shape[-1]), keys)
    found = jnp.sqrt(jnp.min(jnp.where(gone[None], jnp.inf, squares), axis=1))
    return jnp.max(found)


def nearest(features: np.ndarray, chosen: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Build a memory bank of the chosen images as `knn` does; also return its features' images."""
    rng = np.random.default_rng(seed)
    each = -(-MEMORY // len(chosen))
    rows, image = [], []
    for place, i in enumerate(chosen):
        flat = features[i].reshape(-1, features.shape[-1])
        rows.append(flat[rng.permutation(len(flat))[:each]])
        image.extend([place] * len(rows[-1]))
    memory = np.concatenate(rows)
    count = min(CORESET, len(memory))
    at = np.asarray(knn.coreset(memory, seed=seed, filled=len(memory), count=count))
    return memory[at], np.array(image)[at]


def real_splits(records: list[Record], features: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yield a row for each random choice of images, cross-fitted and held out."""
    features = jnp.asarray(features)
    for seed in range(SPLITS):
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(len(records))[:CHOSEN])
        new = np.setdiff1d(np.arange(len(records)), chosen)
        some = [records[i] for i in chosen]
        place = {record.name: k for k, record in enumerate(some)}
        for name, holdout in (
            ("cross", cross_holdout(some)),
            ("split", split_holdout(some, fraction=0.2, few=0, gap=0, min_side=1)),
        ):
            train = chosen[[place[record.name] for record in holdout.train]]
            held = chosen[[place[record.name] for record in holdout.heldout]]
            keys, image = nearest(features, train, seed)
            blocks = np.array(holdout.blocks)
            nothing = np.zeros(len(keys), bool)
            scores = [
                _distances(features[i], keys, np.isin(image, np.flatnonzero(blocks == blocks[k])))
                if holdout.crossed
                else _distances(features[i], keys, nothing)
                for k, i in enumerate(held)
            ]
            new_scores = np.array([_distances(features[i], keys, nothing) for i in new])
            yield {"way": name} | _outcome(np.array(scores, np.float64), holdout, new_scores)


def _outcome(scores: np.ndarray, holdout: HoldOut, new: np.ndarray) -> dict[str, Any]:
    promise = _promise(scores, holdout, fpr=WANTED)
    stopped = int(np.sum(new > promise.threshold))
    p_value = surprising(stopped, len(new), promised=promise.fpr, units=promise.units)
    return {
        "promised": promise.fpr,
        "realised": stopped / len(new),
        "significant": p_value < 0.05,
        "significant_by_binomial": bool(stats.binom.sf(stopped - 1, len(new), promise.fpr) < 0.05),
    }


def flow_splits(records: list[Record], weights: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each random division of the images that `vit_flow` has not seen."""
    method, frozen, features, config = features_of(records, weights, "vit_flow")
    rng = np.random.default_rng(SEED)
    train = rng.permutation(len(records))[: len(records) // 2]
    state = jax.jit(method.init)(jax.random.key(SEED), features[:1])
    step, size = jax.jit(method.train_step), config.train.batch_size
    for k in range(config.train.steps):
        state, _ = step(state, features[rng.choice(train, size)], jax.random.key(k))
    variables = method.finish(frozen, state, ())
    score = jax.jit(lambda x: jnp.max(method.anomaly_map(variables, x)))
    rest = np.setdiff1d(np.arange(len(records)), train)
    scores = np.array(
        [score(to_unit(resize(records[i].load(), (SIDE, SIDE)))[None]) for i in rest], np.float64
    )
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(rest))
        held = np.sort(order[: len(rest) // 2])
        names = [records[rest[i]] for i in held]
        holdout = cross_holdout(names)._replace(crossed=False)
        yield {"way": "split"} | _outcome(scores[held], holdout, scores[order[len(rest) // 2 :]])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the splits and the share of splits significantly above the promise."""
    found = {}
    for way in dict.fromkeys(row["way"] for row in rows):
        mine = [row for row in rows if row["way"] == way]
        promised, realised = (
            float(np.mean([r[k] for r in mine])) for k in ("promised", "realised")
        )
        found[way] = {
            "splits": len(mine), "promised": promised, "realised": realised,
            "ratio": realised / promised,
            "significantly_above": float(np.mean([r["significant"] for r in mine])),
            "by_binomial_test": float(np.mean([r["significant_by_binomial"] for r in mine])),
        }  # fmt: skip
    return found


def main() -> int:
    """Run all parts for which images are available."""
    found: dict[str, Any] = {"seed": SEED, "draws": DRAWS}
    found["coverage"] = coverage()
    record.write("promises", found)
    found["simulation"] = simulation()
    record.write("promises", found)
    if not _DATA.value:
        return 0
    found["splits"] = {"images": CHOSEN, "side": SIDE, "memory": MEMORY, "coreset": CORESET}
    for name in ("grid", "magnetic_tile"):
        source = folder_source(find_category(check_data(Path(_DATA.value)), [name]), channels=1)
        good = [*source.train, *(r for r in source.test if not r.anomalous)]
        records = sorted(good, key=lambda record: record.name)
        _, _, features, _ = features_of(records, _WEIGHTS.value, "knn")
        found["splits"][name] = {"knn": summary(list(real_splits(records, features)))}
        record.write("promises", found)
        flow = functools.partial(flow_splits, records, _WEIGHTS.value)
        found["splits"][name]["vit_flow"] = summary(list(flow()))
        record.write("promises", found)
    return 0


if __name__ == "__main__":
    _DATA = flags.DEFINE_string("data", None, "Folder with the data sets.")
    _WEIGHTS = flags.DEFINE_string("weights", "hub", "Weights of DeiT-Tiny.")
    cli.run(main)
