"""Sets and rows of finished runs that may be compared, and the settings in which they differ.

Runs on the same images (or images of the same generator), against the same truth, form a set.
Figures are compared only within a set. Runs of a set that differ only in the seed form one row. All
of this is read from the runs' files; nothing is computed again.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from recon_ad.config import flatten
from recon_ad.data import GOOD
from recon_ad.detector.older import with_later_fields
from recon_ad.errors import UserError
from recon_ad.metrics.figures import AVERAGED, FIGURES, RANKED
from recon_ad.metrics.seeds import Mean, clearly_best, mean_over_seeds
from recon_ad.report.wording import calls_all_defective, is_number, value_of
from recon_ad.runtime.files import sha256
from recon_ad.runtime.writer import read_log
from recon_ad.training.same_run import settings

KEYS = (*FIGURES, *(f"category_mean.{key}" for key in AVERAGED))

# Entries of a run's protocol that make two figures of one name different measurements.
RULES: Mapping[str, str] = {
    "evaluated_on": "name of the test images",
    "resolution": "resolution",
    "crop": "tile",
    "part": "alignment",
    "score_rule": "score rule",
    "pixel_metrics": "rule of the pixel figures",
    "checkpoint": "choice of the checkpoint",
    "calibration.heldout": "images of the calibration",
    "calibration.fpr_wanted": "requested false-positive rate",
    "classifier.features": "features of the classifier",
    "classifier.threshold": "threshold of the classifier",
}
PLACES: Mapping[str, str] = {
    "hardware": "hardware (do not compare times)",
    "versions": "software",
}


class Judged(NamedTuple):
    """Scores and decisions of a run on its test images, in their order.

    Attributes:
      score: Raw score of each image.
      anomalous: True where the image is defective.
      right: True where the decision at the calibrated threshold is correct.
    """

    score: Float[np.ndarray, " n"]
    anomalous: Bool[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]


class Run(NamedTuple):
    """Content of a run's folder.

    Attributes:
      folder: Folder of the run.
      config: Content of config.json.
      data: Content of data.json.
      metrics: Content of metrics.json. None if the run is not finished.
      log: Lines of log.jsonl.
      tested: Digest of the test images' names and defect types.
      judged: Scores and decisions of the test images. None if the run is not finished.
      unfinished: Progress of an unfinished run, in words; "" if the run is finished.
    """

    folder: Path
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    metrics: Mapping[str, Any] | None
    log: Sequence[Mapping[str, Any]]
    tested: str
    judged: Judged | None
    unfinished: str

    @property
    def seed(self) -> int:
        """The seed of everything random."""
        return self.config["seed"]


class Row(NamedTuple):
    """Runs that differ only in the seed.

    Attributes:
      runs: Runs, sorted by seed.
      settings: Common settings, by dotted names.
      figures: Means over the seeds. Figures that no run has are absent.
    """

    runs: Sequence[Run]
    settings: Mapping[str, Any]
    figures: Mapping[str, Mean]


class Set(NamedTuple):
    """Rows that may be compared.

    Attributes:
      name: Name of the images.
      rows: Rows in the order in which their first runs were given.
      columns: Smallest choice of settings that distinguishes the rows.
      along: Settings that differ too, but only together with those.
      best: Index of the row whose interval lies above all others, by figure.
      warnings: Sentences on differences between the runs' protocols.
    """

    name: str
    rows: Sequence[Row]
    columns: Sequence[str]
    along: Sequence[str]
    best: Mapping[str, int]
    warnings: Sequence[str]


class Comparison(NamedTuple):
    """Comparison of all given runs.

    Attributes:
      sets: Sets of runs on the same images.
      unfinished: Runs without figures.
      messages: Sentences to be shown first.
    """

    sets: Sequence[Set]
    unfinished: Sequence[Run]
    messages: Sequence[str]


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
      UserError: If the folder is not a run, or one of its files is damaged.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a run, as it has no config.json; give the --workdir of "
            "recon_ad.train."
        )
    config = _json(folder / "config.json")
    # Absent where training stopped before it began.
    data = _json(folder / "data.json") if (folder / "data.json").is_file() else {}
    try:
        log = read_log(folder / "log.jsonl")
    except ValueError as error:
        raise UserError(f"{folder / 'log.jsonl'} is damaged ({error}); train again.") from None
    metrics, tested, judged, unfinished = None, "", None, ""
    if (folder / "metrics.json").is_file():  # written last
        metrics = _json(folder / "metrics.json")
        tested, judged = _scores(folder / "scores.csv")
    elif (folder / "detector" / "detector.json").is_file():
        unfinished = f"not evaluated; run python -m recon_ad.evaluate --workdir {folder}"
    else:
        done = log[-1]["step"] if log else 0
        unfinished = f"at step {done:,} of {config['train']['steps']:,}"
    return Run(folder, config, data, metrics, log, tested, judged, unfinished)


def runs_in(folder: Path) -> list[Path]:
    """Return the folder itself if it is a run, or the runs directly in it, as in a sweep.

    Raises:
      UserError: If the folder is not a run and contains none.
    """
    if (folder / "config.json").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    if not found:
        raise UserError(
            f"{folder} is not a run and contains none, as no config.json was found; give the "
            "--workdir of recon_ad.train or recon_ad.sweep."
        )
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); run that training or evaluation again, or leave it out."
        ) from None


def _scores(path: Path) -> tuple[str, Judged]:
    """Return a digest of the images' names and defect types, and their scores and decisions."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        names = [[row["path"], row["defect"]] for row in rows]
        score = np.array([float(row["score"]) for row in rows], np.float64)
        decided = np.array([row["anomalous"] == "1" for row in rows], bool)
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); to write it again, run python -m recon_ad.evaluate "
            f"--workdir {path.parent}."
        ) from None
    anomalous = np.array([defect != GOOD for _, defect in names], bool)
    return sha256(json.dumps(names).encode()), Judged(score, anomalous, decided == anomalous)


