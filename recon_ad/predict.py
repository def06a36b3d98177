"""Judges images: a file or a folder in, a table and overlays out.

    python -m recon_ad.predict --detector D/detector --input FILE-or-FOLDER --output O

writes O/predictions.csv, O/predictions.jsonl and O/overlays/. A file that cannot be read is a row
with its error, and the exit status is then 3.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from recon_ad import cli
from recon_ad.data.decode import decode_image
from recon_ad.data.folder import list_images
from recon_ad.data.pipeline import to_unit
from recon_ad.detector import Detector, count_regions, load
from recon_ad.errors import UserError
from recon_ad.report.pictures import encode, outlined, rgb
from recon_ad.runtime import files

FIELDS = ("path", "score", "threshold", "anomalous", "regions", "error")
BROKEN = 3  # exit status when some file could not be judged


def inputs(path: Path) -> Iterator[tuple[str, Path]]:
    """(name, file) of one image, or of all images in a folder and below it, sorted."""
    if not path.exists():
        raise UserError(f"there is no file or folder {path}.")
    if path.is_file():
        yield path.name, path
        return
    found = list_images(path)
    if not found:
        raise UserError(f"{path} holds no images.")
    for file in found:
        yield file.relative_to(path).as_posix(), file


def judge(detector: Detector, name: str, file: Path, *, overlays: Path) -> dict[str, Any]:
    """One row; the overlay is written beside."""
    row: dict[str, Any] = dict.fromkeys(FIELDS)
    row["path"] = name
    try:
        channels = detector.channels if detector.channels in (1, 3) else None
        image = decode_image(file, channels=channels)
        prediction = detector.predict(image, reconstruct=False)
    except UserError as error:
        row["error"] = str(error)
        return row
    row |= {
        "score": float(prediction.score),
        "threshold": float(detector.thresholds.image),
        "anomalous": bool(prediction.label),
        "regions": count_regions(prediction.mask),
    }
    drawn = outlined(rgb(to_unit(image)), truth=None, mask=prediction.mask)
    files.write_bytes(overlays / f"{name}.png", encode(drawn, quality=None))
    return row


def main() -> int:
    """The command."""
    detector = load(_DETECTOR.value)
    output = Path(_OUTPUT.value)
    rows = [
        judge(detector, name, file, overlays=output / "overlays")
        for name, file in inputs(Path(_INPUT.value))
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, FIELDS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        # As in JSON: true and false, and an empty field for what is not known.
        writer.writerow({k: json.dumps(v) if isinstance(v, bool) else v for k, v in row.items()})
    files.write_text(output / "predictions.csv", table.getvalue())
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    files.write_text(output / "predictions.jsonl", lines)
    broken = sum(row["error"] is not None for row in rows)
    anomalous = sum(row["anomalous"] is True for row in rows)
    print(f"{len(rows)} images: {anomalous} anomalous, {broken} not readable; see {output}")
    return BROKEN if broken else 0


if __name__ == "__main__":
    _DETECTOR = flags.DEFINE_string("detector", None, "Detector directory.", required=True)
    _INPUT = flags.DEFINE_string("input", None, "Image, or folder of images.", required=True)
    _OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.", required=True)
    cli.run(main)
