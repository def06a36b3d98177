"""Run a table's cells one by one and store the finished ones.

`NAME.json` is written whole after each cell and is all that a later call needs: a cell in it is not
run again, here or on another machine. A cell that was stopped continues from its last checkpoint in
its folder below `runs`.
"""

import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from recon_ad.config import check_config, flatten, load_config
from recon_ad.data import Source
from recon_ad.data.build import build_source
from recon_ad.data.locate import check_data, find_category
from recon_ad.detector.jax_detector import Detector
from recon_ad.detector.older import with_later_fields
from recon_ad.errors import UserError
from recon_ad.evaluation.run import evaluate_workdir
from recon_ad.methods import WITH_ENCODER, build_method
from recon_ad.metrics.figures import FIGURES
from recon_ad.pretrained.weights import HUB
from recon_ad.runtime import files
from recon_ad.runtime.writer import read_log
from recon_ad.tables import page
from recon_ad.tables.base import Cell, Run, Table
from recon_ad.tables.watch import Watcher
from recon_ad.training.run import train
from recon_ad.training.same_run import differences, settings

logger = logging.getLogger("recon_ad")

# Entries of a run's protocol that are stored elsewhere in a cell.
ELSEWHERE = ("config", "notes", "training", "calibration", "pretrained", "hardware", "versions")


def run_table(
    table: Table,
    *,
    scale: str,
    workdir: Path,
    data: Path | None = None,
    weights: Path | None = None,
) -> list[Run]:
    """Run the unfinished cells; write `NAME.json`, `NAME.md` and `figures/` in the workdir.

    Args:
      table: Table to run.
      scale: "cpu", "long" or "paper".
      workdir: Folder for the results, created if absent.
      data: Folder in which the data sets are searched.
      weights: Folder with a folder of each encoder's name. None downloads the weights.

    Returns:
      The cells as stored in `NAME.json`.

    Raises:
      UserError: If a finished cell was run with another config than the present one, the table's
        file is damaged, or a config or folder is not usable.
    """
    cells = table.cells(scale, None if data is None else check_data(data))
    path = workdir / f"{table.name}.json"
    # All configs are made before the first run, so that a mistake shows at once.
    planned = {
        cell.name: (cell, *_config_of(cell, data, weights, scratch=workdir / "made"))
        for cell in cells
    }
    runs = _read(path, scale)
    for name, (_, config, _) in planned.items():
        if config is not None and name in runs and "reason" not in runs[name]:
            _check_same(path, runs[name], config)
    left = sum(name not in runs or "reason" in runs[name] for name in planned)
    if left and scale in table.hours:
        logger.info(
            "%s at --scale %s: %d of %d cells are left; all take at most %g hours on two cores",
            *(table.name, scale, left, len(planned), table.hours[scale]),
        )

    def keep(run: Run) -> None:
        runs[run["name"]] = run
        # In the table's order, followed by cells of earlier calls with other data sets.
        order = [*planned, *(name for name in runs if name not in planned)]
        files.write_json(path, {"scale": scale, "cells": [runs[n] for n in order if n in runs]})

    for name, (cell, config, reason) in planned.items():
        if name in runs and "reason" not in runs[name]:
            logger.info("%s is finished", name)
            continue
        if config is not None and cell.optional and scale in table.hours:
            reason = _no_time(cell, list(runs.values()), hours=table.hours[scale])
        if config is None or reason:
            logger.warning("%s: %s", name, reason)
            keep(_null(cell, reason))
            continue
        logger.info("%s: %s", name, cell.spec)
        if cell.made and not (workdir / "made" / cell.made.name).is_dir():
            folder = find_category(data, cell.folders)
            assert folder is not None  # otherwise there would be no config
            with files.fresh_directory(workdir / "made" / cell.made.name) as made:
                cell.made.make(folder, made)
        keep(_run(cell, config, workdir / "runs" / name, measure=table.measure))
        page.write(table, list(runs.values()), scale=scale, workdir=workdir)
        jax.clear_caches()  # the next cell compiles its own programs
    finished = json.loads(path.read_text())["cells"]
    page.write(table, finished, scale=scale, workdir=workdir)
    return finished


def _config_of(
    cell: Cell, data: Path | None, weights: Path | None, *, scratch: Path
) -> tuple[ConfigDict | None, str]:
    """Return the cell's config and ""; or None (or the config) and why the cell cannot be run.

    Images that are made from the user's have a folder in `scratch`.
    """
    config = load_config(cell.spec)
    config.update_from_flattened_dict(dict(cell.fields))
    wanted = {cell.dataset: cell.folders} if cell.folders else dict(cell.together)
    if wanted:
        found = {name: find_category(data, folders) for name, folders in wanted.items()}
        if data is None or None in found.values():
            missing = ", ".join(name for name, folder in found.items() if folder is None)
            place = (
                "no --data was given"
                if data is None
                else f"{missing} was not found in --data"
                if cell.together
                else "none was found in --data"
            )
            return None, f"the images must be supplied by the user, but {place}: {cell.absent}"
        config.data.source, config.data.category = "folder", ""
        if cell.together:
            config.data.path = str(data)
            config.data.category = "+".join(
                os.path.relpath(folder, data) for folder in found.values()
            )
        elif cell.made:
            config.data.path = str(scratch / cell.made.name)
            for field, file in cell.made.files.items():
                config.update_from_flattened_dict({field: str(scratch / cell.made.name / file)})
        else:
            config.data.path = str(found[cell.dataset])
    if weights and config.method.name in WITH_ENCODER and config.encoder.weights == HUB:
        folder = weights / config.encoder.name
        if not folder.exists():
            return None, (
                f"{config.encoder.name} was not found in the folder of --weights; put its "
                "model.safetensors there, in a folder of that name."
            )
        config.encoder.weights = str(folder)
    check_config(config)
    build_method(config, channels=config.data.channels or 1)
    return config, ""