def compare(runs: Sequence[Run]) -> Comparison:
    """Sort runs into sets and rows.

    Raises:
      UserError: If no run is finished.
    """
    finished = [run for run in runs if run.metrics is not None]
    unfinished = [run for run in runs if run.metrics is None]
    if not finished:
        stories = "; ".join(f"{run.folder} {run.unfinished}" for run in unfinished[:5])
        raise UserError(f"none of these runs is finished ({stories}); wait, or run them first.")
    messages = [f"{run.folder} is unfinished and left out: {run.unfinished}." for run in unfinished]
    by_images: dict[tuple, dict[str, list[Run]]] = {}
    for run in finished:
        kinds = by_images.setdefault(_images(run), {})
        kinds.setdefault(json.dumps(_kind(run), sort_keys=True), []).append(run)
    sets = []
    for kinds in by_images.values():
        rows = []
        for same in kinds.values():
            seeds: dict[int, Run] = {}
            for run in same:
                if run.seed in seeds:
                    messages.append(
                        f"{run.folder} is left out: it has the same config and seed as "
                        f"{seeds[run.seed].folder}."
                    )
                else:
                    seeds[run.seed] = run
            rows.append(_row([seeds[seed] for seed in sorted(seeds)]))
        sets.append(_set(rows))
    if len(sets) > 1:
        lost = any(run.metrics["protocol"].get("not_registered") for run in finished)
        messages.insert(
            0,
            f"These runs are not all comparable: they are on {len(sets)} different sets of images "
            "(or of masks of the true defects). Each set has a table, and nothing is compared "
            "between sets."
            + " Images in which a run did not find the part are excluded from its figures."
            * lost,
        )
    return Comparison(_told_apart(sets), unfinished, messages)


def _images(run: Run) -> tuple:
    """Return the facts that must be equal before figures can be compared at all."""
    protocol, data = run.metrics["protocol"], run.config["data"]
    # Each seed draws different images from one generator.
    drawn = data["source"] == "synthetic"
    return (
        data["name"] if drawn else run.data["fingerprint"],
        run.data["good_images"],
        run.tested,
        data["truth"] if run.metrics["truths"] else "",
        protocol["aupro_fpr_limit"],
    )


def _kind(run: Run) -> dict[str, Any]:
    """Return all settings but the seed, by dotted names."""
    found = flatten(settings(with_later_fields(run.config)))
    del found["seed"]
    if pretrained := run.metrics["protocol"].get("pretrained"):
        # The file's content counts, not its path or the checksum in the config.
        content = pretrained.get("sha256")  # random weights have none
        found["encoder.weights"] = f"sha256 {content[:12]}" if content else pretrained["weights"]
        del found["encoder.sha256"]
    return found


