"""Judges images: a file or a folder in, a table and overlays out.

    python -m recon_ad.predict --detector D/detector --input FILE-or-FOLDER --output O [--roi PATH]
    python -m recon_ad.predict --onnx M.onnx [--runtime openvino] --input … --output …

writes O/predictions.csv, O/predictions.jsonl and O/overlays/. A file that cannot be read, or in
which the part is not found, is a row with its error, and the exit status is then 3. With `--onnx`
an exported model judges, without JAX. With `--roi`, one image or a folder laid out as the input is,
only pixels that are white in it count.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.data.truth import Regions
from recon_ad.detector.image_files import (
    BROKEN,
    FIELDS,
    NOT_REGISTERED,
    REJECT,
    FileResult,
    inputs,
    judge_and_draw,
)
from recon_ad.detector.open import detector_flags
from recon_ad.errors import UserError
from recon_ad.runtime import files
from recon_ad.runtime.progress import progress

NOT_JUDGED = 3  # exit status when some file could not be judged
TOLD = 5  # files that were not judged, of each kind, of which the terminal says why


def summary(judged: Sequence[FileResult], output: Path) -> str:
    """How many images are what, and of the first that were not judged, why."""
    counts = Counter(one.outcome for one in judged)
    anomalous, lost, broken = (counts[what] for what in (REJECT, NOT_REGISTERED, BROKEN))
    lines = [
        f"{len(judged)} images: {anomalous} anomalous, {lost + broken} not judged"
        f"{f' ({lost} not registered)' if lost else ''}; see {output}"
    ]
    for what, count in ((NOT_REGISTERED, lost), (BROKEN, broken)):
        rows = [one.row for one in judged if one.outcome == what]
        for row in rows[:TOLD]:
            # What is wrong with a file begins with its path.
            named = row["path"] in row["error"]
            lines.append(f"  {row['error']}" if named else f"  {row['path']}: {row['error']}")
        if count > TOLD:
            lines.append(f"  and {count - TOLD} more {what}: see {output / 'predictions.csv'}")
    return "\n".join(lines)


def main() -> int:
    """Runs the command."""
    detector = _OPENED()
    output = Path(_OUTPUT.value)
    given = Path(_INPUT.value)
    if not given.exists() and not given.is_symlink():
        raise UserError(f"there is no file or folder {given}.")
    root = given if given.is_dir() else given.parent
    regions = Regions(root, Path(_ROI.value) if _ROI.value else None)
    images = [file for file in inputs(given, output=output) if not regions.is_region(file)]
    without = sum(regions.of(file) is None for file in images)
    if _ROI.value and without == len(images):
        raise UserError(
            f"{_ROI.value} has a region of interest for none of the images: lay it out as "
            f"{given} is, or give one image for all."
        )
    if regions and without:
        print(f"{without} of {len(images)} images without a region of interest: all pixels count")
    if not regions and detector.calibrated_on_regions:
        print("the thresholds are of regions of interest, and none is given: see --roi")
    judged = [
        judge_and_draw(
            detector,
            file.relative_to(root).as_posix(),
            file,
            regions=regions,
            overlays=output / "overlays",
        )
        for file in progress(images, "prediction")
    ]
    rows = [one.row for one in judged]
    table = io.StringIO()
    writer = csv.DictWriter(table, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # As in JSON: true and false, and an empty field for what is not known.
        writer.writerow({k: json.dumps(v) if isinstance(v, bool) else v for k, v in row.items()})
    files.write_text(output / "predictions.csv", table.getvalue())
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write_text(output / "predictions.jsonl", lines)
    print(summary(judged, output))
    return NOT_JUDGED if any(row["error"] for row in rows) else 0


if __name__ == "__main__":
    _OPENED = detector_flags()
    _INPUT = flags.DEFINE_string("input", None, "Image, or folder of images.", required=True)
    _ROI = flags.DEFINE_string("roi", "", "Region of interest: an image, or a folder of them.")
    _OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.", required=True)
    cli.run(main)
