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
from typing import Any, NamedTuple

import numpy as np
from absl import flags
from jaxtyping import Shaped

from recon_ad import cli
from recon_ad.alignment.part import NotRegistered
from recon_ad.data.arrays import given_range, to_unit
from recon_ad.data.decode import SUFFIXES, decode_image
from recon_ad.data.listing import files_below
from recon_ad.data.truth import Regions
from recon_ad.errors import UserError
from recon_ad.inference import Inference
from recon_ad.line.store import BROKEN, GOOD, NOT_REGISTERED, REJECT
from recon_ad.loading import detector_flags
from recon_ad.ops.masks import count_regions
from recon_ad.report.pictures import encode, outlined, rgb
from recon_ad.runtime import files
from recon_ad.runtime.progress import told

FIELDS = ("path", "score", "threshold", "anomalous", "regions", "error", "defect_probability")
NOT_JUDGED = 3  # exit status when some file could not be judged
TOLD = 5  # files that were not judged, of each kind, of which the terminal says why


def inputs(path: Path, *, output: Path) -> list[Path]:
    """One image, or all images in a folder and below it, sorted; tells of other files.

    The command's own output and the truth masks of a data set are not judged.
    """
    if not path.is_dir():
        return [path]
    apart = [output.resolve()]
    if (path / "test").is_dir():
        apart.append((path / "ground_truth").resolve())
    found = [
        file
        for file in files_below(path)
        if not any(file.parent.resolve().is_relative_to(folder) for folder in apart)
    ]
    images = [file for file in found if file.suffix.lower() in SUFFIXES]
    if not images:
        raise UserError(f"{path} holds no images ({', '.join(sorted(SUFFIXES))}).")
    if len(images) < len(found):
        print(f"{len(found) - len(images)} other files in {path} left out for their suffix")
    return images


def decoded(detector: Inference, file: Path) -> Shaped[np.ndarray, "h w c"]:
    """The image with the detector's channels and range; raises as `decode_image`."""
    return decode_image(
        file,
        channels=detector.plan.channels,
        input_range=given_range(detector.plan.input_range),
    )


class Judged(NamedTuple):
    """What there is to tell of a file.

    Attributes:
      row: its fields, `error` alone where it could not be judged.
      image: decoded; None where that failed.
      overlay: a PNG of the image with the mask's outlines; b"" where there is none.
      outcome: see `recon_ad.line.store`.
      confidence: of the registration; None without one.
      cause: why it is broken; None else.
    """

    row: dict[str, Any]
    image: Shaped[np.ndarray, "h w c"] | None
    overlay: bytes
    outcome: str
    confidence: float | None = None
    cause: Exception | None = None


def judge(detector: Inference, name: str, file: Path, *, regions: Regions) -> Judged:
    """Decodes and judges a file, and draws its overlay."""
    row: dict[str, Any] = dict.fromkeys(FIELDS)
    row["path"] = name
    image = None
    try:
        image = decoded(detector, file)
        prediction = detector.predict(image, roi=regions.load(file), reconstruct=False)
    except NotRegistered as error:
        row["error"] = str(error)
        return Judged(row, image, b"", NOT_REGISTERED, error.registration.confidence)
    except (UserError, MemoryError) as error:
        row["error"] = str(error) or "there is not enough memory for this image."
        return Judged(row, image, b"", BROKEN, cause=error)
    row |= {
        "score": float(prediction.score),
        "threshold": float(detector.thresholds.image),
        "anomalous": bool(prediction.label),
        "regions": count_regions(prediction.mask),
    }
    if prediction.defect_probability is not None:
        row["defect_probability"] = float(prediction.defect_probability)
    shown = image if image.dtype == np.uint8 else to_unit(image)
    drawn = outlined(rgb(shown), truth=None, mask=prediction.mask)
    found = prediction.registration
    return Judged(
        row,
        image,
        encode(drawn, quality=None),
        REJECT if prediction.label else GOOD,
        None if found is None else found.confidence,
    )


def judge_and_draw(
    detector: Inference, name: str, file: Path, *, regions: Regions, overlays: Path
) -> Judged:
    """What there is to tell of a file, without pictures: its overlay is written below `overlays`"""
    judged = judge(detector, name, file, regions=regions)
    if judged.overlay:
        files.write_bytes(overlays / f"{name}.png", judged.overlay)
    # An error keeps the image that it was raised about, and there may be many.
    return judged._replace(image=None, overlay=b"", cause=None)


def summary(judged: Sequence[Judged], output: Path) -> str:
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
    """The command."""
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
        for file in told(images, "prediction")
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
