"""Predictions of many files: a row is written as soon as its image is judged.

`predictions.csv` and `predictions.jsonl` grow by a row for each image. A journal beside them allows
an interrupted run of the same detector on the same files to resume; it is deleted when all are
judged.
"""

import csv
import io
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from recon_ad.data.truth import Regions
from recon_ad.detector.image_files import FIELDS, FileResult, inputs, judge_and_draw
from recon_ad.detector.inference import Inference
from recon_ad.detector.submission import Submission
from recon_ad.errors import UserError
from recon_ad.runtime import files
from recon_ad.runtime.files import plain_cell
from recon_ad.runtime.progress import progress
from recon_ad.runtime.waiting import exclusive_lock

CSV, JSONL, JOURNAL = "predictions.csv", "predictions.jsonl", ".predictions.journal"
LOCK = ".predictions.lock"

logger = logging.getLogger("recon_ad")


def predict_files(
    detector: Inference,
    given: Path,
    output: Path,
    *,
    identity: str,
    roi: Path | None = None,
    submission: Path | None = None,
    form: str = "",
) -> list[FileResult]:
    """Judge an image or a folder of them and write the tables and overlays.

    Args:
      detector: Calibrated detector.
      given: Path of the image or the folder.
      output: Folder of the results.
      identity: Digest of the detector, see `recon_ad.detector.open.identity`.
      roi: Region of interest, one image or a folder laid out as `given` is.
      submission: Folder for maps and masks of the private images of MVTec AD 2; no others are
        judged then.
      form: Form of the anomaly maps beside the overlays, one of `maps.FORMS`; "" writes none.

    Returns:
      A result for each image, without its pictures, in the order of the names.

    Raises:
      UserError: If there is no image, `roi` fits none of them, or another process writes there.
    """
    root = given if given.is_dir() else given.parent
    regions = Regions(root, roi)
    maps = Submission(submission, given) if submission else None
    found = maps.images() if maps else inputs(given, output=output)
    images = [file for file in found if not regions.is_region(file)]
    _check_regions(regions, images, given=given, roi=roi, of_regions=detector.calibrated_on_regions)
    names = {file: file.relative_to(root).as_posix() for file in images}
    keys = {names[file]: _key(file, regions) for file in images}
    run = {"detector": identity, "input": str(given.resolve())}
    run |= {"roi": roi and str(roi.resolve()), "maps": form}
    run |= {"submission": submission and str(submission.resolve())}
    with exclusive_lock(output / LOCK, leave=False):
        kept = _read_journal(output / JOURNAL, run, keys)
        if kept:
            logger.info("%d of %d images were judged before", len(kept), len(images))
        results: dict[str, FileResult] = {}
        with _tables(output, run, keys, kept) as add:
            for file in progress(images, "prediction"):
                name = names[file]
                results[name] = kept.get(name) or judge_and_draw(
                    detector,
                    name,
                    file,
                    regions=regions,
                    overlays=output / "overlays",
                    submission=maps,
                    form=form,
                )
                if name not in kept:
                    add(results[name])
        if kept:  # kept rows come first
            _write_tables(output, results.values())
        (output / JOURNAL).unlink()
    return list(results.values())


def _check_regions(
    regions: Regions, images: Sequence[Path], *, given: Path, roi: Path | None, of_regions: bool
) -> None:
    without = sum(regions.of(file) is None for file in images)
    if roi and without == len(images):
        raise UserError(
            f"{roi} has a region of interest for none of the images: lay it out as {given} is, or "
            "give one image for all."
        )
    if regions and without:
        print(f"{without} of {len(images)} images without a region of interest: all pixels count")
    if not regions and of_regions:
        print("the thresholds are of regions of interest, and none is given: see --roi")


def _key(file: Path, regions: Regions) -> list[int]:
    """Return the properties that distinguish an image and its region from others."""
    key = []
    for path in (file, regions.file_of(file)):
        try:
            status = path.stat() if path else None
        except OSError:  # its row has the reason
            status = None
        fields = ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
        key += [getattr(status, field) if status else -1 for field in fields]
    return key


def _csv_line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _csv_row(row: Mapping[str, Any]) -> str:
    """Return a line of the table with JSON's true and false, and nothing for unknown values."""
    cells = [json.dumps(v) if isinstance(v, bool) else v for v in (row[k] for k in FIELDS)]
    return _csv_line([plain_cell(v) if isinstance(v, str) else v for v in cells])


def _json_row(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _write_tables(output: Path, results: Iterable[FileResult]) -> None:
    rows = [one.row for one in results]
    files.write_text(output / CSV, _csv_line(FIELDS) + "".join(map(_csv_row, rows)))
    files.write_text(output / JSONL, "".join(map(_json_row, rows)))


def _journal_line(result: FileResult, key: list[int]) -> str:
    content = {"key": key, "row": result.row, "outcome": result.outcome}
    return json.dumps(content | {"confidence": result.confidence}) + "\n"


def _read_journal(
    path: Path, run: Mapping[str, Any], keys: Mapping[str, list[int]]
) -> dict[str, FileResult]:
    """Return results of an interrupted run of the same detector, for unchanged files."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text()
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        first, *lines = (json.loads(line) for line in whole)
        if first != run:
            return {}
        return {
            line["row"]["path"]: FileResult(
                line["row"], None, b"", line["outcome"], line["confidence"]
            )
            for line in lines
            if keys.get(line["row"]["path"]) == line["key"]
        }
    except (ValueError, KeyError, TypeError):  # damaged: all are judged again
        return {}


@contextmanager
def _tables(
    output: Path,
    run: Mapping[str, Any],
    keys: Mapping[str, list[int]],
    kept: Mapping[str, FileResult],
) -> Iterator[Callable[[FileResult], None]]:
    """Begin the tables with the rows that are kept; yield a function that adds one."""
    _write_tables(output, kept.values())
    lines = [_journal_line(one, keys[name]) for name, one in kept.items()]
    files.write_text(output / JOURNAL, json.dumps(run) + "\n" + "".join(lines))
    with (
        _appended(output / CSV) as table,
        _appended(output / JSONL) as objects,
        _appended(output / JOURNAL) as journal,
    ):

        def add(result: FileResult) -> None:
            table.write(_csv_row(result.row))
            objects.write(_json_row(result.row))
            journal.write(_journal_line(result, keys[result.row["path"]]))
            for file in (table, objects, journal):
                file.flush()

        yield add


def _appended(path: Path) -> TextIO:
    return path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