def _row(runs: Sequence[Run]) -> Row:
    figures = {}
    for key in KEYS:
        values = [value for run in runs if is_number(value := figure_of(run, key))]
        if values:
            figures[key] = mean_over_seeds(values)
    return Row(runs, _kind(runs[0]), figures)


def figure_of(run: Run, key: str) -> Any:
    """Return a figure of a finished run; None if calling every image defective reaches it too."""
    assert run.metrics is not None
    if key == "image_f1_max" and calls_all_defective(run.metrics):
        return None
    return value_of(run.metrics, key)


def _set(rows: Sequence[Row]) -> Set:
    columns, along = _differing(rows)
    best = {}
    for key in KEYS:
        means = {i: row.figures[key] for i, row in enumerate(rows) if key in row.figures}
        # With patches of another size the figure is not comparable.
        alike = key != "patch_auroc" or len({str(r.settings["data.patch_size"]) for r in rows}) == 1
        if key.rpartition(".")[2] in RANKED and alike and (row := clearly_best(means)) is not None:
            best[key] = row
    name = rows[0].runs[0].metrics["protocol"]["evaluated_on"]
    return Set(name, rows, columns, along, best, _warnings(rows))


def _differing(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Return the settings that distinguish the rows, and those that differ along with them."""
    # The method first, as the others often follow from it; then in the config's order.
    names = list(dict.fromkeys(["method.name", *(name for row in rows for name in row.settings)]))
    columns: list[str] = []
    along: list[str] = []
    for name in names:
        values = [json.dumps(row.settings.get(name)) for row in rows]
        known = [json.dumps([row.settings.get(column) for column in columns]) for row in rows]
        if len(set(zip(known, values, strict=True))) > len(set(known)):
            columns.append(name)
        elif len({v for v, row in zip(values, rows, strict=True) if name in row.settings}) > 1:
            along.append(name)
    return columns, along


def _warnings(rows: Sequence[Row]) -> list[str]:
    """Return the differences in a set's protocols, and in hardware and software."""
    found = []
    for start, entries in (("Different protocols", RULES), ("Different machines", PLACES)):
        for key, label in entries.items():
            said = _by_value(rows, key)
            if len(said) > 1:
                values = "; ".join(f"{value} ({where})" for value, where in said.items())
                found.append(f"{start}, {label}: {values}.")
    return found + _drawn(rows)


def _drawn(rows: Sequence[Row]) -> list[str]:
    """Return the notes on generated images."""
    runs = [run for row in rows for run in row.runs]
    if runs[0].config["data"]["source"] != "synthetic":
        return []
    fingerprints: dict[int, set[str]] = {}
    for run in runs:
        fingerprints.setdefault(run.seed, set()).add(run.data["fingerprint"])
    found = ["Each seed draws its own images, so the intervals cover the choice of images too."]
    torn = [str(seed) for seed, seen in fingerprints.items() if len(seen) > 1]
    if torn:
        found.append(
            f"Different images: those of seed {', '.join(torn)} were not drawn alike in all rows; "
            "train the runs of other versions again."
        )
    return found


def _by_value(rows: Sequence[Row], key: str) -> dict[str, str]:
    """Return which rows have which value of a protocol's entry."""
    where: dict[str, dict[int, None]] = {}
    for number, row in enumerate(rows, 1):
        for run in row.runs:
            value = value_of(run.metrics["protocol"], key)
            value = "not recorded" if value is None else value
            if isinstance(value, Mapping):
                value = ", ".join(f"{k} {v}" for k, v in value.items())
            where.setdefault(str(value), {})[number] = None
    return {
        value: ("row " if len(numbers) == 1 else "rows ") + ", ".join(map(str, numbers))
        for value, numbers in where.items()
    }


def _told_apart(sets: Sequence[Set]) -> list[Set]:
    """Add numbers to the names that several sets share, so that all names differ."""
    names = [s.name for s in sets]
    return [
        s._replace(name=f"{s.name} ({names[: i + 1].count(s.name)})")
        if names.count(s.name) > 1
        else s
        for i, s in enumerate(sets)
    ]
