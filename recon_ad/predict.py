"""Judge an image or a folder of images and write a table and overlays.

    python -m recon_ad.predict --detector D/detector --input FILE-or-FOLDER --output O [--roi PATH]
    python -m recon_ad.predict --onnx M.onnx [--runtime openvino] --input … --output …

This writes O/predictions.csv, O/predictions.jsonl and O/overlays/; each row is written as soon as
its image is judged. The same command resumes an interrupted run. A file that cannot be read, or in
which the part is not found, gets a row with its error, and the exit status is then 3. `--onnx` uses
an exported model and does not need JAX. `--roi` is one image, or a folder with the same layout as
the input; only pixels that are white in it count.

    python -m recon_ad.predict --detector D/detector --input … --output … --maps npy

This also writes each image's anomaly map beside its overlay, as O/overlays/NAME.map.npy or, with
`--maps png`, as a 16-bit PNG with its scale in the PNG text (`recon_ad.detector.maps`).

    python -m recon_ad.predict --detector D/detector --input mvtec_ad_2/can … --submission S

This judges the private test images of an object of MVTec AD 2 and writes their maps and masks to S
in the format of the benchmark's server (`recon_ad.detector.submission`).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from recon_ad import cli
from recon_ad.detector.image_files import (
    BROKEN,
    NOT_REGISTERED,
    REJECT,
    FileResult,
)
from recon_ad.detector.maps import FORMS
from recon_ad.detector.open import detector_flags
from recon_ad.detector.predictions import predict_files
from recon_ad.errors import UserError
from recon_ad.runtime.terminal import escaped

NOT_JUDGED = 3  # exit status when some file could not be judged
SHOWN = 5  # files of each kind that were not judged whose error is printed


def summary(judged: Sequence[FileResult], output: Path) -> str:
    """Return the counts of images by outcome, and the errors of the first that were not judged."""
    counts = Counter(one.outcome for one in judged)
    anomalous, lost, broken = (counts[what] for what in (REJECT, NOT_REGISTERED, BROKEN))
    lines = [
        f"{len(judged)} images: {anomalous} anomalous, {lost + broken} not judged"
        f"{f' ({lost} not registered)' if lost else ''}; see {output}"
    ]
    for what, count in ((NOT_REGISTERED, lost), (BROKEN, broken)):
        rows = [one.row for one in judged if one.outcome == what]
        for row in rows[:SHOWN]:
            # Errors about a file already begin with its path.
            named = row["path"] in row["error"]
            lines.append(f"  {row['error']}" if named else f"  {row['path']}: {row['error']}")
        if count > SHOWN:
            lines.append(f"  and {count - SHOWN} more {what}: see {output / 'predictions.csv'}")
    return "\n".join(map(escaped, lines))


def main() -> int:
    """Run the command."""
    given, output = Path(_INPUT.value), Path(_OUTPUT.value)
    detector = _DETECTOR.open()
    if not given.exists() and not given.is_symlink():
        raise UserError(f"no file or folder {given}: check the path of --input.")
    roi = Path(_ROI.value) if _ROI.value else None
    submission = Path(_SUBMISSION.value) if _SUBMISSION.value else None
    results = predict_files(
        detector,
        given,
        output,
        identity=_DETECTOR.identity(),
        roi=roi,
        submission=submission,
        form=_MAPS.value or "",
    )
    print(summary(results, output))
    return NOT_JUDGED if any(one.row["error"] for one in results) else 0


if __name__ == "__main__":
    _DETECTOR = detector_flags()
    _INPUT = flags.DEFINE_string("input", None, "Image or folder of images.", required=True)
    _ROI = flags.DEFINE_string("roi", "", "Region of interest: an image or a folder of images.")
    _OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.", required=True)
    _MAPS = flags.DEFINE_enum(
        "maps", None, list(FORMS), "Also write the anomaly maps, in this format."
    )
    _SUBMISSION = flags.DEFINE_string(
        "submission", "", "Folder for the maps and masks of MVTec AD 2's private images."
    )
    cli.run(main)
