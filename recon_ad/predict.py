"""Judges images: a file or a folder in, a table and overlays out.

    python -m recon_ad.predict --detector D/detector --input FILE-or-FOLDER --output O [--roi PATH]
    python -m recon_ad.predict --onnx M.onnx [--runtime openvino] --input … --output …

writes O/predictions.csv, O/predictions.jsonl and O/overlays/. A file that cannot be read is a row
with its error, and the exit status is then 3. With `--onnx` an exported model judges, without JAX.
With `--roi`, one image or a folder laid out as the input is, only pixels that are white in it
count.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from recon_ad import cli
from recon_ad.data.arrays import given_range, to_unit
from recon_ad.data.decode import SUFFIXES, decode_image
from recon_ad.data.listing import files_below
from recon_ad.data.truth import Regions
from recon_ad.errors import UserError
from recon_ad.inference import Inference, count_regions
from recon_ad.loading import load
from recon_ad.report.pictures import encode, outlined, rgb
from recon_ad.runtime import files

FIELDS = ("path", "score", "threshold", "anomalous", "regions", "error")
BROKEN = 3  # exit status when some file could not be judged


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


def judge(
    detector: Inference, name: str, file: Path, *, regions: Regions, overlays: Path
) -> dict[str, Any]:
    """One row; the overlay is written beside."""
    row: dict[str, Any] = dict.fromkeys(FIELDS)
    row["path"] = name
    try:
        image = decode_image(
            file,
            channels=detector.plan.channels,
            input_range=given_range(detector.plan.input_range),
        )
        load_roi = regions.of(file)
        roi = load_roi() if load_roi else None
        prediction = detector.predict(image, roi=roi, reconstruct=False)
    except UserError as error:
        row["error"] = str(error)
        return row
    row |= {
        "score": float(prediction.score),
        "threshold": float(detector.thresholds.image),
        "anomalous": bool(prediction.label),
        "regions": count_regions(prediction.mask),
    }
    shown = image if image.dtype == np.uint8 else to_unit(image)
    drawn = outlined(rgb(shown), truth=None, mask=prediction.mask)
    files.write_bytes(overlays / f"{name}.png", encode(drawn, quality=None))
    return row


def opened() -> Inference:
    """The detector that the flags name."""
    if bool(_DETECTOR.value) == bool(_ONNX.value):
        raise UserError("give either --detector, a detector directory, or --onnx, a model.")
    if _ONNX.value:
        return load(_ONNX.value, runtime=_RUNTIME.value)
    from recon_ad.runtime.compilation import keep_compiled  # of JAX, which --onnx does without

    keep_compiled()
    return load(_DETECTOR.value)


def main() -> int:
    """The command."""
    detector = opened()
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
    rows = [
        judge(
            detector,
            file.relative_to(root).as_posix(),
            file,
            regions=regions,
            overlays=output / "overlays",
        )
        for file in images
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
    _DETECTOR = flags.DEFINE_string("detector", "", "Detector directory.")
    _ONNX = flags.DEFINE_string("onnx", "", "Exported model, in place of a detector directory.")
    _RUNTIME = flags.DEFINE_enum(
        "runtime", "onnxruntime", ["onnxruntime", "openvino"], "That computes the model."
    )
    _INPUT = flags.DEFINE_string("input", None, "Image, or folder of images.", required=True)
    _ROI = flags.DEFINE_string("roi", "", "Region of interest: an image, or a folder of them.")
    _OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.", required=True)
    cli.run(main)