def _content(config: ConfigDict) -> dict[str, Any]:
    """Return the settings of a cell, independent of the machine."""
    return settings(json.loads(config.to_json()))


def _read(path: Path, scale: str) -> dict[str, Run]:
    """Return the cells of an earlier call, by name."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
        kept, runs = content["scale"], {run["name"]: run for run in content["cells"]}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}: {error}); choose another --workdir."
        ) from None
    if kept != scale:
        raise UserError(
            f"{path} holds the table at --scale {kept}; choose another --workdir for {scale}."
        )
    return runs


def _check_same(path: Path, run: Run, config: ConfigDict) -> None:
    # Fields that were added or removed since the cell was run are not compared.
    before, now = flatten(with_later_fields(run["config"])), flatten(_content(config))
    common = before.keys() & now.keys()
    changed = differences(*({name: c[name] for name in common} for c in (before, now)))
    if changed:
        raise UserError(
            f"{path} holds {run['name']}, which was run with another config "
            f"({'; '.join(changed[:5])}); choose another --workdir, or, to run it again, delete "
            f"that cell from the file, and {path.parent / 'runs' / run['name']}."
        )


def _no_time(cell: Cell, runs: Sequence[Run], *, hours: float) -> str:
    """Return why an optional cell is left out, or "" if there is time for it.

    Its time is estimated by the longest finished cell on the same images, or else with the same
    method, or else by the longest of all.
    """
    done = [run for run in runs if "reason" not in run]
    spent = sum(run["wall_seconds"] for run in done) / 3600
    alike = [run for run in done if run["dataset"] == cell.dataset]
    alike = alike or [run for run in done if run["method"] == cell.method] or done
    needed = max((run["wall_seconds"] for run in alike), default=0.0) / 3600
    if spent + needed <= hours:
        return ""
    return (
        f"left out: {60 * spent:.0f} of the table's {60 * hours:.0f} minutes at this scale are "
        f"spent, and this cell would take about {60 * needed:.0f} more."
    )


def _described(cell: Cell) -> Run:
    paper: dict[str, Any] = {**cell.paper, "source": cell.source} if cell.paper else {}
    return {
        "name": cell.name,
        "part": cell.part,
        "dataset": cell.dataset,
        "method": cell.method,
        "variant": cell.variant,
        "seed": cell.seed,
        "paper": paper,
        "protocol": list(cell.protocol),
    }


def _null(cell: Cell, reason: str) -> Run:
    """Return a cell that was not run, with the reason."""
    return _described(cell) | {"reason": reason, "steps": None} | dict.fromkeys(FIGURES)


def _run(
    cell: Cell, config: ConfigDict, workdir: Path, *, measure: Callable[[Detector, Source], Run]
) -> Run:
    """Train a cell, or continue its training, and evaluate it."""
    try:
        source = build_source(config)
        watcher = Watcher(workdir / "watched.json", config, source, iou=cell.iou_watched)
        detector = train(config, workdir, source=source, watch=watcher)
        metrics = _evaluated(workdir, detector, source)
    except UserError as error:  # a broken set, or missing weights, must not stop other cells
        return _null(cell, str(error))
    except FloatingPointError as error:  # a diverged training is a result too
        return _null(cell, f"training failed: {error}")
    measured = measure(detector, source)
    pretrained = {k: v for k, v in detector.record["pretrained"].items() if k != "weights"}
    watcher.keep()
    protocol = metrics["protocol"]
    log = read_log(workdir / "log.jsonl")
    return (
        _described(cell)
        | {"steps": config.train.steps}
        | {key: metrics[key] for key in FIGURES}
        | {key: metrics[key] for key in ("missing", "intervals", "truths")}
        | {"promise_broken": metrics.get("decisions", {}).get("promise_broken", False)}
        | _each_set(cell, config, metrics)
        | measured
        | ({"seconds_to_iou": watcher.summary()} if cell.iou_watched is not None else {})
        | {
            "training": protocol["training"],
            "heldout": next((e for e in reversed(log) if "heldout_loss" in e), None),
            "curve": watcher.curve(log),
            "notes": protocol["notes"],
            "evaluation": {k: v for k, v in protocol.items() if k not in ELSEWHERE},
            "config": _content(config),
            **({"pretrained": pretrained} if pretrained else {}),
            "data": json.loads((workdir / "data.json").read_text()),
            "hardware": protocol["hardware"],
            "versions": protocol["versions"],
            "wall_seconds": watcher.wall_seconds(),
        }
    )


def _each_set(cell: Cell, config: ConfigDict, metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of each set that one model has learnt, by the sets' names."""
    if not cell.together:
        return {}
    # In the order of the folders in `_config_of`.
    folders = [Path(place).name for place in config.data.category.split("+")]
    names = zip(cell.together, folders, strict=True)
    per_category = metrics["per_category"]
    return {
        "per_category": {name: per_category[folder] for name, folder in names},
        "category_mean": metrics["category_mean"],
    }


def _evaluated(workdir: Path, detector: Detector, source: Source) -> dict[str, Any]:
    """Return the metrics of a previous evaluation, or evaluate now."""
    if (workdir / "metrics.json").is_file():  # written last
        return json.loads((workdir / "metrics.json").read_text())
    return evaluate_workdir(workdir, detector=detector, source=source, export=False)
