"""Judges images: a file or a folder in, a table and overlays out.

    python -m recon_ad.predict --detector D/detector --input FILE-or-FOLDER --output O [--roi PATH]
    python -m recon_ad.predict --onnx M.onnx [--runtime openvino] --input … --output …

writes O/predictions.csv, O/predictions.jsonl and O/overlays/, a row as soon as its image is judged.
The same command goes on where it was interrupted. A file that cannot be read, or in which the part
is not found, is a row with its error, and the exit status is then 3. With `--onnx`
an exported model judges, without JAX. With `--roi`, one image or a folder laid out as the input is,
only pixels that are white in it count.

    python -m recon_ad.predict --detector D/detector --input … --output … --maps npy

writes each image's anomaly map beside its overlay, as O/overlays/NAME.map.npy or, with
`--maps png`, as a PNG of 16 bits whose scale is in its text (`recon_ad.detector.maps`).

    python -m recon_ad.predict --detector D/detector --input mvtec_ad_2/can … --submission S

judges the private test images of an object of MVTec AD 2, and writes their maps and masks into S as
the benchmark's server takes them (`recon_ad.detector.submission`).
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
    return "\n".join(map(escaped, lines))


def main() -> int:
    """Runs the command."""
    given, output = Path(_INPUT.value), Path(_OUTPUT.value)
    detector = _DETECTOR.open()
    if not given.exists() and not given.is_symlink():
        raise UserError(f"there is no file or folder {given}.")
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
    _INPUT = flags.DEFINE_string("input", None, "Image, or folder of images.", required=True)
    _ROI = flags.DEFINE_string("roi", "", "Region of interest: an image, or a folder of them.")
    _OUTPUT = flags.DEFINE_string("output", None, "Folder for the results.", required=True)
    _MAPS = flags.DEFINE_enum("maps", None, list(FORMS), "Form of anomaly maps beside overlays.")
    _SUBMISSION = flags.DEFINE_string(
        "submission", "", "Folder for maps and masks of MVTec AD 2's private images."
    )
    cli.run(main)
